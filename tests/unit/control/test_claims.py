"""Claims as control carries them: nobody starts before their turn, everybody is told why, and nothing is given back too early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from gpu_scheduler.memory import MemoryClaims, StaticNodes
from gpu_scheduler.model import ClaimLimits, ClaimState, Flavor, Node, Nodes
from gpu_scheduler.queue import ClaimQueue
from hub.control.claims import ClaimCarrier
from quota.model import Session, State
from quota.ports import Ledger
from spawner.ports import BackendError
from support.patience import PATIENCE, until_async

T4 = Flavor("T4", "Tesla T4", "nvidia.com/gpu", 1)


@dataclass
class Backend:
    """Pods by name: whether their gate is open. `silent`: it can not be asked."""

    pods: dict[str, bool] = field(default_factory=dict)
    nodes: dict[str, str | None] = field(default_factory=dict)
    silent: bool = False

    async def open_gate(self, runtime_id: str, *, node: str | None) -> bool:
        self._ask()
        if runtime_id not in self.pods:
            return False
        self.pods[runtime_id], self.nodes[runtime_id] = True, node
        return True

    async def holds_accelerator(self, runtime_id: str) -> bool:
        self._ask()
        return runtime_id in self.pods

    def _ask(self) -> None:
        if self.silent:
            raise BackendError("cluster_unavailable", "The cluster does not answer.")


@dataclass
class Sessions:
    """The part of a ledger that is asked."""

    by_id: dict[str, Session] = field(default_factory=dict)

    def get(self, session_id: str) -> Session | None:
        return self.by_id.get(session_id)


@dataclass
class World:
    backend: Backend
    ledger: Sessions
    carrier: ClaimCarrier
    nodes: StaticNodes
    told: dict[str, list[str]] = field(default_factory=dict)

    def session(self, name: str, user: str = "ada") -> Session:
        found = cast(Any, object.__new__(Session))
        for key, value in {
            "id": name,
            "user": user,
            "teams": frozenset(),
            "accelerator": "T4",
            "state": State.STARTING,
        }.items():
            object.__setattr__(found, key, value)
        self.ledger.by_id[name] = found
        return cast(Session, found)

    def begin(self, name: str, user: str = "ada") -> asyncio.Task[Any]:
        """Begin a runtime as the orchestrator does."""
        told = self.told.setdefault(name, [])

        async def tell(sentence: str) -> None:
            told.append(sentence)

        return asyncio.create_task(self.carrier.until_granted(self.session(name, user), tell))

    def move(self, name: str, state: State) -> None:
        moved = self.session(name)
        object.__setattr__(moved, "state", state)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    nodes = StaticNodes(Nodes((Node("n1", {}, {"nvidia.com/gpu": 1}, True),)))
    queue = ClaimQueue(MemoryClaims(), nodes, {"T4": T4}, ClaimLimits())
    backend, ledger = Backend(), Sessions()
    world = World(backend, ledger, ClaimCarrier(queue, backend, cast(Ledger, ledger)), nodes)
    looking = asyncio.create_task(world.carrier.look_for_ever())
    yield world
    looking.cancel()


async def test_the_first_is_granted_and_the_second_told_its_place_and_why(world: World) -> None:
    first = await asyncio.wait_for(world.begin("r-1"), PATIENCE)
    assert first.slots == ("n1/nvidia.com/gpu/0",)
    second, third = world.begin("r-2"), world.begin("r-3")
    await until_async(lambda: any("position 1 of 2" in s for s in world.told["r-2"]))
    await until_async(lambda: any("position 2 of 2" in s for s in world.told["r-3"]))
    assert "The only one is in use." in world.told["r-2"][-1]
    world.move("r-1", State.ENDED)
    world.carrier.look_soon()
    assert (await asyncio.wait_for(second, PATIENCE)).id == "r-2"
    await until_async(lambda: "you are next" in world.told["r-3"][-1])
    third.cancel()


async def test_a_gate_is_opened_once_there_is_a_pod_and_for_every_pod_of_a_repeated_start(
    world: World,
) -> None:
    await asyncio.wait_for(world.begin("r-1"), PATIENCE)
    world.backend.pods["r-1"] = False
    await until_async(lambda: world.backend.pods["r-1"])
    assert world.backend.nodes["r-1"] == "n1"
    world.backend.pods["r-1"] = False  # the start was repeated
    await until_async(lambda: world.backend.pods["r-1"])


async def test_nothing_is_given_back_before_the_machine_is_provably_gone(world: World) -> None:
    await asyncio.wait_for(world.begin("r-1"), PATIENCE)
    world.backend.pods["r-1"] = True
    second = world.begin("r-2")
    world.move("r-1", State.ENDED)  # its row says so; its pod is still there
    for _ in range(3):
        await world.carrier.look()
    assert not second.done()
    world.backend.silent = True  # and now nobody can say
    del world.backend.pods["r-1"]
    for _ in range(3):
        await world.carrier.look()
    assert not second.done()
    world.backend.silent = False
    world.carrier.look_soon()
    await asyncio.wait_for(second, PATIENCE)


async def test_a_pod_that_comes_after_its_claim_ended_stays_gated(world: World) -> None:
    await asyncio.wait_for(world.begin("r-1"), PATIENCE)
    world.move("r-1", State.ENDED)
    world.carrier.look_soon()
    await until_async(lambda: not world.carrier.queue.live())
    world.backend.pods["r-1"] = False  # a start that was thought lost
    await asyncio.wait_for(world.begin("r-2"), PATIENCE)
    for _ in range(3):
        await world.carrier.look()
    assert world.backend.pods["r-1"] is False


async def test_who_gives_up_waiting_leaves_the_queue(world: World) -> None:
    await asyncio.wait_for(world.begin("r-1"), PATIENCE)
    second, third = world.begin("r-2"), world.begin("r-3")
    await until_async(lambda: any("position 2 of 2" in s for s in world.told["r-3"]))
    second.cancel()
    world.move("r-2", State.ENDED)
    world.carrier.look_soon()
    await until_async(lambda: "you are next" in world.told["r-3"][-1])
    third.cancel()


async def test_a_restarted_control_keeps_everybodys_place(world: World) -> None:
    await asyncio.wait_for(world.begin("r-1"), PATIENCE)
    for name in ("r-2", "r-3"):
        world.begin(name).cancel()
        world.carrier.queue.ask(name, "ada", (), "T4")
    again = ClaimCarrier(world.carrier.queue, world.backend, cast(Ledger, world.ledger))
    third, second = world.begin("r-3"), world.begin("r-2")  # taken up again, in another order
    world.move("r-1", State.ENDED)
    await again.look()
    world.carrier.look_soon()
    await asyncio.wait_for(second, PATIENCE)
    assert not third.done()
    claim = again.queue.get("r-3")
    assert claim is not None
    assert claim.state is ClaimState.WAITING
    third.cancel()


async def test_new_nodes_are_used_as_they_come(world: World) -> None:
    world.nodes.found = Nodes((), "The cluster's nodes are not known just now.")
    waiting = world.begin("r-1")
    await until_async(lambda: any("not known" in s for s in world.told["r-1"]))
    world.nodes.found = Nodes((Node("n9", {}, {"nvidia.com/gpu": 2}, True),))
    world.carrier.look_soon()
    assert (await asyncio.wait_for(waiting, PATIENCE)).slots == ("n9/nvidia.com/gpu/0",)
