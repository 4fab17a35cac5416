"""The Kubernetes backend: a runtime is a pod and a secret, its life is held by the supervisor in the pod.

Keeps no state: what exists is what the cluster lists under our labels. A mirror of our pods answers quickly; that something is *not*
there is always asked of the API server itself. Nothing without our labels is ever changed, and nothing of ours but by its own id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from quota.clock import Clock, SystemClock
from spawner.container.backend import END_SECONDS, ContainerBackend, Place
from spawner.ended import Ended
from spawner.kubernetes import phases, pods
from spawner.kubernetes.client import AlreadyThere, ApiFault, Cluster
from spawner.kubernetes.model import DRIVES, FILE, START, USER, Installation, Object, annotation, is_ours
from spawner.kubernetes.watch import Mirror, by_involved, by_name
from spawner.model import Budget, EndReason, IsolationReport, Observed, Phase, RuntimeSpec
from spawner.ports import BackendError, OnPhase

log = logging.getLogger(__name__)

SYNC_SECONDS = 10.0
LOOK_SECONDS = 2.0  # how often the API server is asked where the mirror is not to be relied on
STARTING_AGAIN_SECONDS, AGAIN_SECONDS = 5.0, 30.0  # how often it is asked all the same
KILL_SECONDS = 1  # never 0: that takes a pod out of the list while its processes live
KEEP_ENDED_SECONDS = 3600.0  # how long a pod that ended stays for whoever wants its reason
PATCH_TRIES = 10
_DRIVE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class KubernetesBackend(ContainerBackend):
    """Runtimes as pods of one namespace."""

    name = "kubernetes"
    hand_over_seconds = 10.0  # a pod's files go with it

    def __init__(
        self,
        cluster: Cluster,
        installation: Installation,
        supervisor_key: Callable[[str], bytes],
        left: Ended,
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(supervisor_key, left)
        self._cluster, self._installation = cluster, installation
        self._clock = clock or SystemClock()
        base = f"/api/v1/namespaces/{installation.namespace}"
        self._pods_path, self._secrets_path = f"{base}/pods", f"{base}/secrets"
        self._pods = Mirror(
            cluster, self._pods_path, by_name, selector={"labelSelector": installation.selector}
        )
        about_pods = {"fieldSelector": "involvedObject.kind=Pod"}
        self._nodes = Mirror(cluster, "/api/v1/nodes", by_name)
        self._events = Mirror(cluster, f"{base}/events", by_involved, selector=about_pods)

    def close(self) -> None:
        """Let go of the cluster; the runtimes go on."""
        self._pods.close()
        self._events.close()
        self._nodes.close()
        self._cluster.close()

    # -- start ------------------------------------------------------------------------------------------------

    async def _create(self, spec: RuntimeSpec, told: str, on_phase: OnPhase) -> None:
        on_phase(Phase.QUEUED)
        self._events.start()
        await self._pods.synced(SYNC_SECONDS)
        making = asyncio.ensure_future(self._make(spec, told))
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            # A call that is under way can not be taken back: what it makes is removed.
            with contextlib.suppress(BackendError, ApiFault):
                await making
                await asyncio.shield(self._remove(spec.id))
            raise

    async def _make(self, spec: RuntimeSpec, told: str) -> None:
        start = secrets.token_hex(8)
        try:
            pod = pods.pod(spec, self._installation, start=start, gated=spec.accelerator != "NONE")
        except KeyError:
            message = f"The accelerator {spec.accelerator} is not known here."
            raise BackendError("unknown_accelerator", message) from None
        try:
            made = await self._cluster.create(
                self._pods_path, pod, is_mine=lambda found: annotation(found, START) == start
            )
        except AlreadyThere as taken:
            raise self._taken(spec.id, taken.holder) from None
        except ApiFault as fault:
            raise refusal(fault) from fault
        self._pods.note(made)
        secret = pods.secret(spec, self._installation, described=told, pod_uid=made["metadata"]["uid"])
        owner = secret["metadata"]["ownerReferences"]
        try:
            await self._cluster.create(
                self._secrets_path,
                secret,
                is_mine=lambda found: found["metadata"].get("ownerReferences") == owner,
            )
        except (AlreadyThere, ApiFault) as error:
            await self._remove(spec.id)
            if isinstance(error, ApiFault):
                raise refusal(error) from error
            raise self._taken(spec.id, error.holder) from None

    def _taken(self, runtime_id: str, holder: Object) -> BackendError:
        if is_ours(holder, self._installation):
            return BackendError("already_exists", f"A runtime named {runtime_id} exists already.")
        message = f"The name {runtime_id} is taken by something in the cluster that is not minicolab's."
        return BackendError("name_taken", message)

    async def _until_placed(self, runtime_id: str, on_phase: OnPhase) -> Place:
        told: tuple[Phase, str] | None = None
        last: phases.Look | None = None
        try:
            async with asyncio.timeout(self._installation.start_seconds):
                async with contextlib.aclosing(self._follow(runtime_id, STARTING_AGAIN_SECONDS)) as looks:
                    async for pod in looks:
                        if pod is None:
                            message = "The machine was deleted while it was starting."
                            raise BackendError("start_failed", message)
                        last = phases.look(pod, self._events.of(pod["metadata"]["uid"]))
                        if (last.phase, last.sentence) != told:
                            told = (last.phase, last.sentence)
                            on_phase(*told)
                        if last.failure is not None:
                            raise BackendError(last.failure.code, last.failure.message)
                        if phases.address(pod) is not None:
                            return self._place(pod)
        except TimeoutError:
            pass
        waited = f"Nothing came of it in {self._installation.start_seconds:.0f} seconds"
        if last is None:
            raise BackendError("start_timeout", f"{waited}: the cluster does not answer.")
        raise BackendError(last.blame, f"{waited}: {last.sentence[:1].lower()}{last.sentence[1:]}.")

    # -- look -------------------------------------------------------------------------------------------------

    async def _follow(self, runtime_id: str, again_seconds: float) -> AsyncGenerator[dict[str, Any] | None]:
        """Yield the pod as it is now and after every change of it or of its events; None once it is gone, at last.

        Without news the API server itself is asked every `again_seconds`: a watch may be silent and not know it.
        """
        news = True
        with self._pods.listen(runtime_id) as changed:
            while True:
                changed.clear()
                pod = await (self._pod(runtime_id) if news else self._read(runtime_id))
                yield pod
                if pod is None:
                    return
                with self._events.listen(pod["metadata"]["uid"]) as happened:
                    patience = again_seconds if self._pods.fresh else LOOK_SECONDS
                    news = await _either(changed, happened, patience)

    async def _pod(self, runtime_id: str) -> dict[str, Any] | None:
        """Return the pod of a runtime, None when there is none: so says the API server. Raise BackendError."""
        await self._pods.synced(SYNC_SECONDS)
        if self._pods.fresh:
            for pod in self._pods.of(runtime_id):
                return pod
        return await self._read(runtime_id)

    async def _read(self, runtime_id: str) -> dict[str, Any] | None:
        """Return the pod of a runtime as the API server has it, None when there is none. Raise BackendError."""
        known = [
            pod["metadata"]["uid"] for pod in self._pods.of(runtime_id)
        ]  # one that comes later is not gone
        try:
            found = await self._cluster.get(f"{self._pods_path}/{runtime_id}")
        except ApiFault as fault:
            raise refusal(fault) from fault
        if found is not None and is_ours(found, self._installation):
            self._pods.note(found)
            return found
        for uid in known:
            self._pods.forget(runtime_id, uid)
        return None

    async def _find(self, runtime_id: str) -> Place | None:
        pod = await self._pod(runtime_id)
        return self._place(pod) if pod is not None else None

    async def _list(self) -> list[Place]:
        return [self._place(pod) for pod in await self._list_pods()]

    async def _list_pods(self) -> list[dict[str, Any]]:
        await self._pods.synced(SYNC_SECONDS)
        if self._pods.fresh:
            return self._pods.all()
        try:
            found = await self._cluster.get(self._pods_path, {"labelSelector": self._installation.selector})
        except ApiFault as fault:
            raise refusal(fault) from fault
        items: list[dict[str, Any]] = (found or {}).get("items") or []
        return items

    async def list_all(self) -> list[Observed]:
        found = await super().list_all()
        for pod in await self._list_pods():
            ago = self._ended_ago(pod)
            if ago is not None and ago > KEEP_ENDED_SECONDS:
                with contextlib.suppress(BackendError):
                    await self._remove(str(pod["metadata"]["name"]))
        return found

    def _place(self, pod: Object) -> Place:
        end = phases.end_of(pod)
        return Place(
            id=str(pod["metadata"]["name"]),
            user=annotation(pod, USER),
            file_id=annotation(pod, FILE),
            host=phases.address(pod),
            ended=end is not None,
            reason=end,
            ended_seconds_ago=self._ended_ago(pod),
        )

    def _ended_ago(self, pod: Object) -> float | None:
        finished = phases.finished_at(pod)
        if finished is None:
            return None
        at = datetime.fromisoformat(finished).astimezone(UTC)
        return max(0.0, (self._clock.now() - at).total_seconds())

    # -- end --------------------------------------------------------------------------------------------------

    async def _until_ended(self, runtime_id: str) -> Place | None:
        async with contextlib.aclosing(self._follow(runtime_id, AGAIN_SECONDS)) as looks:
            async for pod in looks:
                if pod is not None and (place := self._place(pod)).ended:
                    return place
        return None

    async def wait_end(self, runtime_id: str) -> EndReason:
        reason = await super().wait_end(runtime_id)
        last = self._pods.last_seen(runtime_id)
        if reason.code not in phases.TOLD_NOTHING or last is None:
            return reason
        known = replace(phases.deleted_reason(last), boottime=reason.boottime)
        if self._left.reason(runtime_id) is not None:  # it has not been forgotten
            self._note(runtime_id, known)
        return known

    async def _remove(self, runtime_id: str) -> None:
        pod = await self._pod(runtime_id)
        if pod is None:
            return
        uid = pod["metadata"]["uid"]
        path = f"{self._pods_path}/{runtime_id}"
        try:
            await self._cluster.delete(path, uid=uid, grace_seconds=KILL_SECONDS)
        except ApiFault as fault:
            raise refusal(fault) from fault
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._until_gone(path, runtime_id, uid)
        except TimeoutError:
            message = f"Runtime {runtime_id} is told to end, but its node has not said yet that it did."
            raise BackendError("stop_failed", message) from None

    async def _until_gone(self, path: str, runtime_id: str, uid: str) -> None:
        with self._pods.listen(runtime_id) as changed:
            while True:
                changed.clear()
                try:
                    pod = await self._cluster.get(path)
                except ApiFault as fault:
                    raise refusal(fault) from fault
                if pod is None or pod["metadata"]["uid"] != uid:
                    self._pods.forget(runtime_id, uid)
                    return
                if phases.node_is_lost(pod):
                    return  # a node that is gone ends it when it comes back, and the cluster holds its place until then
                await _either(changed, None, LOOK_SECONDS)

    async def set_limits(
        self,
        runtime_id: str,
        *,
        max_lifetime_seconds: float,
        idle_limit_seconds: float,
        budget: Budget | None = None,
    ) -> None:
        pod = await self._pod(runtime_id)
        if pod is not None and max_lifetime_seconds > pods.longest_life(pod, self._installation):
            # The cluster ends a pod at a time that can not be put off once it runs.
            longest = pods.longest_life(pod, self._installation) / 3600
            raise BackendError("too_long", f"This runtime can not live longer than {longest:.0f} hours.")
        await super().set_limits(
            runtime_id,
            max_lifetime_seconds=max_lifetime_seconds,
            idle_limit_seconds=idle_limit_seconds,
            budget=budget,
        )

    # -- accelerators: the claims are somebody else's (hub.control.claims) -----------------------------------------

    def nodes(self) -> list[dict[str, Any]] | None:
        """Return the nodes of the cluster, None while they are not known."""
        self._nodes.start()
        return self._nodes.all() if self._nodes.fresh else None

    async def open_gate(self, runtime_id: str, *, node: str | None) -> bool:
        """Let a runtime's pod be scheduled, best on a node; return whether it is. False: there is no pod yet."""
        pod = await self._pod(runtime_id)
        if pod is None:
            return False
        change = pods.ungated(pod, node)
        try:
            return (
                change is None
                or await self._cluster.patch(f"{self._pods_path}/{runtime_id}", change) is not None
            )
        except ApiFault as fault:
            if fault.status == 409:
                return False  # it changed meanwhile: the next look sees how
            raise refusal(fault) from fault

    async def holds_accelerator(self, runtime_id: str) -> bool:
        """Return whether the pod of a runtime has devices or may still get some: it has them until it is seen to have ended."""
        try:
            pod = await self._cluster.get(f"{self._pods_path}/{runtime_id}")
        except ApiFault as fault:
            raise refusal(fault) from fault
        return (
            pod is not None
            and is_ours(pod, self._installation)
            and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        )

    # -- drives -----------------------------------------------------------------------------------------------

    async def _bind(self, runtime_id: str, name: str, source: str, *, readonly: bool) -> None:
        if self._installation.drives == "none":
            raise BackendError("mount_failed", "Drives can not be mounted in this installation.")
        drive = PurePosixPath(source).name
        if not _DRIVE.fullmatch(drive):
            raise BackendError("no_such_drive", "This drive is not there.")
        entry = {"name": name, "drive": drive, "readonly": readonly}
        await self._change_drives(runtime_id, lambda bound: [*(b for b in bound if b["name"] != name), entry])

    async def _unbind(self, runtime_id: str, name: str) -> None:
        await self._change_drives(runtime_id, lambda bound: [b for b in bound if b["name"] != name])

    async def _change_drives(
        self, runtime_id: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
    ) -> None:
        """Change what the drive plugin is to bind, from what is written there now."""
        path = f"{self._pods_path}/{runtime_id}"
        for _ in range(PATCH_TRIES):
            try:
                found = await self._cluster.get(path)
                if found is None or not is_ours(found, self._installation):
                    raise BackendError("no_such_runtime", "This runtime is not there any more.")
                bound = change(json.loads(annotation(found, DRIVES) or "[]"))
                same = {k: found["metadata"][k] for k in ("uid", "resourceVersion")}
                metadata = {**same, "annotations": {DRIVES: json.dumps(bound)}}
                await self._cluster.patch(path, {"metadata": metadata})
                return
            except ApiFault as fault:
                if fault.status != 409:  # another changed it meanwhile: look again
                    raise refusal(fault) from fault
        raise BackendError("mount_failed", "The machine's drives are being changed by somebody else.")

    def isolation(self) -> IsolationReport:
        kept = (
            "processes, files and network of every runtime",
            "root on the machine (Pod Security restricted)",
        )
        missing = ("the node's kernel is shared", "the network as far as the cluster enforces its policies")
        return IsolationReport(f"pods in {self._installation.namespace}", kept, missing)


async def _either(one: asyncio.Event, other: asyncio.Event | None, seconds: float) -> bool:
    """Return whether one of the events was set within `seconds`, at once when one is."""
    tasks = [asyncio.ensure_future(event.wait()) for event in (one, other) if event is not None]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for task in tasks:
            task.cancel()


def refusal(fault: ApiFault) -> BackendError:
    """Return what a fault of the API server means for a person."""
    text = str(fault)
    if fault.status == 403 and "exceeded quota" in text:
        return BackendError("cluster_quota", "The cluster's quota for runtimes is used up. Try again later.")
    if fault.status == 403 and "violates PodSecurity" in text:
        return BackendError("pod_refused", f"The cluster does not allow such a machine: {_short(text)}")
    if fault.status in (401, 403):
        return BackendError("cluster_denied", f"The cluster does not let minicolab do this: {_short(text)}")
    if fault.status in (0, 429) or fault.status >= 500:
        return BackendError("cluster_unavailable", "The cluster does not answer. Try again in a moment.")
    return BackendError("start_failed", f"The cluster refused: {_short(text)}")


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:299] + "…"
