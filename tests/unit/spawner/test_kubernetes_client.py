"""The API server on bad days: what is repeated, what is found by reading, what is told from a stranger's, and a watch that lives on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from spawner.kubernetes import client, retry
from spawner.kubernetes.client import AlreadyThere, ApiFault, Cluster, connect
from spawner.kubernetes.watch import Mirror, by_name
from support.fake_cluster import FakeCluster, Fault, fake_cluster
from support.patience import PATIENCE, until_async

PODS = "/api/v1/namespaces/ns/pods"


def pod(name: str, mark: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": {"start": mark}}}


@pytest.fixture
def fake() -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(fake: FakeCluster, tmp_path: Path) -> Iterator[Cluster]:
    cluster = connect(fake.kubeconfig(tmp_path), read_seconds=2.0)
    yield cluster
    cluster.close()


@pytest.fixture
async def mirror(cluster: Cluster) -> AsyncIterator[Mirror]:
    mirror = Mirror(cluster, PODS, by_name, silence_seconds=1.0)
    yield mirror
    mirror.close()


def names(mirror: Mirror) -> set[str]:
    return {found["metadata"]["name"] for found in mirror.all()}


# -- when to try again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_ever_more_slowly(status: int) -> None:
    waits = [retry.delay(tries, status, None, 1.0) for tries in range(1, 30)]
    assert None not in waits
    assert waits == sorted(waits, key=lambda wait: wait or 0)
    assert waits[-1] == retry.LONGEST_SECONDS


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
def test_what_will_not_change_is_not_tried_again(status: int) -> None:
    assert retry.delay(1, status, None, 0.5) is None


def test_the_server_is_obeyed_when_it_says_when_and_not_all_come_back_at_once() -> None:
    assert (retry.delay(1, 429, 5.0, 0.0) or 0) >= 5.0
    assert retry.delay(1, 429, 5.0, 0.1) != retry.delay(1, 429, 5.0, 0.9)
    assert (retry.delay(1, 429, 10_000.0, 1.0) or 0) < 60


# -- calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", 3, status=429, reason="TooManyRequests", retry_after="0"),
        Fault("POST", 3, status=500),
        Fault("POST", 2, lose=True),
        Fault("POST", 1, hang=True),
    ],
)
async def test_a_create_succeeds_once_whatever_happens_to_the_first_tries(
    fake: FakeCluster, cluster: Cluster, fault: Fault
) -> None:
    fake.faults.append(fault)
    made = await cluster.create(
        PODS, pod("a", "mine"), is_mine=lambda p: p["metadata"]["annotations"]["start"] == "mine"
    )
    assert made["metadata"]["name"] == "a"
    assert list(fake.objects) == [f"{PODS}/a"]
    assert len([h for h in fake.history if h[1] == "ADDED"]) == 1


async def test_a_name_that_a_stranger_has_is_told_and_the_stranger_left_alone(
    fake: FakeCluster, cluster: Cluster
) -> None:
    before = fake.put(f"{PODS}/a", pod("a", "theirs"))
    with pytest.raises(AlreadyThere) as taken:
        await cluster.create(
            PODS, pod("a", "mine"), is_mine=lambda p: p["metadata"]["annotations"]["start"] == "mine"
        )
    assert taken.value.holder == before
    assert fake.objects[f"{PODS}/a"] == before
    assert not any(request.startswith(("DELETE", "PATCH")) for request in fake.requests)


async def test_only_the_very_object_is_deleted(fake: FakeCluster, cluster: Cluster) -> None:
    found = fake.put(f"{PODS}/a", pod("a"))
    assert not await cluster.delete(f"{PODS}/a", uid="u-of-another", grace_seconds=1)
    assert f"{PODS}/a" in fake.objects
    assert await cluster.delete(f"{PODS}/a", uid=found["metadata"]["uid"], grace_seconds=1)
    assert not await cluster.delete(f"{PODS}/a", uid=found["metadata"]["uid"], grace_seconds=1)
    assert fake.objects == {}


async def test_a_delete_whose_answer_was_lost_is_no_fault(fake: FakeCluster, cluster: Cluster) -> None:
    found = fake.put(f"{PODS}/a", pod("a"))
    fake.faults.append(Fault("DELETE", 1, lose=True))
    await cluster.delete(f"{PODS}/a", uid=found["metadata"]["uid"], grace_seconds=1)
    assert fake.objects == {}


async def test_a_refusal_is_told_at_once(fake: FakeCluster, cluster: Cluster) -> None:
    fake.faults.append(Fault("POST", 99, status=403, reason="Forbidden"))
    with pytest.raises(ApiFault) as refused:
        await cluster.create(PODS, pod("a"), is_mine=lambda _: False)
    assert (refused.value.status, refused.value.reason) == (403, "Forbidden")
    assert len(fake.requests) == 1


async def test_a_cluster_that_stays_away_is_told_in_one_sentence(
    cluster: Cluster, fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.5)
    fake.faults.append(Fault("GET", 999, status=503))
    with pytest.raises(ApiFault) as refused:
        await cluster.get(f"{PODS}/a")
    assert refused.value.status == 503
    assert len(fake.requests) > 1


async def test_a_server_that_hangs_holds_up_nobody_else(fake: FakeCluster, cluster: Cluster) -> None:
    fake.faults.append(Fault("DELETE", 1, hang=True))
    fake.put(f"{PODS}/a", pod("a"))
    hanging = asyncio.create_task(cluster.delete(f"{PODS}/a", uid="u-1", grace_seconds=1))
    await until_async(lambda: any(r.startswith("DELETE") for r in fake.requests))
    assert await cluster.get(f"{PODS}/a") is not None
    assert not hanging.done()
    await hanging


# -- the mirror ---------------------------------------------------------------------------------------------------


async def test_a_mirror_shows_what_is_there_and_every_change(fake: FakeCluster, mirror: Mirror) -> None:
    fake.put(f"{PODS}/a", pod("a"))
    assert await mirror.synced(PATIENCE)
    assert names(mirror) == {"a"}
    with mirror.listen("b") as changed:
        fake.put(f"{PODS}/b", pod("b", "x"))
        await asyncio.wait_for(changed.wait(), PATIENCE)
        assert names(mirror) == {"a", "b"}
        changed.clear()
        fake.remove(f"{PODS}/b")
        await asyncio.wait_for(changed.wait(), PATIENCE)
    assert names(mirror) == {"a"}
    seen = mirror.last_seen("b")
    assert seen is not None
    assert seen["metadata"]["annotations"]["start"] == "x"
    assert mirror.fresh


async def test_a_version_that_is_too_old_leads_to_a_new_list(fake: FakeCluster, mirror: Mirror) -> None:
    fake.put(f"{PODS}/a", pod("a"))
    assert await mirror.synced(PATIENCE)
    with fake.lock:  # what happens while nobody watches, and is then forgotten
        fake.cut_watches()
        fake.remove(f"{PODS}/a")
        fake.put(f"{PODS}/b", pod("b"))
        fake.forget_history()
    await until_async(lambda: names(mirror) == {"b"})
    assert mirror.last_seen("a") is not None, "what the new list does not show is gone"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", 3, status=500, watch=True),
        Fault("GET", 2, status=403, watch=True),
        Fault("GET", 1, status=410, reason="Expired", watch=True),
        Fault("GET", 1, hang=True, watch=True),
        Fault("GET", 3, status=500),
        Fault("GET", 2, status=429, retry_after="0"),
    ],
)
async def test_a_mirror_lives_on_whatever_the_server_does(
    fake: FakeCluster, mirror: Mirror, fault: Fault
) -> None:
    fake.faults.append(fault)
    mirror.start()
    fake.put(f"{PODS}/a", pod("a"))
    await until_async(lambda: names(mirror) == {"a"})
    fake.put(f"{PODS}/b", pod("b"))
    await until_async(lambda: names(mirror) == {"a", "b"})


async def test_a_watch_that_fell_silent_is_opened_again(fake: FakeCluster, mirror: Mirror) -> None:
    assert await mirror.synced(PATIENCE)
    fake.silent = True
    fake.put(f"{PODS}/a", pod("a"))
    watches = len([r for r in fake.requests if r.endswith("?watch")])
    await until_async(lambda: len([r for r in fake.requests if r.endswith("?watch")]) > watches)
    fake.silent = False
    await until_async(lambda: names(mirror) == {"a"})


async def test_a_mirror_says_when_it_is_not_to_be_relied_on(fake: FakeCluster, cluster: Cluster) -> None:
    mirror = Mirror(cluster, PODS, by_name, silence_seconds=0.3, stale_seconds=0.5)
    assert not mirror.fresh
    assert await mirror.synced(PATIENCE)
    assert mirror.fresh
    fake.faults += [Fault("GET", 9999, status=500, watch=watch) for watch in (True, False)]
    fake.cut_watches()
    await until_async(lambda: not mirror.fresh)
    assert mirror.age >= 0.5
    with fake.lock:
        fake.faults.clear()
    await until_async(lambda: mirror.fresh)
    mirror.close()


async def test_what_was_just_made_is_seen_before_the_watch_tells(fake: FakeCluster, mirror: Mirror) -> None:
    assert await mirror.synced(PATIENCE)
    fake.silent = True
    old = fake.put(f"{PODS}/a", pod("a", "old"))
    mirror.note(old)
    assert [p["metadata"]["uid"] for p in mirror.of("a")] == [old["metadata"]["uid"]]
    fake.remove(f"{PODS}/a")
    new = fake.put(f"{PODS}/a", pod("a", "new"))
    mirror.note(new)
    assert [p["metadata"]["uid"] for p in mirror.of("a")] == [new["metadata"]["uid"]]
    mirror.note(old)  # an answer that was long on its way
    assert [p["metadata"]["uid"] for p in mirror.of("a")] == [new["metadata"]["uid"]]
    fake.silent = False  # now the watch tells the old one's story, too late
    fake.put(f"{PODS}/b", pod("b"))
    await until_async(lambda: "b" in names(mirror))
    assert [p["metadata"]["uid"] for p in mirror.of("a")] == [new["metadata"]["uid"]]


async def test_whoever_doubts_a_mirror_shares_one_list_with_all_who_do(
    fake: FakeCluster, mirror: Mirror
) -> None:
    assert await mirror.synced(PATIENCE)
    fake.silent = True
    fake.put(f"{PODS}/a", pod("a"))
    asked = fake.requests.count(f"GET {PODS}")
    await asyncio.gather(*(mirror.look(0.0) for _ in range(50)))
    assert names(mirror) == {"a"}
    assert fake.requests.count(f"GET {PODS}") == asked + 1
    await mirror.look(PATIENCE)  # it was heard lately enough
    assert fake.requests.count(f"GET {PODS}") == asked + 1


async def test_who_doubts_a_mirror_is_told_that_the_server_does_not_answer(
    fake: FakeCluster, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.2)
    assert await mirror.synced(PATIENCE)
    fake.faults.append(Fault("GET", 9999, status=500))
    with pytest.raises(ApiFault):
        await mirror.look(0.0)


async def test_a_list_that_lags_behind_takes_nothing_back(fake: FakeCluster, mirror: Mirror) -> None:
    fake.put(f"{PODS}/gone", pod("gone"))
    fake.put(f"{PODS}/changed", pod("changed", "before"))
    old = {
        "items": list(fake.objects.values()),
        "metadata": {"resourceVersion": str(fake.version)},
    }
    assert await mirror.synced(PATIENCE)
    fake.remove(f"{PODS}/gone")
    fake.put(f"{PODS}/changed", pod("changed", "after"))
    fake.put(f"{PODS}/new", pod("new"))
    await until_async(lambda: names(mirror) == {"changed", "new"})
    fake.old_list = old
    await mirror.look(0.0)
    assert names(mirror) == {"changed", "new"}
    (changed,) = mirror.of("changed")
    assert changed["metadata"]["annotations"]["start"] == "after"
    fake.old_list = None
    fake.silent = True
    fake.remove(f"{PODS}/new")
    await mirror.look(0.0)
    assert names(mirror) == {"changed"}, "a list that is up to date is believed"


async def test_where_watches_are_refused_lists_have_to_do(fake: FakeCluster, cluster: Cluster) -> None:
    mirror = Mirror(cluster, PODS, by_name, silence_seconds=0.2)
    fake.faults.append(Fault("GET", 9999, status=503, watch=True))
    assert await mirror.synced(PATIENCE)
    fake.put(f"{PODS}/a", pod("a"))
    await until_async(lambda: names(mirror) == {"a"})
    mirror.close()


async def test_a_closed_mirror_asks_no_more(fake: FakeCluster, mirror: Mirror) -> None:
    assert await mirror.synced(PATIENCE)
    await until_async(lambda: bool(fake.watches))
    mirror.close()
    await asyncio.sleep(0.2)
    asked = len(fake.requests)
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        await asyncio.sleep(0.1)
    assert len(fake.requests) == asked
