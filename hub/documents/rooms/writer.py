"""Writes outputs into one open notebook when it is this service's turn (hub.documents.rooms.outputs has the rule)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from hub.documents.rooms.outputs import (
    SERVICE,
    Mark,
    Run,
    Runs,
    Seen,
    Told,
    Turn,
    cell_of,
    key_of,
    outrun,
    turn,
)
from hub.documents.rooms.shape import Json, Object, same
from hub.documents.rooms.ydoc import SharedNotebook
from quota.clock import Clock


@dataclass(frozen=True)
class Answer:
    """`settled`: runs nobody has to tell of again; `wanted`: runs whose outputs are to be sent now."""

    settled: tuple[str, ...]
    wanted: tuple[str, ...]


class OutputWriter:
    """The runs of one open notebook, and who writes them. `shared` returns the notebook."""

    def __init__(self, shared: Callable[[], SharedNotebook], clock: Clock) -> None:
        self._shared = shared
        self._clock = clock
        self._opened = clock.boottime()
        self._pages: dict[int, Seen] = {}
        self._runs = Runs()
        self._owned: dict[str, list[Object]] | None = None  # cell → what we wrote

    # -- pages ----------------------------------------------------------------------------------------------------

    def heard(self, clients: Iterable[int]) -> None:
        """A page said something."""
        now = self._clock.boottime()
        for client in clients:
            self._pages[client] = Seen(now)

    def left(self, clients: Iterable[int]) -> None:
        """A page closed, or lost its connection."""
        now = self._clock.boottime()
        for client in clients:
            seen = self._pages.get(client)
            self._pages[client] = Seen(seen.heard if seen else now, now)

    def _seen(self, mark: Mark | None) -> Seen:
        """Return the page of a mark. One that never came back to this room has been gone since the room was opened."""
        never = Seen(self._opened, self._opened)
        return never if mark is None else self._pages.get(mark.client, never)

    # -- runs -----------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether there are runs that control still tells of."""
        return bool(self._runs.by_id)

    def deliver(self, found: Sequence[Told]) -> Answer:
        """Take in what a runtime tells, and write what is ours to write now."""
        counting, void = self._runs.take(found, self._clock.boottime())
        settled, wanted = set(void), set[str]()
        for told in counting:
            run = self._runs.by_id[told.run]
            whose = self._step(run)
            if whose is Turn.SETTLED:
                settled.add(told.run)
            elif whose is Turn.OURS and run.told.outputs is None:
                wanted.add(told.run)
        return Answer(tuple(sorted(settled)), tuple(sorted(wanted)))

    def look(self) -> None:
        """Look again at every run: time may have made it ours. Settled ones stay until control has asked once more."""
        self._runs.forget_stale(self._clock.boottime())
        for run in list(self._runs.by_id.values()):
            self._step(run, keep=True)

    def _step(self, run: Run, *, keep: bool = False) -> Turn:
        told, shared = run.told, self._shared()
        mark = self._mark(told.cell)
        now = self._clock.boottime()
        page = self._seen(mark)
        here = page.left is None
        if not shared.has_code_cell(told.cell):
            whose = Turn.SETTLED
        elif outrun(told, mark, self._runs.by_id) and (told.over or here):
            whose = Turn.SETTLED if told.over else Turn.WAIT
        else:
            count = shared.execution_count(told.cell)
            page_has_it = count is not None and count == told.execution_count
            whose = turn(run, mark, page, page_has_it=page_has_it, now=now)
            if whose is Turn.OURS and told.outputs is not None:
                self._write(told)
                whose = Turn.SETTLED if told.finished else Turn.OURS
            elif whose is Turn.SETTLED and mark is not None and not mark.done and mark.run == told.run:
                shared.tell(**{key_of(told.cell): replace(mark, done=True).value()})
        if whose is Turn.SETTLED and not keep:
            self._runs.by_id.pop(told.run, None)
        return whose

    def _write(self, told: Told) -> None:
        assert told.outputs is not None
        shared, finished = self._shared(), told.finished
        mark = Mark(told.run, SERVICE, told.runtime, done=finished)
        owned = self._all_owned()
        shared.tell(**{key_of(told.cell): mark.value()})
        shared.write_outputs(told.cell, told.outputs)
        if finished:
            shared.write_end(told.cell, told.execution_count)
        owned[told.cell] = told.outputs

    def _mark(self, cell: str) -> Mark | None:
        return Mark.read(self._shared().told(key_of(cell)))

    # -- additions of a page that woke up later -------------------------------------------------------------------

    def before_merge(self) -> None:
        """Know what is ours before a page's edit is merged."""
        self._all_owned()

    def repair(self) -> None:
        """Take away what a page added to outputs that are ours.

        A person's clearing stands, and so does a new run: it has a mark of its own, and from then on the cell is its page's.
        """
        shared = self._shared()
        if not shared.take_outputs_touched():
            return
        owned = self._all_owned()
        for cell, ours in list(owned.items()):
            mark, now = self._mark(cell), shared.outputs(cell)
            if mark is None or mark.client != SERVICE or now is None:
                del owned[cell]
            elif not now:
                # Cleared by a person, or by a new run whose mark follows. While it runs, the next telling fills it again.
                if mark.done and shared.execution_count(cell) is None:
                    del owned[cell]
            elif not _same(now, ours):
                shared.write_outputs(cell, ours)

    def _all_owned(self) -> dict[str, list[Object]]:
        """Return the outputs that are ours, also of an earlier life of this service: the marks tell which."""
        if self._owned is None:
            self._owned = {}
            shared = self._shared()
            for key in shared.state_keys():
                cell = cell_of(key)
                mark = self._mark(cell) if cell is not None else None
                if cell is None or mark is None or mark.client != SERVICE:
                    continue
                found = shared.outputs(cell)
                if found is not None:
                    self._owned[cell] = found
        return self._owned


def _same(a: Sequence[Json], b: Sequence[Json]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
