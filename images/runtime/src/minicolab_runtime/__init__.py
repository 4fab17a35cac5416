"""minicolab-runtime: what minicolab installs in every runtime environment.

The server a runtime answers with (`python -m minicolab_runtime.server`), the kernel it runs (`minicolab_runtime.kernel`), and
the helpers behind `google.colab`. It knows the rest of minicolab over HTTP and the environment only. Importing this package
imports nothing else: it happens at every start of the environment's Python (see `_autoload`).
"""

__version__ = "0.1.0"
