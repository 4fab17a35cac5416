"""The kernel of a minicolab runtime."""

from __future__ import annotations

import sys
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from traitlets import Type

from google.colab._shell import Shell


class Kernel(IPythonKernel):
    """IPython's kernel with Colab's shell. A question of `input()` is announced on iopub too.

    The question itself goes to the client that ran the cell. When that page is gone, nobody would learn that the cell waits;
    so the runtime's recorder hears of it, and a page that attaches later can show the input box.
    """

    shell_class = Type(Shell)

    def _input_request(self, prompt: str, ident: Any, parent: Any, password: bool = False) -> str:
        self.announce_input(prompt, password, parent)
        answer: str = super()._input_request(prompt, ident, parent, password)
        return answer

    def announce_input(self, prompt: str, password: bool, parent: Any) -> None:
        """Tell whoever listens that the running cell waits for a line."""
        assert self.session is not None
        if sys.stdout is not None:
            sys.stdout.flush()  # what was printed before the question comes before it
        self.session.send(
            self.iopub_socket,
            "colab_request",
            {"request": {"prompt": prompt, "password": password}},
            metadata={"colab_request_type": "input_request"},
            parent=parent,
        )
