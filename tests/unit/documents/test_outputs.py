"""Who writes the outputs of a cell: its page while it is there, the service when it is not; never both, never twice."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from documents_support import MemoryShelf, Page, notebook
from pycrdt import Array, Map, Text

from hub.documents.rooms import wire
from hub.documents.rooms.outputs import (
    FROZEN_SECONDS,
    GONE_SECONDS,
    LATE_SECONDS,
    SERVICE,
    STALE_SECONDS,
    Told,
    clean_outputs,
    read_told,
)
from hub.documents.rooms.room import Room
from hub.documents.rooms.store import HistoryStore
from hub.documents.rooms.writer import Answer
from quota.clock import FakeClock

RUNTIME = "r-one"


class Notebook(Page):
    """A page that runs cells as the real one does: it clears, puts its mark, and writes what the kernel says."""

    def __init__(self, room: Room, client: int) -> None:
        super().__init__(room)
        self.client = client
        self._clock = 0
        self._unsent_edits: list[bytes] = []

    def _typed(self, update: bytes) -> None:
        if not self._merging:
            self._unsent_edits.append(update)

    def sync(self) -> None:
        """Send what was edited, as a page does between two of its own acts."""
        while self._unsent_edits and not self.away:
            self.room.merge(self._unsent_edits.pop(0), self)

    def be_here(self) -> None:
        self._clock += 1
        self.room.present([wire.Presence(self.client, self._clock, {"user": {}})], self)

    def come(self) -> None:
        self.enter()
        self.be_here()

    def cell(self, number: int = 0) -> Map[Any]:
        found = self.shared._cells[number]
        assert isinstance(found, Map)
        return found

    def run(self, run: str, number: int = 0, runtime: str = RUNTIME) -> None:
        self.clear(number)
        self.mark(run, number, runtime)

    def mark(self, run: str, number: int = 0, runtime: str = RUNTIME) -> None:
        mark: Any = {"run": run, "client": float(self.client), "runtime": runtime}
        self.shared.tell(**{f"ran:{self.cell(number)['id']}": mark})
        self.sync()

    def clear(self, number: int = 0) -> None:
        with self.shared._doc.transaction():
            self.cell(number)["outputs"] = Array([])
            self.cell(number)["execution_count"] = None
        self.sync()

    def hear(self, text: str, number: int = 0) -> None:
        outputs = self.cell(number)["outputs"]
        if len(outputs):
            shown = outputs[0]["text"]
            shown += text
        else:
            outputs.append(Map({"output_type": "stream", "name": "stdout", "text": Text(text)}))
        self.sync()

    def end(self, count: int, number: int = 0) -> None:
        self.cell(number)["execution_count"] = float(count)
        self.sync()


@dataclass
class Desk:
    """An open notebook and a runtime that tells of its cells."""

    room: Room
    shelf: MemoryShelf
    clock: FakeClock
    version: dict[str, int] = field(default_factory=dict)

    def tell(
        self,
        run: str,
        text: str | None,
        *,
        cell: str = "c0",
        state: str = "running",
        count: int | None = 1,
        over: bool = False,
        runtime: str = RUNTIME,
        status: str | None = None,
    ) -> Answer:
        self.version[run] = self.version.get(run, 0) + 1
        return self.room.deliver(
            [told(run, text, cell, state, count, self.version[run], over, runtime, status)]
        )

    def wait(self, seconds: float) -> None:
        self.clock.boot += seconds
        self.room.look_at_outputs()

    async def saved(self, number: int = 0) -> dict[str, Any]:
        await self.room.save()
        cell: dict[str, Any] = json.loads(self.shelf.raw)["cells"][number]
        return cell

    async def text(self, number: int = 0) -> str:
        outputs = (await self.saved(number))["outputs"]
        return "".join("".join(o["text"]) for o in outputs)


def told(
    run: str,
    text: str | None,
    cell: str,
    state: str,
    count: int | None,
    version: int,
    over: bool,
    runtime: str,
    status: str | None,
) -> Told:
    outputs = None if text is None else [{"output_type": "stream", "name": "stdout", "text": text}]
    value = {
        "msg_id": run,
        "cell_id": cell,
        "state": state,
        "status": status,
        "execution_count": count,
        "changed": version,
        "outputs": outputs if text else ([] if text is not None else None),
    }
    found = read_told(runtime, value, over=over)
    assert found is not None
    return found


@pytest.fixture
async def desk(history: HistoryStore) -> Desk:
    clock = FakeClock()
    return await open_desk(MemoryShelf(notebook("a", "b")), history, clock)


async def open_desk(shelf: MemoryShelf, history: HistoryStore, clock: FakeClock) -> Desk:
    room = Room("f1", shelf, history, clock, readonly=False, max_bytes=1 << 20)
    await room.open()
    return Desk(room, shelf, clock)


async def test_while_its_page_is_there_the_page_writes_and_nobody_else(desk: Desk) -> None:
    page = Notebook(desk.room, 7)
    page.come()
    page.run("m1")
    page.hear("one\n")
    assert desk.tell("m1", None) == Answer((), ())
    desk.wait(GONE_SECONDS * 3)
    assert desk.tell("m1", "one\ntwo\n") == Answer((), ())
    assert await desk.text() == "one\n"
    page.hear("two\n")
    page.end(1)
    assert desk.tell("m1", None, state="done").settled == ("m1",)
    assert await desk.text() == "one\ntwo\n"


async def test_a_page_that_has_gone_is_followed_by_the_service_after_a_while(desk: Desk) -> None:
    page = Notebook(desk.room, 7)
    page.come()
    page.run("m1")
    page.hear("one\n")
    page.leave()
    desk.wait(GONE_SECONDS - 1)
    assert desk.tell("m1", None) == Answer((), ())
    desk.wait(2)
    assert desk.tell("m1", None).wanted == ("m1",)
    assert desk.tell("m1", "one\ntwo\n") == Answer((), ())
    cell = await desk.saved()
    assert ("".join(cell["outputs"][0]["text"]), cell["execution_count"]) == ("one\ntwo\n", None)
    assert desk.tell("m1", "one\ntwo\nthree\n", state="done").settled == ("m1",)
    cell = await desk.saved()
    assert ("".join(cell["outputs"][0]["text"]), cell["execution_count"]) == ("one\ntwo\nthree\n", 1)
    assert desk.tell("m1", None, state="done").settled == (
        "m1",
    )  # told again, by a control that was restarted


async def test_a_page_that_is_back_in_time_goes_on_itself(desk: Desk) -> None:
    page = Notebook(desk.room, 7)
    page.come()
    page.run("m1")
    page.leave()
    desk.wait(GONE_SECONDS - 1)
    page.come()
    desk.wait(GONE_SECONDS)
    assert desk.tell("m1", "one\n") == Answer((), ())
    assert await desk.text() == ""


async def test_a_frozen_page_is_one_that_says_nothing_though_it_is_connected(desk: Desk) -> None:
    page = Notebook(desk.room, 7)
    page.come()
    page.run("m1")
    for _ in range(4):
        desk.wait(FROZEN_SECONDS - 1)
        assert desk.tell("m1", None) == Answer((), ())
        page.be_here()
    desk.wait(FROZEN_SECONDS + 1)
    assert desk.tell("m1", None).wanted == ("m1",)
    desk.tell("m1", "one\n")
    assert await desk.text() == "one\n"


async def test_what_a_page_adds_after_it_woke_up_is_taken_away_again(desk: Desk) -> None:
    page = Notebook(desk.room, 7)
    other = Page(desk.room)
    other.enter()
    page.come()
    page.run("m1")
    page.hear("one\n")
    desk.wait(FROZEN_SECONDS + 1)
    desk.tell("m1", "one\n")
    desk.tell("m1", "one\ntwo\n", state="done")
    page.hear("two\n")
    page.end(1)
    assert await desk.text() == "one\ntwo\n"
    assert other.shared.outputs("c0") == page.shared.outputs("c0") == desk.room._shared.outputs("c0")


async def test_also_when_it_wrote_without_a_connection_and_the_service_was_restarted(
    desk: Desk, history: HistoryStore
) -> None:
    page = Notebook(desk.room, 7)
    page.come()
    page.run("m1")
    page.hear("one\n")
    page.leave()
    page.hear("two\n")  # its kernel's connection lives longer than the one to us
    page.end(1)
    desk.wait(GONE_SECONDS + 1)
    desk.tell("m1", "one\ntwo\n", state="done")
    await desk.room.close()

    again = await open_desk(desk.shelf, history, desk.clock)
    page.room = again.room
    page.come()
    assert await again.text() == "one\ntwo\n"
    assert "".join(str(o["text"]) for o in page.shared.outputs("c0") or []) == "one\ntwo\n"


async def test_a_run_without_any_page_is_written_once_a_page_had_its_time_to_say_that_it_is_its(
    desk: Desk,
) -> None:
    assert desk.tell("m1", "one\n") == Answer((), ())
    assert await desk.text() == ""
    desk.wait(GONE_SECONDS + 1)
    assert await desk.text() == "one\n"

    page = Notebook(desk.room, 7)
    page.come()
    desk.tell("m2", "two\n", cell="c1")
    page.run("m2", 1)  # the runtime told of it sooner than the page did
    desk.wait(GONE_SECONDS + 1)
    assert await desk.text(1) == ""


async def test_a_cell_that_only_waits_is_left_as_it_is(desk: Desk) -> None:
    desk.tell("m1", "old\n", state="done")
    desk.wait(GONE_SECONDS + 1)
    desk.tell("m2", "", state="queued", count=None)
    desk.wait(GONE_SECONDS + 1)
    assert await desk.text() == "old\n"


async def test_the_end_of_a_runtime_is_written_when_the_page_did_not_hear_it(desk: Desk) -> None:
    page = Notebook(desk.room, 7)
    page.come()
    page.run("m1")
    page.hear("one\n")
    assert desk.tell("m1", "one\nlast words\n", over=True) == Answer((), ())
    desk.wait(GONE_SECONDS + 1)
    assert await desk.text() == "one\nlast words\n"
    assert desk.tell("m1", None, over=True).settled == ("m1",)
    assert desk.room._shared.execution_count("c0") == 1


async def test_a_page_that_wrote_something_else_after_the_end_is_believed(desk: Desk) -> None:
    page = Notebook(desk.room, 7)
    page.come()
    page.run("m1")
    page.hear("one\n")
    desk.tell("m1", None, state="done")
    page.clear()  # its person cleared the outputs
    desk.wait(GONE_SECONDS + 1)
    assert desk.tell("m1", None, state="done") == Answer((), ())
    desk.wait(LATE_SECONDS)
    page.be_here()
    assert desk.tell("m1", None, state="done").settled == ("m1",)
    assert await desk.text() == ""


async def test_outputs_that_a_person_cleared_stay_cleared(desk: Desk, history: HistoryStore) -> None:
    desk.tell("m1", "one\n", state="done")
    desk.wait(GONE_SECONDS + 1)
    assert await desk.text() == "one\n"
    page = Notebook(desk.room, 8)
    page.come()
    page.clear()
    assert desk.tell("m1", "one\n", state="done").settled == ("m1",)
    assert await desk.text() == ""
    await desk.room.close()
    again = await open_desk(desk.shelf, history, desk.clock)
    again.clock.boot += GONE_SECONDS * 2
    assert again.tell("m1", "one\n", state="done", over=True).settled == ("m1",)
    assert await again.text() == ""


async def test_a_new_run_takes_the_cell_back_from_the_service(desk: Desk) -> None:
    desk.tell("m1", "one\n")
    desk.wait(GONE_SECONDS + 1)
    page = Notebook(desk.room, 8)
    page.come()
    assert await desk.text() == "one\n"
    page.run("m2")
    page.hear("new\n")
    assert desk.tell("m1", "one\ntwo\n") == Answer((), ())
    assert await desk.text() == "new\n"
    found = [
        told("m1", None, "c0", "done", 1, 9, False, RUNTIME, "ok"),
        told("m2", None, "c0", "running", 2, 10, False, RUNTIME, None),
    ]
    assert desk.room.deliver(found).settled == ("m1",)
    assert await desk.text() == "new\n"


async def test_what_an_ended_runtime_left_does_not_undo_a_run_on_another_one(desk: Desk) -> None:
    page = Notebook(desk.room, 8)
    page.come()
    page.run("n1", runtime="r-two")
    page.hear("newer\n")
    page.leave()
    assert desk.tell("m1", "older\n", over=True).settled == ("m1",)
    desk.wait(GONE_SECONDS * 2)
    assert await desk.text() == "newer\n"


async def test_a_cell_that_was_deleted_and_a_cell_of_text_are_nobodys(desk: Desk) -> None:
    assert desk.tell("m1", "x", cell="gone").settled == ("m1",)


async def test_growing_text_is_added_to_and_not_written_anew(desk: Desk) -> None:
    updates: list[bytes] = []
    page = Page(desk.room)
    page.enter()
    text = "line of text\n" * 2000
    desk.tell("m1", text)
    desk.wait(GONE_SECONDS + 1)
    page.received.clear()
    desk.tell("m1", text + "ä more\n")
    updates = page.received
    assert sum(map(len, updates)) < 500
    assert page.shared.outputs("c0") == [
        {"output_type": "stream", "name": "stdout", "text": text + "ä more\n"}
    ]
    page.received.clear()
    desk.tell("m1", text + "ö less\n")  # a progress bar draws its line anew
    assert sum(map(len, page.received)) < 500
    assert page.shared.outputs("c0") == [
        {"output_type": "stream", "name": "stdout", "text": text + "ö less\n"}
    ]
    desk.tell("m1", "all new\n")
    assert await desk.text() == "all new\n"


async def test_pictures_and_tables_come_as_they_were_shown(desk: Desk) -> None:
    shown = [
        {
            "output_type": "execute_result",
            "data": {"text/plain": "x", "application/json": {"n": 1.0}},
            "metadata": {},
            "execution_count": 3,
            "transient": {"display_id": "d"},
        },
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["a", "b"]},
    ]
    value = {"msg_id": "m1", "cell_id": "c0", "state": "done", "execution_count": 3, "outputs": shown}
    found = read_told(RUNTIME, value, over=False)
    assert found is not None
    desk.room.deliver([found])
    desk.wait(GONE_SECONDS + 1)
    cell = await desk.saved()
    assert cell["outputs"] == [
        {
            "output_type": "execute_result",
            "data": {"text/plain": ["x"], "application/json": {"n": 1}},
            "metadata": {},
            "execution_count": 3,
        },
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["a", "b"]},
    ]


def test_what_is_no_output_or_can_not_be_kept_is_left_out() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    found = clean_outputs(
        [
            1,
            {"output_type": "stream", "name": "nowhere", "text": "a\ud800b"},
            {"output_type": "display_data", "data": {"application/json": math.nan}, "metadata": 3},
            {"output_type": "display_data", "data": {"application/json": deep}},
            {"output_type": "script"},
            {"output_type": "error"},
        ]
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == [
        {"output_type": "stream", "name": "stdout", "text": "a?b"},
        {"output_type": "display_data", "data": {"application/json": None}, "metadata": {}},
        {"output_type": "error", "ename": "", "evalue": "", "traceback": []},
    ]
    for value in (None, {}, {"msg_id": "m"}, {"msg_id": "m", "cell_id": "c", "state": "odd"}):
        assert read_told(RUNTIME, value, over=False) is None
    long = {"msg_id": "m" * 300, "cell_id": "c", "state": "done"}
    assert read_told(RUNTIME, long, over=False) is None


async def test_runs_of_which_nobody_tells_any_more_are_forgotten(desk: Desk) -> None:
    desk.tell("m1", None)
    assert desk.room.awaits_outputs
    desk.wait(STALE_SECONDS + 1)
    assert not desk.room.awaits_outputs


async def test_the_mark_of_a_settled_run_stays_and_says_whose_it_was(desk: Desk) -> None:
    desk.tell("m1", "one\n", state="done")
    desk.wait(GONE_SECONDS + 1)
    assert desk.room._shared.told("ran:c0") == {
        "run": "m1",
        "client": SERVICE,
        "runtime": RUNTIME,
        "done": True,
    }
