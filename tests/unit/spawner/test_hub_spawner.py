"""The Spawner the hub calls, on a backend that is told what to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from jupyterhub import orm
from jupyterhub.spawner import SpawnException
from traitlets.config import Config

from spawner.hub_spawner import RuntimeSpawner
from spawner.model import Endpoint, EndReason, Observed, Phase, RuntimeSpec, Shape
from spawner.ports import BackendError, OnPhase
from support.patience import PATIENCE

ID = "r-abcdefghijkl"


@dataclass
class Backend:
    """Holds runtimes in memory; `refusal` is raised by the next start."""

    live: dict[str, RuntimeSpec] = field(default_factory=dict)
    refusal: BackendError | None = None
    silent: bool = False
    sentences: tuple[str, ...] = ()
    stopped: list[tuple[str, float]] = field(default_factory=list)

    async def start(self, spec: RuntimeSpec, on_phase: OnPhase) -> Endpoint:
        for sentence in self.sentences:
            on_phase(Phase.QUEUED, sentence)
        on_phase(Phase.SANDBOX)
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        on_phase(Phase.SERVER)
        self.live[spec.id] = spec
        on_phase(Phase.READY)
        return Endpoint("127.0.0.1", 4711)

    async def stop(self, runtime_id: str, *, reason: EndReason, grace_seconds: float) -> None:
        self.live.pop(runtime_id, None)
        self.stopped.append((runtime_id, grace_seconds))

    async def observe(self, runtime_id: str) -> Observed | None:
        if self.silent:
            raise BackendError("no_answer", "It gives no answer.")
        spec = self.live.get(runtime_id)
        return Observed(runtime_id, spec.user, spec.file_id, "ready", None, None) if spec else None


def build_spec(user: str, base_url: str, options: dict[str, Any]) -> RuntimeSpec:
    return RuntimeSpec(
        id=options["runtime_id"],
        user=user,
        file_id=options["file_id"],
        base_url=base_url,
        shape=Shape("S", 1, 1.0, 16),
        accelerator="NONE",
        devices=(),
        max_lifetime_seconds=float(options["max_lifetime_seconds"]),
        idle_limit_seconds=60.0,
        ticket_key=b"k" * 32,
        allow_origin="",
        control_url="",
        public_control_url="",
    )


def spawner(backend: Backend, **options: Any) -> RuntimeSpawner:
    config = Config()
    config.RuntimeSpawner.make_backend = lambda: backend
    config.RuntimeSpawner.build_spec = build_spec
    made = RuntimeSpawner(config=config, user=cast(Any, SimpleNamespace(name="ada", url="/user/ada/")))
    made.orm_spawner = orm.Spawner(
        name=ID, server=orm.Server(proto="http", ip="", port=1, base_url=f"/user/ada/{ID}/", cookie_name="")
    )
    made.user_options = {"runtime_id": ID, "file_id": "f1", "max_lifetime_seconds": 60, **options}
    return made


async def test_a_start_returns_the_address_and_tells_every_phase() -> None:
    backend = Backend()
    made = spawner(backend)
    told = asyncio.create_task(_collect(made))
    assert await made.start() == "http://127.0.0.1:4711"
    assert backend.live[ID].base_url == f"/user/ada/{ID}/"
    events = await asyncio.wait_for(told, PATIENCE)
    assert [e["phase"] for e in events] == ["sandbox", "server", "ready"]
    assert [e["progress"] for e in events] == sorted(e["progress"] for e in events)
    assert all(e["message"] for e in events)
    assert await made.poll() is None


async def test_a_phase_is_told_again_with_every_sentence_of_its_own() -> None:
    made = spawner(Backend(sentences=("No machine is free.", "A machine is being added.")))
    told = asyncio.create_task(_collect(made))
    await made.start()
    queued = [e["message"] for e in await asyncio.wait_for(told, PATIENCE) if e["phase"] == "queued"]
    assert queued == ["No machine is free.", "A machine is being added."]


async def _collect(made: RuntimeSpawner) -> list[dict[str, Any]]:
    return [event async for event in made.progress()]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"runtime_id": None}, "not_allowed"),
        ({"runtime_id": "r-other"}, "not_allowed"),
        ({"runtime_id": 5}, "not_allowed"),
        ({"max_lifetime_seconds": "soon"}, "bad_options"),
        ({"max_lifetime_seconds": None}, "bad_options"),
    ],
)
async def test_a_start_that_control_did_not_ask_for_is_refused_without_a_traceback(
    options: dict[str, Any], code: str
) -> None:
    backend = Backend()
    with pytest.raises(SpawnException) as refused:
        await spawner(backend, **options).start()
    assert refused.value.reason == code
    assert backend.live == {}


async def test_what_the_backend_refuses_reaches_the_person_as_code_and_sentence() -> None:
    backend = Backend(refusal=BackendError("not_isolated", "Only one user at a time."))
    made = spawner(backend)
    with pytest.raises(SpawnException, match="not_isolated: Only one user at a time") as refused:
        await made.start()
    assert refused.value.reason == "not_isolated"
    assert await made.poll() == 0


async def test_a_restarted_hub_adopts_what_lives_and_notices_what_does_not() -> None:
    backend = Backend()
    before = spawner(backend)
    await before.start()
    after = spawner(backend)
    assert await after.poll() == 0
    after.load_state(before.get_state())
    assert await after.poll() is None
    backend.silent = True
    assert await after.poll() is None, "a runtime that does not answer is not gone"
    backend.silent = False
    backend.live.clear()
    assert await after.poll() == 0


async def test_a_stop_gives_grace_unless_it_must_be_now() -> None:
    backend = Backend()
    made = spawner(backend)
    await made.stop()
    assert backend.stopped == []
    await made.start()
    await made.stop()
    await made.stop(now=True)
    assert [runtime for runtime, _ in backend.stopped] == [ID, ID]
    assert backend.stopped[0][1] > backend.stopped[1][1] == 0
    made.clear_state()
    assert await made.poll() == 0
