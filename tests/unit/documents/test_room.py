"""What must hold while a notebook is open: nothing acknowledged is lost or doubled, and nothing from outside either (D2)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest
from documents_support import MemoryShelf, Page, make_room, notebook, until

from hub.documents.rooms import wire
from hub.documents.rooms.room import Room
from hub.documents.rooms.shape import NotShareable
from hub.documents.rooms.shelf import ChangedOutside, Gone, ShelfError
from hub.documents.rooms.store import HistoryStore


def sources(raw: bytes) -> list[str]:
    return ["".join(c["source"]) for c in json.loads(raw)["cells"]]


def told(page: Page, key: str) -> Any:
    return page.shared.told(key)


async def opened(shelf: MemoryShelf, history: HistoryStore, **kwargs: Any) -> tuple[Room, Page]:
    room = make_room(shelf, history, **kwargs)
    await room.open()
    page = Page(room)
    page.enter()
    return room, page


async def test_opening_and_closing_writes_nothing(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    assert page.sources() == ["a"]
    page.leave()
    await room.close()
    assert shelf.writes == 0


async def test_what_is_typed_is_in_the_file_soon_and_the_page_is_told(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    page.type(0, "b")
    await until(lambda: told(page, "dirty") is False)
    assert sources(shelf.raw) == ["b"]
    await room.close()


async def test_a_save_that_was_acknowledged_is_what_the_next_read_returns(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    page.type(0, "b")
    await room.save()
    assert sources(shelf.raw) == ["b"]
    await room.close()


async def test_two_pages_merge(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a", "b"))
    room, ada = await opened(shelf, history)
    bob = Page(room)
    bob.enter()
    ada.type(0, "a1")
    bob.type(1, "b1")
    assert ada.sources() == bob.sources() == ["a1", "b1"]
    await room.close()
    assert sources(shelf.raw) == ["a1", "b1"]


async def test_edits_of_a_page_that_was_away_merge_once_also_after_a_restart(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a", "b"))
    room, ada = await opened(shelf, history)
    ada.type(0, "a1")
    ada.leave()
    await room.close()
    ada.type(1, "b1")  # the laptop has no network

    again, bob = await opened(shelf, history)
    assert again.epoch == room.epoch
    bob.type(0, "a2")
    ada.room = again
    ada.enter()
    assert ada.sources() == bob.sources() == ["a2", "b1"]
    await again.close()
    assert sources(shelf.raw) == ["a2", "b1"]


async def test_after_a_kill_the_room_holds_what_the_history_holds(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    page.type(0, "typed")
    await history.flush()
    room._autosave.cancel()  # type: ignore[union-attr]  # the process is gone
    assert await history.unfinished() == ["f1"]

    again, other = await opened(shelf, history)
    assert other.sources() == ["typed"]
    await until(lambda: not again.unsaved)
    assert sources(shelf.raw) == ["typed"]
    await again.close()
    assert await history.unfinished() == []


async def test_a_kill_between_file_and_history_doubles_nothing(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    real = history.saved

    async def killed(*_: Any) -> None:
        raise ShelfError("killed here")

    history.saved = killed  # type: ignore[method-assign]
    page.type(0, "typed")
    with pytest.raises(ShelfError):
        await room.save()
    room._autosave.cancel()  # type: ignore[union-attr]
    history.saved = real  # type: ignore[method-assign]
    again, other = await opened(shelf, history)
    assert other.sources() == ["typed"]
    assert shelf.aside == {}
    await again.close()
    assert sources(shelf.raw) == ["typed"]


async def test_a_full_disk_is_said_retried_and_loses_nothing(
    history: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.documents.rooms.room.FIRST_RETRY_SECONDS", 0.05)
    shelf = MemoryShelf(notebook("a"), full=True)
    room, page = await opened(shelf, history)
    page.type(0, "b")
    await until(lambda: told(page, "saveState") is not None)
    assert told(page, "saveState")["message"] == "The Drive's disk is full."
    assert sources(shelf.raw) == ["a"]
    with pytest.raises(ShelfError):
        await room.save()
    shelf.full = False
    await until(lambda: sources(shelf.raw) == ["b"])
    await until(lambda: told(page, "saveState") is None)
    await room.close()


async def test_a_room_that_can_not_be_saved_does_not_close(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"), full=True)
    room, page = await opened(shelf, history)
    page.type(0, "b")
    page.leave()
    with pytest.raises(ShelfError):
        await room.close()
    assert room.unsaved
    shelf.full = False
    await room.close()
    assert sources(shelf.raw) == ["b"]


async def test_a_change_from_outside_appears_in_the_page(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a", "b"))
    room, page = await opened(shelf, history)
    shelf.write_outside(notebook("a", "from the kernel", "c"))
    await room.look_outside()
    assert page.sources() == ["a", "from the kernel", "c"]
    page.type(0, "typed")
    await room.close()
    assert sources(shelf.raw) == ["typed", "from the kernel", "c"]
    assert shelf.aside == {}


async def test_a_change_from_outside_that_meets_unsaved_edits_is_kept_as_a_second_file(
    history: HistoryStore,
) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    page.type(0, "typed")
    shelf.write_outside(notebook("from the kernel"))
    await room.look_outside()
    await room.save()
    assert sources(shelf.raw) == ["typed"]
    assert [sources(raw) for raw in shelf.aside.values()] == [["from the kernel"]]
    assert "changed outside" in told(page, "notice")["message"]
    await room.close()


async def test_a_change_from_outside_while_nobody_was_there_is_shown(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    page.leave()
    await room.close()
    shelf.write_outside(notebook("new"))
    again, other = await opened(shelf, history)
    assert other.sources() == ["new"]
    await again.close()
    assert shelf.aside == {}
    assert sources(shelf.raw) == ["new"]


async def test_a_change_from_outside_after_a_kill_with_unsaved_edits_keeps_both(
    history: HistoryStore,
) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    page.type(0, "typed")
    await history.flush()
    room._autosave.cancel()  # type: ignore[union-attr]
    shelf.write_outside(notebook("from the kernel"))
    again, other = await opened(shelf, history)
    assert other.sources() == ["typed"]
    await again.close()
    assert sources(shelf.raw) == ["typed"]
    assert [sources(raw) for raw in shelf.aside.values()] == [["from the kernel"]]


async def test_half_a_file_from_outside_is_said_and_overwritten_only_with_a_copy(
    history: HistoryStore,
) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    shelf.write_outside(b'{"cells": [')
    await room.look_outside()
    assert "no notebook" in told(page, "saveState")["message"]
    assert page.sources() == ["a"]
    page.type(0, "b")
    await room.close()
    assert sources(shelf.raw) == ["b"]
    assert list(shelf.aside.values()) == [b'{"cells": [']


async def test_a_new_name_reaches_the_page(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    shelf.name = "other.ipynb"
    await room.look_outside()
    assert told(page, "path") == "f1/other.ipynb"
    await room.close()


async def test_a_file_that_is_no_notebook_gets_no_room_and_stays_as_it_is(history: HistoryStore) -> None:
    for raw in (
        b"\x89PNG",
        b"{}",
        b'{"cells": 1, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b"[NaN]",
    ):
        shelf = MemoryShelf(raw)
        with pytest.raises(NotShareable):
            await make_room(shelf, history).open()
        assert shelf.raw == raw
        assert shelf.writes == 0


async def test_nothing_is_merged_into_a_read_only_room(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history, readonly=True)
    page.type(0, "b")
    other = Page(room)
    other.enter()
    assert other.sources() == ["a"]
    await room.close()
    assert shelf.writes == 0


async def test_a_rest_write_reaches_the_pages_and_refuses_a_stale_version(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    await room.replace(notebook("rest"), "v1")
    assert page.sources() == ["rest"]
    assert sources(shelf.raw) == ["rest"]
    page.type(0, "typed")
    with pytest.raises(ChangedOutside):
        await room.replace(
            notebook("late"), "v2"
        )  # the unsaved edit is saved first, so v2 is no longer the version
    assert sources(shelf.raw) == ["typed"]
    await room.close()


async def test_garbage_from_a_page_harms_nobody(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    for garbage in (b"", b"\x00", b"\xff" * 50, bytes(range(256))):
        with contextlib.suppress(NotShareable):  # some of it means "nothing new" by chance
            room.merge(garbage, page)
        with contextlib.suppress(NotShareable):
            room.answer(garbage)
    page.type(0, "b")
    await room.close()
    assert sources(shelf.raw) == ["b"]


async def test_a_page_can_not_speak_for_another_page(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, ada = await opened(shelf, history)
    bob = Page(room)
    bob.enter()
    room.present([wire.Presence(1, 1, {"user": {"name": "ada"}})], ada)
    bob.received.clear()
    room.present([wire.Presence(1, 2, {"user": {"name": "not ada"}})], bob)
    room.present([wire.Presence(1, 3, None)], bob)
    assert all(wire.read_presence(wire.Reader(m[1:]).bytes()) == [] for m in bob.received)
    ada.leave()
    assert wire.read_presence(wire.Reader(bob.received[-1][1:]).bytes()) == [wire.Presence(1, 2, None)]
    await room.close()


async def test_a_notebook_that_grew_too_large_is_refused_with_a_sentence(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history, max_bytes=2000)
    page.type(0, "x" * 3000)
    with pytest.raises(ShelfError, match="larger than"):
        await room.save()
    page.type(0, "x")
    await room.close()
    assert sources(shelf.raw) == ["x"]


async def test_a_notebook_can_be_read_while_its_history_can_not_be_written(
    history: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    shelf = MemoryShelf(notebook("a"))
    with monkeypatch.context() as disk:
        disk.setattr(history, "begin", full)
        room, page = await opened(shelf, history)
        assert page.sources() == ["a"]
        assert "disk is full" in told(page, "saveState")["message"]
        page.type(0, "b")
        with pytest.raises(sqlite3.Error):
            await room.save()
        assert shelf.writes == 0
    await room.save()
    assert sources(shelf.raw) == ["b"]
    assert told(page, "saveState") is None
    page.leave()
    await room.close()
    again, other = await opened(shelf, history)
    assert again.epoch == room.epoch
    assert other.sources() == ["b"]
    await again.close()


async def test_edits_of_a_file_that_went_away_are_there_when_it_comes_back(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    page.type(0, "typed")
    shelf.gone = True
    page.leave()
    with pytest.raises(Gone):
        await room.close()
    await room.abandon()
    shelf.gone = False
    again, other = await opened(shelf, history)
    assert other.sources() == ["typed"]
    await again.close()
    assert sources(shelf.raw) == ["typed"]


async def test_a_notice_is_shown_once(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"))
    room, page = await opened(shelf, history)
    page.type(0, "typed")
    shelf.write_outside(notebook("outside"))
    await room.save()
    page.leave()
    await room.close()
    again, other = await opened(shelf, history)
    assert told(other, "notice") is None
    await again.close()


async def test_readers_of_an_example_do_not_learn_of_each_other(history: HistoryStore) -> None:
    room, ada = await opened(MemoryShelf(notebook("a")), history, readonly=True)
    bob = Page(room)
    bob.enter()
    bob.received.clear()
    room.present([wire.Presence(1, 1, {"user": {"name": "ada"}})], ada)
    assert bob.received == []
    assert wire.read_presence(wire.Reader(ada.received[-1][1:]).bytes()) == []
    await room.close()


async def test_an_edit_is_on_the_disk_before_any_save_asks_for_it(history: HistoryStore) -> None:
    shelf = MemoryShelf(notebook("a"), full=True)
    room, page = await opened(shelf, history)
    history.append("some-other-file", b"an edit")

    def committed() -> list[bytes]:
        with contextlib.closing(sqlite3.connect(f"file:{history._path}?mode=ro", uri=True)) as db:
            return [data for (data,) in db.execute("SELECT data FROM updates")]

    await until(lambda: b"an edit" in committed())
    page.leave()
    await room.close()
