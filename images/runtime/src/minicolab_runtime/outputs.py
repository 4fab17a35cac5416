"""The outputs of one execution as a notebook would keep them: streams merged, displays updated, clears honoured, size bounded."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]  # a Jupyter message part or a notebook output: JSON by protocol, of no fixed shape

MAX_STREAM_CHARACTERS = 1_000_000  # kept of each run of stream text: the end, which is what a reader needs
MAX_OUTPUT_BYTES = 20_000_000  # kept of one execution in all


class OutputLog:
    """Collects iopub messages of one execution. `outputs` is nbformat 4 (plus `transient.display_id` where one was given)."""

    def __init__(
        self, *, max_stream_characters: int = MAX_STREAM_CHARACTERS, max_bytes: int = MAX_OUTPUT_BYTES
    ) -> None:
        self._max_stream_characters = max_stream_characters
        self._max_bytes = max_bytes
        self._outputs: list[Json] = []
        self._clear_pending = False
        self._dropped_characters = 0
        self._dropped_outputs = 0
        self._bytes = 0

    @property
    def size(self) -> int:
        """About how many bytes are kept."""
        return self._bytes

    def add(self, message_type: str, content: Json) -> None:
        """Take in one iopub message; types that are not outputs are ignored."""
        if message_type == "clear_output":
            if content.get("wait"):
                self._clear_pending = True
            else:
                self._clear()
        elif message_type == "stream":
            self._before_output()
            self._stream(str(content.get("name", "stdout")), str(content.get("text", "")))
        elif message_type in ("display_data", "execute_result", "error"):
            self._before_output()
            self._append(_output(message_type, content))

    def update_display(self, content: Json) -> bool:
        """Replace the data of every output shown under the message's display id; return whether there was one."""
        display_id = (content.get("transient") or {}).get("display_id")
        found = False
        for output in self._outputs:
            if display_id is not None and (output.get("transient") or {}).get("display_id") == display_id:
                self._bytes -= _size(output)
                output["data"] = content.get("data", {})
                output["metadata"] = content.get("metadata", {})
                self._bytes += _size(output)
                found = True
        return found

    def snapshot(self) -> list[Json]:
        """Return the outputs, with a first line that says what was dropped, if anything was."""
        notes: list[Json] = []
        if self._dropped_characters or self._dropped_outputs:
            parts = []
            if self._dropped_characters:
                parts.append(f"{self._dropped_characters} characters of earlier text")
            if self._dropped_outputs:
                parts.append(f"{self._dropped_outputs} outputs that were too large")
            text = f"[minicolab kept the newest output only: {' and '.join(parts)} were dropped]\n"
            notes.append({"output_type": "stream", "name": "stderr", "text": text})
        return notes + [dict(output) for output in self._outputs]

    def _before_output(self) -> None:
        if self._clear_pending:
            self._clear()

    def _clear(self) -> None:
        self._outputs.clear()
        self._clear_pending = False
        self._dropped_characters = self._dropped_outputs = self._bytes = 0

    def _stream(self, name: str, text: str) -> None:
        last = self._outputs[-1] if self._outputs else None
        if last is None or last["output_type"] != "stream" or last["name"] != name:
            last = {"output_type": "stream", "name": name, "text": ""}
            self._outputs.append(last)
        joined = last["text"] + text
        start = last["text"].rfind("\n") + 1
        if "\r" in text or "\b" in text or last["text"].endswith("\r"):
            joined = joined[:start] + _overwritten(joined[start:])
        excess = len(joined) - self._max_stream_characters
        if excess > 0:
            # Cut a quarter more than needed, at a line's end where there is one, so that cutting stays rare and cheap.
            cut = min(len(joined), excess + self._max_stream_characters // 4)
            line_end = joined.find("\n", cut)
            cut = line_end + 1 if 0 <= line_end < len(joined) - 1 else cut
            self._dropped_characters += cut
            joined = joined[cut:]
        self._bytes += len(joined) - len(last["text"])
        last["text"] = joined

    def _append(self, output: Json) -> None:
        size = _size(output)
        if size > self._max_bytes:
            self._dropped_outputs += 1
            return
        while self._outputs and self._bytes + size > self._max_bytes:
            self._bytes -= _size(self._outputs.pop(0))
            self._dropped_outputs += 1
        self._outputs.append(output)
        self._bytes += size


def _overwritten(text: str) -> str:
    """Return `text` as it looks after its carriage returns and backspaces, as the page does it: of a progress bar, the last state.

    A carriage return at the very end stays: what comes next may overwrite the line.
    """
    lines = [_overwritten_line(line) for line in text.split("\n")]
    return "\n".join([line.rstrip("\r") for line in lines[:-1]] + lines[-1:])


def _overwritten_line(line: str) -> str:
    waits = "\r" if line.endswith("\r") else ""
    shown = ""
    for part in line.rstrip("\r").split("\r"):
        if "\b" in part:
            kept: list[str] = []
            for character in part:
                if character != "\b":
                    kept.append(character)
                elif kept:
                    kept.pop()
            part = "".join(kept)
        shown = part + shown[len(part) :]
    return shown + waits


def _output(message_type: str, content: Json) -> Json:
    if message_type == "error":
        return {
            "output_type": "error",
            "ename": content.get("ename", ""),
            "evalue": content.get("evalue", ""),
            "traceback": content.get("traceback", []),
        }
    output: Json = {
        "output_type": message_type,
        "data": content.get("data", {}),
        "metadata": content.get("metadata", {}),
    }
    if message_type == "execute_result":
        output["execution_count"] = content.get("execution_count")
    if content.get("transient"):
        output["transient"] = content["transient"]
    return output


def _size(output: Json) -> int:
    """Return about how many bytes `output` holds: text counted, structure guessed."""
    if output["output_type"] == "stream":
        return len(output["text"])
    if output["output_type"] == "error":
        return sum(len(str(line)) for line in output["traceback"]) + len(str(output["evalue"]))
    return sum(
        len(value) if isinstance(value, str) else len(repr(value)) for value in output["data"].values()
    )
