"""The shell of a minicolab kernel. Its module name is how notebooks find out where they run: `str(get_ipython())`."""

from __future__ import annotations

import os
from typing import Any

from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.interactiveshell import InteractiveShellABC

from google.colab import _system_commands

_IMPORT_NOTE = """

\033[0;31m---------------------------------------------------------------------------
NOTE: If your import is failing due to a missing package, you can
manually install dependencies using either !pip or !apt.
---------------------------------------------------------------------------\033[0m"""


class Shell(ZMQInteractiveShell):
    """IPython's notebook shell with Colab's `!` commands and its note on failed imports."""

    def init_traceback_handlers(self, custom_exceptions: Any) -> None:
        super().init_traceback_handlers(custom_exceptions)
        self.set_custom_exc((ImportError,), _explain_import_error)

    def system(self, cmd: str) -> None:
        """Run `!cmd`: output as it comes, questions answered below the cell. Sets `_exit_code`."""
        if os.environ.get("USE_NATIVE_IPYTHON_SYSTEM_COMMANDS"):
            super().system_piped(cmd)
            return
        command = self.var_expand(cmd, depth=1)
        self.user_ns["_exit_code"] = _system_commands.run(self, command)


def _explain_import_error(shell: Any, kind: Any, value: Any, trace: Any, tb_offset: Any = None) -> Any:
    """Show the error as always, and how to install what is missing."""
    lines = shell.InteractiveTB.structured_traceback(kind, value, trace, tb_offset=tb_offset)
    if lines:
        lines = [*lines[:-1], str(lines[-1]) + _IMPORT_NOTE]
    if shell.kernel is not None:
        shell._showtraceback(kind, value, lines)
    return lines


InteractiveShellABC.register(Shell)
