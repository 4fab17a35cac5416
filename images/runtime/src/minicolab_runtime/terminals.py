"""Terminals: what a person types counts as activity, what a program prints does not."""

from __future__ import annotations

from typing import Any

from jupyter_server_terminals.handlers import TermSocket

from minicolab_runtime.activity import Activity


def count_typing(activity: Activity) -> None:
    """Make every terminal websocket of this process report typing to `activity`, and send each key without delay."""
    original = TermSocket.on_message

    async def on_message(self: TermSocket, message: Any) -> None:
        activity.touch()
        if self.ws_connection is not None:
            self.set_nodelay(True)
        await original(self, message)

    TermSocket.on_message = on_message  # type: ignore[method-assign]
