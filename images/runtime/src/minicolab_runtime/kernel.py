"""The kernel of a runtime: `python -m minicolab_runtime.kernel -f CONNECTION_FILE`."""

from __future__ import annotations


def main() -> None:
    """Run an IPython kernel that is Colab's to the notebook."""
    from ipykernel.kernelapp import IPKernelApp

    from google.colab._kernel import Kernel
    from minicolab_runtime import _autoload

    _autoload.install()  # also where this package is on the path without its .pth file
    IPKernelApp.launch_instance(kernel_class=Kernel, extensions=["google.colab"])


if __name__ == "__main__":
    main()
