"""Who writes the outputs of a cell that runs: the page that ran it, or this service when that page is not there. Pure.

The page that runs a cell says so in the shared state, under `ran:<cell id>`: a mark `{run, client, runtime}`. `run` is the id of
the request, `client` the number under which the page merges its edits. That page writes the outputs, as it always did, while it
is there. This service takes over, by a mark whose client is 0, when the page

* has been gone for GONE_SECONDS (closed, or without a network),
* has been silent for FROZEN_SECONDS although it is connected (a frozen tab: its connection lives, its code does not run),
* or could not say everything because the runtime ended;

and when a cell was run without any page (an API client). A page that was asked to run a cell has GONE_SECONDS to put its mark,
because the runtime may tell of the run sooner than the page does. A mark is `done` once the outputs of its run are in the
document for good, whoever wrote them: they are then nobody's to write again, so a person may clear or edit them.

A page that wakes up later goes on where it was, and adds outputs that are there already. `Owned` remembers what this service
has written, so that such additions can be taken away again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import cast

from hub.documents.rooms.shape import Json, Object, shared_output

GONE_SECONDS = 5.0
FROZEN_SECONDS = 90.0  # a hidden tab may run its timers once a minute only; a page says that it is there more often than this
LATE_SECONDS = (
    30.0  # a page that says anything this long after a run's end has written what it will ever write of it
)
STALE_SECONDS = 60.0  # how long a run is remembered of which control says nothing more
SERVICE = 0  # the client of a mark that is ours
MAX_DEPTH = 64
MAX_EXECUTIONS = 2000
MAX_ID = 256
_KEY = "ran:"


@dataclass(frozen=True)
class Mark:
    """Who writes the outputs of a cell, for which run, and whether that is done."""

    run: str
    client: int
    runtime: str
    done: bool = False

    @staticmethod
    def read(value: Json) -> Mark | None:
        """Return the mark in a value of the shared state, None for anything else."""
        if not isinstance(value, dict):
            return None
        run, client, runtime = value.get("run"), value.get("client"), value.get("runtime")
        if not isinstance(run, str) or isinstance(client, bool) or not isinstance(client, int | float):
            return None
        return Mark(run, int(client), str(runtime or ""), value.get("done") is True)

    def value(self) -> Object:
        """Return the mark as the shared state holds it."""
        out: Object = {"run": self.run, "client": self.client, "runtime": self.runtime}
        return {**out, "done": True} if self.done else out


def key_of(cell_id: str) -> str:
    """Return where the mark of a cell is in the shared state."""
    return _KEY + cell_id


def cell_of(key: str) -> str | None:
    """Return the cell whose mark a key of the shared state is for, None when it is another key."""
    return key.removeprefix(_KEY) if key.startswith(_KEY) else None


@dataclass(frozen=True)
class Told:
    """What the runtime tells of one run. `outputs` is None when only its head was sent; `version` grows with every change."""

    run: str
    cell: str
    runtime: str
    state: str
    status: str | None
    execution_count: int | None
    version: int
    outputs: list[Object] | None
    over: bool  # the runtime has ended; nothing more will come

    @property
    def finished(self) -> bool:
        return self.over or self.state == "done"


def read_told(runtime_id: str, value: object, *, over: bool) -> Told | None:
    """Return the run in a value that came from a runtime, None when it can not be one. What is no output is left out."""
    if not isinstance(value, Mapping):
        return None
    run, cell, state = value.get("msg_id"), value.get("cell_id"), value.get("state")
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_ID for text in (run, cell)):
        return None
    if state not in ("queued", "running", "done"):
        return None
    count, version, status = value.get("execution_count"), value.get("changed"), value.get("status")
    outputs = value.get("outputs")
    return Told(
        run=cast("str", run),
        cell=cast("str", cell),
        runtime=runtime_id,
        state=state,
        status=status if isinstance(status, str) else None,
        execution_count=count if isinstance(count, int) and not isinstance(count, bool) else None,
        version=version if isinstance(version, int) else 0,
        outputs=clean_outputs(outputs) if isinstance(outputs, list) else None,
        over=over,
    )


def clean_outputs(outputs: Iterable[object]) -> list[Object]:
    """Return outputs as a notebook keeps them: known types with the parts they must have, numbers and texts that JSON can carry."""
    return [found for found in map(_clean_output, outputs) if found is not None]


def _clean_output(output: object) -> Object | None:
    if not isinstance(output, dict):
        return None
    try:
        given = cast("Object", _clean(output, 0))
    except _TooDeep:
        return None
    kind = given.get("output_type")
    if kind == "stream":
        name = given.get("name")
        text = {"name": name if name in ("stdout", "stderr") else "stdout", "text": _text(given.get("text"))}
        return shared_output({"output_type": kind, **text})
    if kind == "error":
        lines = given.get("traceback")
        return shared_output(
            {
                "output_type": kind,
                "ename": _text(given.get("ename")),
                "evalue": _text(given.get("evalue")),
                "traceback": [_text(line) for line in lines] if isinstance(lines, list) else [],
            }
        )
    if kind not in ("display_data", "execute_result"):
        return None
    data, metadata = given.get("data"), given.get("metadata")
    shown: Object = {
        "output_type": kind,
        "data": data if isinstance(data, dict) else {},
        "metadata": metadata if isinstance(metadata, dict) else {},
    }
    if kind == "execute_result":
        count = given.get("execution_count")
        shown["execution_count"] = count if isinstance(count, int) and not isinstance(count, bool) else None
    return shared_output(shown)


class _TooDeep(ValueError):
    """A value is nested too deeply to be kept."""


def _clean(value: object, depth: int) -> Json:
    if depth > MAX_DEPTH:
        raise _TooDeep
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, dict):
        return {_text(k): _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean(v, depth + 1) for v in value]
    return None


def _text(value: object) -> str:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


# -- the rule -------------------------------------------------------------------------------------------------------


class Turn(Enum):
    """Whose turn it is to write the outputs of a run."""

    WAIT = "nobody knows yet, or a page does it"
    OURS = "this service"
    SETTLED = "nobody's any more"


@dataclass(frozen=True)
class Seen:
    """A page as this room sees it: `heard` is when it last said something, `left` when it went (CLOCK_BOOTTIME seconds)."""

    heard: float
    left: float | None = None


@dataclass
class Run:
    """A run that is not settled yet."""

    told: Told
    first: float  # when we first heard of it
    fresh: float  # ... and last
    finished: float | None = None  # when we first heard that it was


def turn(run: Run, mark: Mark | None, page: Seen, *, page_has_it: bool, now: float) -> Turn:
    """Return whose turn it is. `page` is the page of the mark; `page_has_it`: the document shows the end of this very run."""
    told = run.told
    if mark is None or mark.run != told.run:
        if told.state == "queued" and not told.over:
            return Turn.WAIT
        return Turn.OURS if now - run.first >= GONE_SECONDS else Turn.WAIT
    if mark.done:
        return Turn.SETTLED
    if mark.client == SERVICE:
        return Turn.OURS
    if page.left is not None:
        return Turn.OURS if now - page.left >= GONE_SECONDS else Turn.WAIT
    if now - page.heard >= FROZEN_SECONDS:
        return Turn.OURS
    if run.finished is None:
        return Turn.WAIT
    if page_has_it or told.status == "aborted" or page.heard >= run.finished + LATE_SECONDS:
        return Turn.SETTLED
    return Turn.OURS if told.over and now - run.finished >= GONE_SECONDS else Turn.WAIT


def outrun(told: Told, mark: Mark | None, known: Iterable[str]) -> bool:
    """Return whether the cell's mark is of a run that came after this one and will tell of itself, or has.

    A mark that is done was known once and came before, unless it is of another runtime than one that has ended.
    """
    if mark is None or mark.run == told.run:
        return False
    if told.over and mark.runtime and mark.runtime != told.runtime:
        return True
    return not mark.done and mark.runtime == told.runtime and mark.run not in set(known)


@dataclass
class Runs:
    """The runs of one notebook that are not settled. The latest run of a cell is the one that counts."""

    by_id: dict[str, Run] = field(default_factory=dict)

    def take(self, found: Iterable[Told], now: float) -> tuple[list[Told], set[str]]:
        """Note what was told; return those that count, and the ids of those that a later run of their cell made void."""
        latest: dict[str, Told] = {}
        void: set[str] = set()
        for told in found:
            before = latest.get(told.cell)
            if before is not None:
                void.add(before.run)
            latest[told.cell] = told
        for run in list(self.by_id.values()):
            later = latest.get(run.told.cell)
            if later is not None and later.run != run.told.run:
                void.add(run.told.run)
                del self.by_id[run.told.run]
        for told in latest.values():
            self._note(told, now)
        return list(latest.values()), void

    def _note(self, told: Told, now: float) -> None:
        run = self.by_id.get(told.run)
        if run is None:
            run = self.by_id[told.run] = Run(told, now, now)
        elif told.outputs is None and told.version == run.told.version:
            told = replace(told, outputs=run.told.outputs)
        run.told, run.fresh = told, now
        if told.finished and run.finished is None:
            run.finished = now

    def forget_stale(self, now: float) -> None:
        """Forget runs of which nobody tells any more."""
        for name in [name for name, run in self.by_id.items() if now - run.fresh >= STALE_SECONDS]:
            del self.by_id[name]
