"""`python -m storage_mount.plugin.wire.generate [FOLDER]`: make the modules of messages from the proto files; needs grpcio-tools."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
PROTOS = ("csi_node.proto", "registration.proto")


def generate(folder: Path) -> None:
    """Write the generated modules into `folder`."""
    from grpc_tools import protoc

    arguments = ["protoc", f"-I{HERE}", f"--python_out={folder}", f"--pyi_out={folder}", *PROTOS]
    if protoc.main(arguments) != 0:
        raise SystemExit("The proto files could not be read.")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
