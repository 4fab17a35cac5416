"""One websocket of a page or client to a kernel: prompt, and seen by the recorder."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from typing import Any

from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

from minicolab_runtime.kernels import RuntimeKernelManager
from minicolab_runtime.outputs import Json

log = logging.getLogger(__name__)

_FEWEST_OFFSETS, _MOST_OFFSETS = 6, 10_000  # channel, four parts and the end, up to that many buffers more
V1_PROTOCOL = "v1.kernel.websocket.jupyter.org"


class RuntimeWebsocketConnection(ZMQChannelsWebsocketConnection):
    """Jupyter's connection, with TCP_NODELAY, requests recorded, and restarts explained."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._page_heard = asyncio.Event()
        self._held: list[str | bytes] = []
        self._resuming: asyncio.Task[None] | None = None

    def connect(self) -> Any:
        """Connect to the kernel; the future resolves when page and recorder will both see what the kernel says."""
        connected = super().connect()
        return None if connected is None else asyncio.ensure_future(self._both_subscribed(connected))

    async def _both_subscribed(self, connected: asyncio.Future[None]) -> None:
        # Jupyter asks the kernel, too, but again only after half a second; what we ask is heard by its subscription as well.
        done = asyncio.Event()
        connected.add_done_callback(lambda _: done.set())
        heard = await self._kernels.subscribed(self.kernel_id, done)
        await connected
        if not heard:
            log.warning(
                "Kernel %s is not heard yet; output of its first cell may go unrecorded", self.kernel_id
            )
        # Nagle and the peer's delayed ACK would cost every cell 40 ms. Tornado resets this after the handshake, so: now.
        if self.websocket_handler.ws_connection is not None:
            self.websocket_handler.set_nodelay(True)

    @property
    def _kernels(self) -> RuntimeKernelManager:
        manager: RuntimeKernelManager = self.multi_kernel_manager
        return manager

    def handle_incoming_message(self, incoming_msg: str | bytes) -> None:
        """Pass a message on to the kernel, after noting what it asks."""
        if self.channels:
            try:
                header, metadata, content = self._parts(incoming_msg)
            except (ValueError, KeyError, IndexError, TypeError, struct.error):
                log.warning("A page sent a message that is not a Jupyter message; ignored")
                return
            self._kernels.request_seen(self.kernel_id, header, metadata, content)
        if self._resuming is not None:
            self._held.append(incoming_msg)
            return
        super().handle_incoming_message(incoming_msg)  # type: ignore[arg-type]  # bytes in the v1 protocol

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        """Pass a message on to the page."""
        if getattr(stream, "channel", stream) == "iopub":
            self._page_heard.set()
        super().handle_outgoing_message(stream, outgoing_msg)

    def on_kernel_restarted(self) -> None:
        """Tell the page, and hold back what it asks until page and recorder both hear the new process.

        The sockets connect again one by one: a cell could run, and end, before its outputs had a way back.
        """
        super().on_kernel_restarted()
        self._page_heard.clear()
        if self._resuming is None:
            self._resuming = asyncio.ensure_future(self._resume())

    async def _resume(self) -> None:
        if not await self._kernels.subscribed(self.kernel_id, self._page_heard):
            log.warning("Kernel %s is not heard after its restart", self.kernel_id)
        self._pass_on()

    def _pass_on(self) -> None:
        self._resuming = None
        held, self._held = self._held, []
        for message in held:
            super().handle_incoming_message(message)  # type: ignore[arg-type]  # bytes in the v1 protocol

    def disconnect(self) -> None:  # type: ignore[override]  # the base's own subclass returns nothing, too
        """Let go of the kernel; a page that leaves does not take back what it asked."""
        if self._resuming is not None:
            self._resuming.cancel()
            self._pass_on()
        super().disconnect()

    def _parts(self, message: str | bytes) -> tuple[Json, Json, Json]:
        """Return header, metadata and content of a websocket message (content only where it is looked at)."""
        if self.subprotocol == V1_PROTOCOL:
            _check_frame(message)
            _, parts = deserialize_msg_from_ws_v1(message)
            header = _checked(self.session.unpack(parts[0]))
            content = self.session.unpack(parts[3]) if header["msg_type"] == "input_reply" else {}
            return header, self.session.unpack(parts[2]), content
        loaded = deserialize_binary_message(message) if isinstance(message, bytes) else json.loads(message)
        if not isinstance(loaded["parent_header"], dict):
            raise ValueError("parent_header is not an object")
        return _checked(loaded["header"]), _object(loaded["metadata"]), _object(loaded["content"])

    def _send_status_message(self, status: str) -> None:
        """Tell the page that the kernel restarts or is dead, and why (content `reason`), where a reason is known."""
        iopub = self.channels.get("iopub")
        if iopub is not None and not iopub.closed():
            iopub.flush()  # what the ended process still said comes first
        content = {"execution_state": status}
        reason = getattr(self.kernel_manager, "reason", "")
        if reason:
            content["reason"] = reason
        message = self.session.msg("status", content)
        if self.subprotocol == V1_PROTOCOL:
            self.write_message(serialize_msg_to_ws_v1(message, "iopub", self.session.pack), binary=True)
        else:
            message["channel"] = "iopub"
            self.write_message(json.dumps(message, default=str))


def _check_frame(frame: str | bytes) -> None:
    """Raise ValueError unless `frame` begins as a v1 message: a count of offsets (64 bits each), then these, ascending."""
    count = int.from_bytes(frame[:8], "little") if isinstance(frame, bytes) else 0
    if not (_FEWEST_OFFSETS <= count <= _MOST_OFFSETS and len(frame) >= 8 * (count + 1)):
        raise ValueError("not a message of the v1 protocol")


def _checked(header: object) -> Json:
    """Return a message header, or raise ValueError when it is none."""
    found = _object(header)
    if not (isinstance(found.get("msg_id"), str) and isinstance(found.get("msg_type"), str)):
        raise ValueError("the header names no message")
    return found


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
