"""What a pod and its events say about the start and the end of a runtime, in words for its user. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spawner.kubernetes.model import CLAIM_GATE, Object
from spawner.kubernetes.pods import CONTAINER
from spawner.model import EndReason, Phase

SENTENCE_LENGTH = 300
TERMINATION_BYTES = 4096

PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
HOPELESS_PULL = re.compile(
    r"not found|manifest unknown|does not exist|access denied|denied|unauthorized|authentication required|"
    r"no basic auth|failed to resolve reference .*: not found",
    re.IGNORECASE,
)
HOPELESS_WAITING = {
    "InvalidImageName": ("image_unavailable", "The name of the runtime's image can not be used"),
    "ErrImageNeverPull": ("image_unavailable", "The runtime's image is not on the machine"),
    "ImageInspectError": ("image_unavailable", "The runtime's image can not be read"),
    "CreateContainerError": ("start_failed", "The machine can not be made"),
    "RunContainerError": ("start_failed", "The machine can not be started"),
}
TOLD_NOTHING = frozenset({"lost", "service_stopped"})  # what a supervisor says that was merely told to end
LOSSES = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
NODE_LOST = EndReason("node_lost", "The node the machine ran on went away.")


@dataclass(frozen=True)
class Failure:
    """A start that will not succeed."""

    code: str
    message: str


@dataclass(frozen=True)
class Look:
    """How far a start is. `failure` says why it is hopeless; `blame` is the code if it does not get further in time."""

    phase: Phase
    sentence: str
    failure: Failure | None = None
    blame: str = "start_timeout"


def look(pod: Object, events: Sequence[Object]) -> Look:
    """Return how far the start of a pod is. `events` are the pod's own, in any order."""
    status = pod.get("status", {})
    events = sorted(events, key=_when)
    end = end_of(pod)
    if end is not None:
        return Look(Phase.SERVER, end.message, Failure("start_failed", _while_starting(end)))
    if node_of(pod) is None:
        return _unplaced(pod, events)
    state = _container_state(status)
    if "running" in state:
        return Look(Phase.SERVER, "Starting Python")
    waiting = state.get("waiting", {})
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in HOPELESS_WAITING:
        code, words = HOPELESS_WAITING[reason]
        return Look(Phase.SANDBOX, f"{words}.", Failure(code, _sentence(words, message)))
    if reason in PULL_REASONS:
        return _pull_trouble(pod, message, events)
    if reason == "CreateContainerConfigError" and "secret" not in message.lower():
        words = "The machine can not be made as the settings want it"
        return Look(Phase.SANDBOX, f"{words}.", Failure("start_failed", _sentence(words, message)))
    return _preparing(pod, events)


def _unplaced(pod: Object, events: Sequence[Object]) -> Look:
    """Say what a pod without a node waits for."""
    gates = {gate.get("name") for gate in pod.get("spec", {}).get("schedulingGates") or ()}
    if gates:
        what = "an accelerator" if CLAIM_GATE in gates else "the cluster to let it start"
        return Look(Phase.QUEUED, f"Waiting for {what}", blame="no_capacity")
    condition = _condition(pod.get("status", {}), "PodScheduled")
    if condition is None or condition.get("reason") != "Unschedulable":
        return Look(Phase.QUEUED, "Waiting for a machine")
    why = unschedulable(str(condition.get("message", "")))
    scaling = _last(events, {"TriggeredScaleUp", "NotTriggerScaleUp", "Nominated"})
    if scaling is not None and scaling.get("reason") != "NotTriggerScaleUp":
        return Look(Phase.QUEUED, "No machine is free: a new one is being added", blame="no_capacity")
    if scaling is not None:
        why += "; the cluster can not add a machine for it"
    return Look(Phase.QUEUED, f"Waiting for a machine: {why}", blame="no_capacity")


_NODES = re.compile(
    r"^(\d+)/(\d+) nodes are available: (.*?)\.?(?: preemption: .*| no new claims to deallocate.*)?$"
)
_WANTING = re.compile(r"Insufficient (\S+)")
_SHORT = {
    "cpu": "too few CPUs free",
    "memory": "too little memory free",
    "ephemeral-storage": "too little disk space free",
}
NO_ROOM = "no room for another pod"


def unschedulable(message: str) -> str:
    """Return the scheduler's message in a person's words; in its own where it says something new."""
    match = _NODES.match(message.strip())
    if match is None:
        return _clip(message) or "no machine fits"
    total = int(match[2])
    parts = [_part(text) for text in match[3].split(", ") if text]
    head = "the cluster has one node" if total == 1 else f"the cluster has {total} nodes"
    if total == 0:
        return "the cluster has no nodes"
    return f"{head}: {', '.join(parts)}"


def _part(text: str) -> str:
    count, _, rest = text.partition(" ")
    if not count.isdigit():
        return text
    wanting = _WANTING.match(rest)
    if wanting is not None:
        return f"{count} with {_SHORT.get(wanting[1], f'too few of {wanting[1]} free')}"
    if rest == "Too many pods":
        return f"{count} with {NO_ROOM}"
    if "untolerated taint" in rest:
        return f"{count} kept for other work or not ready"
    if "didn't match Pod's node affinity/selector" in rest:
        return f"{count} of another kind"
    if "unschedulable" in rest:
        return f"{count} being taken out of service"
    return text


def _pull_trouble(pod: Object, message: str, events: Sequence[Object]) -> Look:
    image = _image(pod)
    failed = _last(events, {"Failed"})
    detail = " ".join([message, str(failed.get("message", "")) if failed is not None else ""])
    if HOPELESS_PULL.search(detail):
        told = (
            f"The runtime's image {image} can not be had: it does not exist, or the cluster may not read it."
        )
        return Look(Phase.PREPARING, "The runtime's image can not be had", Failure("image_unavailable", told))
    told = f"The runtime's image {image} can not be fetched just now; the cluster tries again"
    return Look(Phase.PREPARING, told, blame="image_unavailable")


def _preparing(pod: Object, events: Sequence[Object]) -> Look:
    pulling = _last(events, {"Pulling", "Pulled"})
    if pulling is not None and pulling.get("reason") == "Pulling":
        return Look(Phase.PREPARING, f"Fetching the runtime's image {_image(pod)}", blame="image_unavailable")
    trouble = _last(events, {"FailedMount", "FailedCreatePodSandBox", "FailedAttachVolume", "Started"})
    if trouble is not None and trouble.get("reason") in ("FailedMount", "FailedAttachVolume"):
        return Look(Phase.SANDBOX, _sentence("Waiting for a volume", str(trouble.get("message", ""))))
    if trouble is not None and trouble.get("reason") == "FailedCreatePodSandBox":
        return Look(Phase.SANDBOX, _sentence("The node has trouble", str(trouble.get("message", ""))))
    return Look(Phase.SANDBOX, "Making a private machine")


# -- ends -----------------------------------------------------------------------------------------------------


def end_of(pod: Object) -> EndReason | None:
    """Return why a pod's runtime ended, None while it has not."""
    status = pod.get("status", {})
    terminated = _container_state(status).get("terminated")
    if node_is_lost(pod):
        return NODE_LOST
    if not is_over(pod) and terminated is None:
        return None
    of_pod = _end_by_pod(status)
    if of_pod is not None:
        return of_pod
    if terminated is None:
        return EndReason("lost", "The machine disappeared without saying why.")
    said = _last_word(str(terminated.get("message", "")))
    if (
        said is not None
    ):  # it knows better: a cell that was killed for memory an hour ago is no reason of an end
        return said
    if terminated.get("reason") == "OOMKilled":
        return EndReason("out_of_memory", "The machine ran out of memory.")
    code = terminated.get("exitCode", 0)
    return EndReason("crashed", f"The machine ended by itself (exit status {code}).")


def _end_by_pod(status: dict[str, Any]) -> EndReason | None:
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    if reason == "DeadlineExceeded":
        return EndReason("max_lifetime", "The runtime reached its longest life; the cluster ended it.")
    if reason == "Evicted":
        return EndReason("evicted", _sentence("The node had to make room and ended the machine", message))
    if reason in ("NodeLost", "NodeShutdown", "Terminated", "Shutdown"):
        return NODE_LOST
    if reason == "Preempting":
        return EndReason("preempted", "The machine had to make room for something more important.")
    if reason in ("UnexpectedAdmissionError", "NodeAffinity") or reason.startswith("OutOf"):
        return EndReason("no_capacity", _sentence("The node could not take the machine", message))
    disrupted = _condition(status, "DisruptionTarget")
    if disrupted is not None and disrupted.get("status") == "True":
        return _disruption(str(disrupted.get("reason", "")), str(disrupted.get("message", "")))
    return None


def _disruption(reason: str, message: str) -> EndReason:
    if reason in LOSSES:
        return NODE_LOST
    if reason == "PreemptionByScheduler":
        return EndReason("preempted", "The machine had to make room for something more important.")
    if reason == "TerminationByKubelet":
        return EndReason("evicted", _sentence("The node had to make room and ended the machine", message))
    return EndReason("evicted", "The machine was moved out of the way by the cluster's administration.")


def end_by_events(events: Sequence[Object]) -> EndReason | None:
    """Return why a node ended a pod, as it told beside the pod; None when it told nothing."""
    evicted = _last(sorted(events, key=_when), {"Evicted"})
    if evicted is None:
        return None
    return EndReason(
        "evicted",
        _sentence("The node had to make room and ended the machine", str(evicted.get("message", ""))),
    )


def deleted_reason(last_seen: Object | None) -> EndReason:
    """Return why a runtime ended whose pod was deleted; `last_seen` is the pod as it was seen last."""
    if last_seen is not None:
        end = end_of(last_seen)
        if end is not None and end.code not in TOLD_NOTHING:
            return end
        disrupted = _condition(last_seen.get("status", {}), "DisruptionTarget")
        if disrupted is not None and disrupted.get("status") == "True":
            return _disruption(str(disrupted.get("reason", "")), str(disrupted.get("message", "")))
    return EndReason("deleted", "The machine was deleted in the cluster, not by minicolab.")


def _last_word(text: str) -> EndReason | None:
    """Return the reason in the supervisor's last line. Who writes it may be the user's own code: it is only told, never believed."""
    for line in reversed(text[-TERMINATION_BYTES:].splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") in ("end", "failed"):
            code, message = event.get("code"), event.get("message")
            if isinstance(code, str) and isinstance(message, str) and re.fullmatch(r"[a-z_]{1,64}", code):
                return EndReason(code, _clip(message))
    return None


def _while_starting(end: EndReason) -> str:
    return f"The machine ended while it was starting: {end.message}"


# -- reading pods ---------------------------------------------------------------------------------------------


def address(pod: Object) -> str | None:
    """Return the pod's address, None before it has one."""
    found = pod.get("status", {}).get("podIP")
    return str(found) if found else None


def is_over(pod: Object) -> bool:
    """Return whether all that a pod ran has ended, as its node says."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_deleted(pod: Object) -> bool:
    """Return whether somebody has asked for the pod's end."""
    return bool(pod.get("metadata", {}).get("deletionTimestamp"))


def node_of(pod: Object) -> str | None:
    """Return the node a pod is on, None before it is on one."""
    found = pod.get("spec", {}).get("nodeName")
    return str(found) if found else None


def node_is_lost(pod: Object) -> bool:
    """Return whether the cluster has given up the node of a pod: it asked for the pod's end, and nobody is there to carry it out."""
    status = pod.get("status", {})
    disrupted = _condition(status, "DisruptionTarget")
    by_loss = disrupted is not None and disrupted.get("reason") in LOSSES
    return is_deleted(pod) and (by_loss or status.get("reason") == "NodeLost")


def is_ready(node: Object) -> bool:
    """Return whether a node says that it is well, and has said so lately."""
    ready = _condition(node.get("status", {}), "Ready")
    return ready is not None and ready.get("status") == "True"


def unready_since(node: Object) -> str | None:
    """Return when a node stopped being ready, as the cluster writes times."""
    ready = _condition(node.get("status", {}), "Ready")
    return str(ready["lastTransitionTime"]) if ready is not None and "lastTransitionTime" in ready else None


def finished_at(pod: Object) -> str | None:
    """Return when the runtime of a pod ended, as the cluster writes times."""
    terminated = _container_state(pod.get("status", {})).get("terminated") or {}
    found = terminated.get("finishedAt")
    return str(found) if found else None


def _container_state(status: dict[str, Any]) -> dict[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            state: dict[str, Any] = container.get("state") or {}
            return state
    return {}


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any] | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            found: dict[str, Any] = condition
            return found
    return None


def _image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def _when(event: Object) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(t) for t in times if t), str(event.get("metadata", {}).get("creationTimestamp", "")))


def _last(events: Sequence[Object], reasons: set[str]) -> Object | None:
    return next((e for e in reversed(events) if e.get("reason") in reasons), None)


def _sentence(words: str, detail: str) -> str:
    detail = _clip(detail).rstrip(".")
    return f"{words}: {detail}." if detail else f"{words}."


def _clip(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SENTENCE_LENGTH else text[: SENTENCE_LENGTH - 1] + "…"
