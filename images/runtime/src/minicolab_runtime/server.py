"""What a runtime starts with: `python -m minicolab_runtime.server`.

Everything it is told comes by environment (`settings.py`). It forks the first kernel's process, then becomes the server (`application`),
which writes MINICOLAB_READY_FILE (JSON: pid, host, port, base_url) once it answers; it ends with 78 when the environment is wrong.
"""

from __future__ import annotations

import gc

gc.disable()  # nothing that imports make is garbage

import os  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from types import ModuleType  # noqa: E402

# Checkers of formats that no Jupyter schema has; jsonschema does without those that are not installed. The first of them alone builds
# 35 Earley parsers: 1.2 s.
UNUSED_FORMATS = (
    "rfc3987_syntax",
    "rfc3987",
    "rfc3986_validator",
    "isoduration",
    "fqdn",
    "webcolors",
    "uri_template",
)


def spare_imports() -> None:
    """Do without what costs much at import and that nothing here uses."""
    for name in UNUSED_FORMATS:
        sys.modules[name] = None  # type: ignore[assignment]  # reads as "not installed"
    # Jinja's names of variables in templates: compiling all of Unicode costs 45 ms, and Jupyter's templates are ASCII.
    identifier = ModuleType("jinja2._identifier")
    identifier.pattern = re.compile(r"\w+")  # type: ignore[attr-defined]
    sys.modules["jinja2._identifier"] = identifier


def main() -> int:
    """Run until told to stop; return the exit status. The forked process returns from here as the kernel it was."""
    ahead = None
    if os.environ.get("MINICOLAB_PRESTART") == "1":
        from minicolab_runtime import kernel_ahead

        ahead = kernel_ahead.fork()  # before a secret is read: user code will run there
        if ahead is None:
            gc.enable()
            from minicolab_runtime import kernel

            kernel.main()
            return 0
    spare_imports()
    from minicolab_runtime import application

    gc.freeze()
    gc.enable()
    return application.run(ahead)


if __name__ == "__main__":
    sys.exit(main())
