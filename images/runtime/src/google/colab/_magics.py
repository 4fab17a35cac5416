"""Colab's magics: `%pip`, `%shell`, `%%shell`, `%tensorflow_version`."""

from __future__ import annotations

from typing import Any

from google.colab import _system_commands


def register(shell: Any) -> None:
    """Give `shell` Colab's magics."""

    def pip(line: str) -> None:
        """Install packages into this runtime: `%pip install NAME`."""
        shell.system(f"pip {line}")

    def shell_command(line: str, cell: str | None = None) -> Any:
        """Run a shell command or script; a failure is an error."""
        return _system_commands.shell_magic(shell, line, cell)

    shell.register_magic_function(pip, "line", "pip")
    shell.register_magic_function(shell_command, "line_cell", "shell")
    shell.register_magic_function(tensorflow_version, "line", "tensorflow_version")


def tensorflow_version(line: str) -> None:
    """Colab's switch between TensorFlow versions, of which only 2.x is left. Raises ValueError for 1.x."""
    wanted = line.strip()
    if wanted.startswith("1"):
        raise ValueError("Tensorflow 1 is unsupported in Colab.")
    print("Colab only includes TensorFlow 2.x; %tensorflow_version has no effect.")
