"""What pods and their events say: true phases, true reasons. The pods are as a kubelet and a scheduler of 1.34 write them."""

from __future__ import annotations

from typing import Any

import pytest

from spawner.kubernetes.phases import (
    deleted_reason,
    end_by_events,
    end_of,
    is_ready,
    look,
    unready_since,
    unschedulable,
)
from spawner.model import Phase


def pod(node: str | None = "n1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "r-1", "uid": "u-1"},
        "spec": {
            "containers": [{"name": "runtime", "image": "runtime:1"}],
            **({"nodeName": node} if node else {}),
        },
        "status": {"phase": "Pending", **status},
    }


def waiting(reason: str, message: str = "") -> list[dict[str, Any]]:
    return [{"name": "runtime", "state": {"waiting": {"reason": reason, "message": message}}}]


def terminated(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "runtime", "state": {"terminated": {"exitCode": 0, **state}}}]


def event(reason: str, message: str = "", at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"reason": reason, "message": message, "lastTimestamp": at, "metadata": {"uid": reason}}


def unplaced(message: str) -> dict[str, Any]:
    return pod(
        None,
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        ],
    )


NO_MEMORY = "0/3 nodes are available: 1 Insufficient memory, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."


@pytest.mark.parametrize(
    ("found", "events", "phase", "words"),
    [
        (pod(None), [], Phase.QUEUED, "Waiting for a machine"),
        (unplaced(NO_MEMORY), [], Phase.QUEUED, "1 with too little memory free, 2 kept for other work"),
        (
            unplaced(NO_MEMORY),
            [event("TriggeredScaleUp", "pod triggered scale-up: [{pool 1->2 (max: 5)}]")],
            Phase.QUEUED,
            "a new one is being added",
        ),
        (
            unplaced(NO_MEMORY),
            [event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached")],
            Phase.QUEUED,
            "can not add a machine",
        ),
        (
            unplaced(NO_MEMORY),
            [
                event("NotTriggerScaleUp", at="2026-01-01T00:00:00Z"),
                event("Nominated", at="2026-01-01T00:00:05Z"),
            ],
            Phase.QUEUED,
            "a new one is being added",
        ),
        (pod(), [], Phase.SANDBOX, "private machine"),
        (
            pod(containerStatuses=waiting("ContainerCreating")),
            [event("Pulling")],
            Phase.PREPARING,
            "runtime:1",
        ),
        (
            pod(containerStatuses=waiting("ContainerCreating")),
            [event("Pulling"), event("Pulled", at="2026-01-01T00:00:09Z")],
            Phase.SANDBOX,
            "private machine",
        ),
        (
            pod(containerStatuses=waiting("ContainerCreating")),
            [event("FailedMount", "driver name drive.minicolab.dev not found")],
            Phase.SANDBOX,
            "drive.minicolab.dev not found",
        ),
        (
            pod(containerStatuses=waiting("ErrImagePull", "dial tcp: i/o timeout")),
            [],
            Phase.PREPARING,
            "tries again",
        ),
        (
            pod(
                containerStatuses=waiting("CreateContainerConfigError", 'secret "r-1" not found'),
            ),
            [],
            Phase.SANDBOX,
            "private machine",
        ),
        (
            pod(phase="Running", containerStatuses=[{"name": "runtime", "state": {"running": {}}}]),
            [],
            Phase.SERVER,
            "Starting Python",
        ),
    ],
)
def test_a_start_says_what_it_waits_for(
    found: dict[str, Any], events: list[dict[str, Any]], phase: Phase, words: str
) -> None:
    seen = look(found, events)
    assert (seen.phase, seen.failure) == (phase, None)
    assert words in seen.sentence


@pytest.mark.parametrize(
    ("found", "events", "code", "words"),
    [
        (
            pod(containerStatuses=waiting("ImagePullBackOff", 'Back-off pulling image "runtime:1"')),
            [
                event(
                    "Failed",
                    'Failed to pull image "runtime:1": failed to resolve reference "runtime:1": runtime:1: not found',
                )
            ],
            "image_unavailable",
            "runtime:1 can not be had",
        ),
        (
            pod(containerStatuses=waiting("InvalidImageName", "couldn't parse image name")),
            [],
            "image_unavailable",
            "parse",
        ),
        (
            pod(containerStatuses=waiting("ErrImageNeverPull", "Container image is not present")),
            [],
            "image_unavailable",
            "not on the machine",
        ),
        (
            pod(
                containerStatuses=waiting(
                    "CreateContainerConfigError",
                    "container has runAsNonRoot and image will run as root",
                )
            ),
            [],
            "start_failed",
            "runAsNonRoot",
        ),
        (
            pod(
                phase="Failed",
                containerStatuses=terminated(
                    exitCode=1, message='{"event":"end","code":"start_failed","message":"No Python."}'
                ),
            ),
            [],
            "start_failed",
            "No Python.",
        ),
        (
            pod(
                phase="Failed",
                reason="UnexpectedAdmissionError",
                message="Allocate failed due to no devices",
            ),
            [],
            "start_failed",
            "no devices",
        ),
    ],
)
def test_a_hopeless_start_is_given_up_with_its_true_reason(
    found: dict[str, Any], events: list[dict[str, Any]], code: str, words: str
) -> None:
    failure = look(found, events).failure
    assert failure is not None
    assert failure.code == code
    assert words in failure.message


def test_what_takes_too_long_is_blamed_on_what_it_waited_for() -> None:
    assert look(unplaced(NO_MEMORY), []).blame == "no_capacity"
    assert look(pod(containerStatuses=waiting("ErrImagePull", "timeout")), []).blame == "image_unavailable"
    assert look(pod(), []).blame == "start_timeout"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
            "the cluster has one node: 1 with too few of nvidia.com/gpu free",
        ),
        (
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
            "the cluster has 2 nodes: 2 of another kind",
        ),
        (
            "0/2 nodes are available: 1 Too many pods, 1 node(s) were unschedulable.",
            "the cluster has 2 nodes: 1 with no room for another pod, 1 being taken out of service",
        ),
        ("0/0 nodes are available: .", "the cluster has no nodes"),
        ("no nodes available to schedule pods", "no nodes available to schedule pods"),
        ("", "no machine fits"),
    ],
)
def test_the_schedulers_words_become_a_persons(message: str, words: str) -> None:
    assert unschedulable(message) == words


SAID = '{"event":"end","code":"idle","message":"Idle for 90 minutes (limit 90 minutes)."}'


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (pod(phase="Succeeded", containerStatuses=terminated(message=f"noise\n{SAID}\n")), "idle"),
        (
            pod(
                phase="Succeeded", containerStatuses=terminated(reason="OOMKilled", exitCode=0, message=SAID)
            ),
            "idle",  # a cell was killed for memory once; the node remembers that for ever
        ),
        (
            pod(phase="Failed", containerStatuses=terminated(reason="OOMKilled", exitCode=137)),
            "out_of_memory",
        ),
        (pod(phase="Failed", containerStatuses=terminated(exitCode=137)), "crashed"),
        (
            pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
            "evicted",
        ),
        (pod(phase="Failed", reason="DeadlineExceeded"), "max_lifetime"),
        (pod(phase="Failed", reason="NodeLost"), "node_lost"),
        (pod(phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource"), "no_capacity"),
        (
            pod(
                phase="Failed",
                conditions=[
                    {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
                ],
            ),
            "preempted",
        ),
        (pod(phase="Failed"), "lost"),
        (
            {
                **pod(
                    phase="Running",
                    conditions=[
                        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
                    ],
                ),
                "metadata": {"name": "r-1", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            },
            "node_lost",
        ),
    ],
)
def test_an_end_has_its_true_reason(found: dict[str, Any], code: str) -> None:
    end = end_of(found)
    assert end is not None
    assert end.code == code
    assert end.message.endswith(".")


def test_what_lives_has_no_end() -> None:
    assert (
        end_of(pod(phase="Running", containerStatuses=[{"name": "runtime", "state": {"running": {}}}]))
        is None
    )
    assert end_of(pod(None)) is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"event":"end"}', '{"event":"end","code":5,"message":"x"}', "{" * 9000]
)
def test_nonsense_in_the_last_word_is_not_told(text: str) -> None:
    end = end_of(pod(phase="Failed", containerStatuses=terminated(exitCode=3, message=text)))
    assert end is not None
    assert end.code == "crashed"
    assert "3" in end.message


def test_a_pod_that_somebody_deleted_is_told_apart_from_one_that_ended() -> None:
    running = pod(phase="Running", containerStatuses=[{"name": "runtime", "state": {"running": {}}}])
    assert deleted_reason(running).code == "deleted"
    assert deleted_reason(None).code == "deleted"
    told = '{"event":"end","code":"service_stopped","message":"The service was stopped."}'
    stopped = pod(phase="Failed", containerStatuses=terminated(message=told))
    assert deleted_reason(stopped).code == "deleted", "its supervisor was only told to end"
    drained = {
        **running,
        "status": {
            **running["status"],
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}],
        },
    }
    assert deleted_reason(drained).code == "evicted"
    ended = pod(phase="Failed", containerStatuses=terminated(reason="OOMKilled"))
    assert deleted_reason(ended).code == "out_of_memory"


def test_an_eviction_that_the_node_wrote_down_beside_the_pod_only_is_told() -> None:
    killing = event("Killing", "Stopping container runtime", "2026-01-01T00:00:02Z")
    assert end_by_events([killing]) is None
    evicted = event(
        "Evicted", 'Usage of EmptyDir volume "content" exceeds the limit "64Mi".', "2026-01-01T00:00:01Z"
    )
    end = end_by_events([evicted, killing])
    assert end is not None
    assert end.code == "evicted"
    assert "exceeds the limit" in end.message


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), ("Unknown", False)])
def test_a_node_is_ready_only_when_it_says_so(status: str, ready: bool) -> None:
    since = "2026-01-01T00:00:00Z"
    node = {"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}}
    assert is_ready(node) is ready
    assert unready_since(node) == since
    assert not is_ready({"status": {}})
