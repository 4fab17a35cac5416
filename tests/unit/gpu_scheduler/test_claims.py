"""Claims on the accelerators of a cluster: who gets what, who waits for what, and that no slot is ever had twice."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_scheduler.kube import KubeInventory, node_of
from gpu_scheduler.memory import MemoryClaims, StaticNodes
from gpu_scheduler.model import Claim, ClaimLimits, ClaimState, Flavor, Node, Nodes
from gpu_scheduler.placing import admit, explain, offer, place, slots_of
from gpu_scheduler.ports import Claims, SlotTaken
from gpu_scheduler.queue import ClaimQueue
from gpu_scheduler.sql import SqlClaims
from quota.store import create_engine, prepare_database

GPU, TPU = "nvidia.com/gpu", "google.com/tpu"
T4 = Flavor("T4", "Tesla T4", GPU, 1, {"gpu": "t4"})
T4X4 = Flavor("T4X4", "4 Tesla T4", GPU, 4, {"gpu": "t4"})
V5E8 = Flavor("V5E8", "TPU v5e", TPU, 8, {"topology": "2x4"})
FLAVORS = {flavor.name: flavor for flavor in (T4, T4X4, V5E8)}
NOBODY = ClaimLimits()


def node(name: str, gpus: int, *, usable: bool = True, gpu: str = "t4") -> Node:
    return Node(name, {"gpu": gpu}, {GPU: gpus}, usable)


def claim(name: str, flavor: str = "T4", user: str = "", teams: tuple[str, ...] = ()) -> Claim:
    return Claim(name, user or name, frozenset(teams), flavor)


# -- placing ----------------------------------------------------------------------------------------------------


def test_a_slot_is_on_a_ready_node_of_the_flavor() -> None:
    assert slots_of(T4, node("a", 2)) == ("a/nvidia.com/gpu/0", "a/nvidia.com/gpu/1")
    assert slots_of(T4, node("a", 2, usable=False)) == ()
    assert slots_of(T4, node("a", 2, gpu="a100")) == ()
    assert slots_of(V5E8, node("a", 2)) == ()


def test_all_slots_of_a_claim_are_on_one_node_and_large_nodes_are_kept_whole() -> None:
    nodes = (node("small", 2), node("large", 4))
    assert place(T4, nodes, ()) == ("small/nvidia.com/gpu/0",)
    assert place(T4X4, nodes, ()) == tuple(f"large/nvidia.com/gpu/{n}" for n in range(4))
    assert place(T4X4, nodes, ("large/nvidia.com/gpu/3",)) is None


def test_first_come_first_served_and_small_ones_do_not_starve_a_large_one() -> None:
    nodes = (node("a", 4),)
    waiting = [claim("big", "T4X4"), claim("little")]
    running = Claim("x", "x", frozenset(), "T4", state=ClaimState.GRANTED, slots=("a/nvidia.com/gpu/0",))
    assert admit(waiting, [running], FLAVORS, nodes, NOBODY) == {}
    assert list(admit(waiting, [], FLAVORS, nodes, NOBODY)) == ["big"]
    assert list(admit(list(reversed(waiting)), [running], FLAVORS, nodes, NOBODY)) == ["little"]


def test_who_waits_for_other_nodes_is_not_held_up() -> None:
    nodes = (node("a", 0), Node("tpu", {"topology": "2x4"}, {TPU: 8}, True))
    assert list(admit([claim("gpu"), claim("tpu", "V5E8")], [], FLAVORS, nodes, NOBODY)) == ["tpu"]


def test_limits_hold_up_their_own_user_and_team_only() -> None:
    nodes = (node("a", 8),)
    waiting = [
        claim("1", user="ada"),
        claim("2", user="ada"),
        claim("3", user="bob", teams=("ml",)),
        claim("4", teams=("ml",)),
    ]
    assert list(admit(waiting, [], FLAVORS, nodes, ClaimLimits(per_user=1))) == ["1", "3", "4"]
    assert list(admit(waiting, [], FLAVORS, nodes, ClaimLimits(per_team=1))) == ["1", "2", "3"]


def test_where_an_autoscaler_adds_nodes_as_many_are_granted_as_the_settings_say() -> None:
    grown = {"T4": Flavor("T4", "Tesla T4", GPU, 1, {"gpu": "t4"}, pool=2)}
    waiting = [claim(str(n)) for n in range(3)]
    assert list(admit(waiting, [], grown, (), NOBODY)) == ["0", "1"]
    assert offer(grown, Nodes((), "not known"), waiting, [])[1].available


@pytest.mark.parametrize(
    ("nodes", "granted", "limits", "code", "words"),
    [
        (Nodes((), "The cluster does not answer."), [], NOBODY, "inventory_unknown", "does not answer"),
        (Nodes(()), [], NOBODY, "no_such_node", "No node of the cluster has Tesla T4 just now."),
        (Nodes((node("a", 1),)), ["a/nvidia.com/gpu/0"], NOBODY, "in_use", "The only one is in use."),
        (
            Nodes((node("a", 2),)),
            ["a/nvidia.com/gpu/0", "a/nvidia.com/gpu/1"],
            NOBODY,
            "in_use",
            "All 2 are in use.",
        ),
        (
            Nodes((node("a", 2),)),
            ["a/nvidia.com/gpu/0"],
            ClaimLimits(per_user=1),
            "over_limit",
            "one accelerator already",
        ),
    ],
)
def test_who_waits_is_told_what_for(
    nodes: Nodes, granted: list[str], limits: ClaimLimits, code: str, words: str
) -> None:
    mine = claim("me", user="ada")
    held = [Claim(s, "ada", frozenset(), "T4", state=ClaimState.GRANTED, slots=(s,)) for s in granted]
    waiting = explain(mine, [claim("first"), mine], held, FLAVORS, nodes, limits)
    assert (waiting.position, waiting.of, waiting.code) == (2, 2, code)
    assert words in waiting.reason


def test_a_large_claim_is_told_that_enough_are_not_together() -> None:
    big = claim("big", "T4X4")
    held = [Claim("x", "x", frozenset(), "T4", state=ClaimState.GRANTED, slots=("a/nvidia.com/gpu/0",))]
    waiting = explain(big, [big], held, FLAVORS, Nodes((node("a", 4),)), NOBODY)
    assert waiting.code == "too_few_together"
    assert "at most 3" in waiting.reason


def test_what_no_node_has_is_offered_as_not_available() -> None:
    flavors = {f.name: f for f in offer(FLAVORS, Nodes((node("a", 2),)), [], [])}
    assert flavors["NONE"].available
    assert flavors["T4"].available
    assert not flavors["T4X4"].available
    assert "4 of nvidia.com/gpu" in (flavors["T4X4"].reason or "")


@pytest.mark.parametrize(
    ("waiting", "held", "said"),
    [
        ([], [], None),
        ([], ["a/nvidia.com/gpu/0"], None),
        ([], ["a/nvidia.com/gpu/0", "a/nvidia.com/gpu/1"], "In use now: you would be next."),
        (["x", "y"], ["a/nvidia.com/gpu/0"], "In use now: 2 wait before you."),
    ],
)
def test_what_is_in_use_is_offered_with_the_place_one_would_have(
    waiting: list[str], held: list[str], said: str | None
) -> None:
    granted = [Claim(s, "ada", frozenset(), "T4", state=ClaimState.GRANTED, slots=(s,)) for s in held]
    nodes = Nodes((node("a", 2),))
    t4 = next(o for o in offer(FLAVORS, nodes, [claim(name) for name in waiting], granted) if o.name == "T4")
    assert (t4.available, t4.reason) == (True, said)


nodes_of_any_kind = st.lists(
    st.builds(
        lambda n, gpus, usable: Node(f"n{n}", {"gpu": "t4"}, {GPU: gpus}, usable),
        st.integers(0, 5),
        st.integers(0, 6),
        st.booleans(),
    ),
    max_size=5,
    unique_by=lambda n: n.name,
)
wishes = st.lists(
    st.tuples(st.sampled_from(["T4", "T4X4"]), st.sampled_from(["ada", "bob", "eve"])), max_size=12
)


@settings(max_examples=300, deadline=None)
@given(nodes_of_any_kind, wishes, st.none() | st.integers(1, 3), st.randoms())
def test_whatever_comes_and_goes_no_slot_is_had_twice_and_none_fits_beside_one_who_waits(
    nodes: list[Node], wanted: list[tuple[str, str]], per_user: int | None, random: object
) -> None:
    limits = ClaimLimits(per_user=per_user)
    queue = ClaimQueue(store := MemoryClaims(), StaticNodes(Nodes(tuple(nodes))), FLAVORS, limits)
    for n, (flavor, user) in enumerate(wanted):
        queue.ask(str(n), user, (), flavor)
        if n % 3 == 2:
            queue.admit()
            granted = [c for c in queue.live() if c.state is ClaimState.GRANTED]
            if granted:
                queue.end(random.choice(granted).id)  # type: ignore[attr-defined]
        queue.admit()
        live = store.live()
        waiting = [c for c in live if c.state is ClaimState.WAITING]
        granted = [c for c in live if c.state is ClaimState.GRANTED]
        slots = [slot for c in granted for slot in c.slots]
        assert len(slots) == len(set(slots))
        real = {slot for flavor in FLAVORS.values() for node in nodes for slot in slots_of(flavor, node)}
        assert set(slots) <= real
        for user in ("ada", "bob", "eve"):
            assert per_user is None or sum(c.user == user for c in granted) <= per_user
        for index, one in enumerate(waiting):
            told = queue.waiting(one.id)
            assert told is not None
            fits = place(FLAVORS[one.flavor], nodes, slots) is not None
            if fits and told.code != "over_limit":
                assert told.code == "behind_others"
                assert index > 0, "the first in the queue waits beside a slot that fits"
        for one, other in itertools.combinations([c for c in live if per_user is None], 2):
            if one.flavor == other.flavor and other.state is ClaimState.GRANTED:
                assert one.state is ClaimState.GRANTED, "somebody was overtaken"


# -- stores -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def claims(request: pytest.FixtureRequest, tmp_path: Path) -> Claims:
    if request.param == "memory":
        return MemoryClaims()
    url = f"sqlite:///{tmp_path}/control.sqlite"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgresql"))
    engine = create_engine(url)
    prepare_database(engine)
    return SqlClaims(engine)


def test_claims_are_kept_in_order_and_asked_for_once(claims: Claims) -> None:
    names = [f"r-order{n}" for n in range(3)]
    first = [claims.ask(claim(name, teams=("ml",))) for name in names]
    assert [c.number for c in first] == sorted(c.number for c in first)
    assert claims.ask(claim(names[0])) == first[0]
    assert [c.id for c in claims.live() if c.id in names] == names
    assert first[0].teams == frozenset({"ml"})
    for name in names:
        claims.end(name)


def test_a_slot_has_one_lease_until_its_claim_ends(claims: Claims) -> None:
    claims.ask(claim("r-a"))
    claims.ask(claim("r-b"))
    granted = claims.grant("r-a", ("n/g/0", "n/g/1"))
    assert granted is not None
    assert (granted.state, granted.slots, granted.epoch) == (ClaimState.GRANTED, ("n/g/0", "n/g/1"), 1)
    with pytest.raises(SlotTaken):
        claims.grant("r-b", ("n/g/2", "n/g/1"))
    other = claims.get("r-b")
    assert other is not None
    assert (other.state, other.epoch) == (ClaimState.WAITING, 0), "what failed changed nothing"
    assert claims.grant("r-a", ("n/g/2",)) is None
    claims.end("r-a")
    claims.end("r-a")
    assert claims.grant("r-b", ("n/g/2", "n/g/1")) is not None
    claims.end("r-b")
    assert claims.grant("r-b", ("n/g/3",)) is None
    assert claims.get("r-nobody") is None


def test_of_many_who_grant_one_slot_at_once_one_succeeds(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/control.sqlite"
    engine = create_engine(url)
    prepare_database(engine)
    for n in range(8):
        SqlClaims(engine).ask(claim(f"r-{n}"))
    begin, got, failed = threading.Barrier(8), [], []

    def one(n: int) -> None:
        mine = SqlClaims(create_engine(url, busy_seconds=60))
        begin.wait()
        try:
            got.append(mine.grant(f"r-{n}", ("n/g/0",)))
        except SlotTaken:
            failed.append(n)

    threads: list[threading.Thread] = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    work: Callable[[threading.Thread], None]
    for work in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            work(thread)
    assert (len(got), len(failed)) == (1, 7)


# -- nodes --------------------------------------------------------------------------------------------------------


def made(ready: str = "True", **spec: object) -> dict[str, object]:
    return {
        "metadata": {"name": "n1", "labels": {"gpu": "t4"}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "8", "memory": "64Gi", GPU: "2"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def test_a_node_offers_what_its_device_plugin_says_while_it_takes_work() -> None:
    assert node_of(made()) == Node("n1", {"gpu": "t4"}, {GPU: 2}, True)
    assert not node_of(made("Unknown")).usable
    assert not node_of(made(unschedulable=True)).usable
    bare = {"metadata": {"name": "n2"}}
    assert node_of(bare) == Node("n2", {}, {}, False)


def test_nodes_that_can_not_be_read_are_a_reason_not_an_empty_cluster() -> None:
    assert KubeInventory(lambda: None).nodes().reason is not None
    assert KubeInventory(list).nodes() == Nodes(())
