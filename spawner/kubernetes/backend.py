"""The Kubernetes backend: a runtime is a pod and a secret, its life is held by the supervisor in the pod.

Keeps no state: what exists is what the cluster lists under our labels. A mirror of our pods answers quickly, and whoever doubts it
shares one list with all who doubt; that something is *not* there is always asked of the API server itself. Nothing without our labels
is ever changed, nothing of ours but by its own id, and nothing is taken out of the cluster's books by force.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from quota.clock import Clock, SystemClock
from spawner.container import link
from spawner.container.backend import (
    CONNECT_AGAIN_SECONDS,
    END_SECONDS,
    STATUS_SECONDS,
    ContainerBackend,
    Place,
)
from spawner.container.spec import DRIVES as IN_POD
from spawner.ended import Ended
from spawner.kubernetes import phases, pods
from spawner.kubernetes.away import Away, ago
from spawner.kubernetes.bindings import Bindings, change_bindings
from spawner.kubernetes.client import AlreadyThere, ApiFault, Cluster
from spawner.kubernetes.gates import PodGates
from spawner.kubernetes.model import FILE, SNAPSHOT, START, USER, Installation, Object, annotation, is_ours
from spawner.kubernetes.refusals import UNAVAILABLE, refusal
from spawner.kubernetes.volumes import DRIVE_ID, name_at_start, sub_path
from spawner.kubernetes.watch import LOOK_SECONDS, Mirror, by_involved, by_name
from spawner.model import Budget, EndReason, IsolationReport, Observed, Phase, RuntimeSpec
from spawner.ports import BackendError, OnPhase
from spawner.supervised import gone
from spawner.supervisor.wire import NoAnswer, SupervisorGone

log = logging.getLogger(__name__)

STARTING_AGAIN_SECONDS, AGAIN_SECONDS = 5.0, 30.0  # how long it may be silent before it is asked all the same
AWAY_SECONDS = 20.0  # how long a node may be not ready, and a supervisor on it silent, before it is lost
CONNECT_LATER_SECONDS = 0.5  # between tries to reach what takes long to start
KILL_SECONDS = 1  # never 0: that takes a pod out of the list while its processes live
KEEP_ENDED_SECONDS = 3600.0  # how long a pod that ended stays for whoever wants its reason
RESTART_NEEDED = (
    "Here a Drive is connected when a runtime starts: end this runtime, and the notebook's next one has it."
)


class KubernetesBackend(ContainerBackend):
    """Runtimes as pods of one namespace."""

    name = "kubernetes"
    hand_over_seconds = 10.0  # a pod's files go with it
    keeps_content = True

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
        self._events_path = f"{base}/events"
        self._pods = Mirror(
            cluster, self._pods_path, by_name, selector={"labelSelector": installation.selector}
        )
        about_pods = {"fieldSelector": "involvedObject.kind=Pod"}
        self._nodes = Mirror(cluster, "/api/v1/nodes", by_name)
        self._events = Mirror(cluster, self._events_path, by_involved, selector=about_pods)
        self._away = Away(self._nodes, self._clock)
        self.gates = PodGates(cluster, installation, self._pods)

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
        await self._pods.synced()
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
        # A pod has an address before its image is fetched; and its process answers before its node says that it runs.
        addressed: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        runs = asyncio.ensure_future(self._until_runs(runtime_id, on_phase, addressed))
        greeted = asyncio.ensure_future(self._until_greeted(addressed))
        try:
            await asyncio.wait((runs, greeted), return_when=asyncio.FIRST_COMPLETED)
            return runs.result() if runs.done() else greeted.result()
        finally:
            for task in (runs, greeted):
                task.cancel()
            await asyncio.gather(runs, greeted, return_exceptions=True)

    async def _until_greeted(self, addressed: asyncio.Future[Place]) -> Place:
        """Return the place once somebody answers there."""
        place, pause = await addressed, CONNECT_AGAIN_SECONDS
        while True:
            with contextlib.suppress(SupervisorGone):
                _, writer = await link.connect(self._address(place))
                writer.close()
                return place
            await asyncio.sleep(pause)
            pause = min(CONNECT_LATER_SECONDS, pause * 1.1)

    async def _until_runs(
        self, runtime_id: str, on_phase: OnPhase, addressed: asyncio.Future[Place]
    ) -> Place:
        """Return the place once its node says that it runs; `addressed` gets it as soon as there is an address."""
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
                        elif await self._node_is_lost(pod):
                            raise BackendError(phases.NODE_LOST.code, phases.NODE_LOST.message)
                        if last.failure is not None:
                            raise BackendError(last.failure.code, last.failure.message)
                        place = self._place(pod)
                        if place.host is not None and last.phase is Phase.SERVER:
                            return place
                        if place.host is not None and not addressed.done():
                            addressed.set_result(place)
        except TimeoutError:
            pass
        waited = f"Nothing came of it in {self._installation.start_seconds:.0f} seconds"
        if last is None:
            raise BackendError("start_timeout", f"{waited}: the cluster does not answer.")
        raise BackendError(last.blame, f"{waited}: {last.sentence[:1].lower()}{last.sentence[1:]}.")

    # -- look -------------------------------------------------------------------------------------------------

    async def _follow(self, runtime_id: str, again_seconds: float) -> AsyncGenerator[dict[str, Any] | None]:
        """Yield the pod as it is now and after every change of it or of its events; None once it is gone, at last.

        The API server is asked when it has been silent for `again_seconds`: a watch may be dead and not know it.
        """
        with self._pods.listen(runtime_id) as changed:
            while True:
                changed.clear()
                pod = await self._pod(runtime_id)
                yield pod
                if pod is None:
                    return
                with self._events.listen(pod["metadata"]["uid"]) as happened:
                    patience = again_seconds if self._pods.fresh else LOOK_SECONDS
                    if not await _either(changed, happened, patience):
                        await self._asked(self._pods.look(patience))

    @staticmethod
    async def _asked(question: Awaitable[None]) -> None:
        """Ask the API server. Raise BackendError."""
        try:
            await question
        except ApiFault as fault:
            raise refusal(fault) from fault

    async def _pod(self, runtime_id: str) -> dict[str, Any] | None:
        """Return the pod of a runtime, None when there is none: so says the API server. Raise BackendError."""
        await self._asked(self._pods.renew())
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
        await self._asked(self._pods.renew())
        found = self._pods.all()
        if any(phases.is_deleted(pod) for pod in found):
            await self._nodes.synced()  # whether there is anybody to carry it out
        return found

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
        if end is None and phases.is_deleted(pod) and self._away.seconds(pod) >= AWAY_SECONDS:
            end = phases.NODE_LOST
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
        return ago(finished, self._clock)

    # -- end --------------------------------------------------------------------------------------------------

    async def _until_ended(self, runtime_id: str) -> Place | None:
        while True:
            try:
                async with contextlib.aclosing(self._follow(runtime_id, AGAIN_SECONDS)) as looks:
                    async for pod in looks:
                        if pod is not None and (place := self._place(pod)).ended:
                            return place
                return None
            except BackendError as error:
                if error.code != UNAVAILABLE:
                    raise
                await asyncio.sleep(LOOK_SECONDS)  # what can not be asked about has not ended

    async def _hear_end(self, place: Place) -> EndReason | None:
        heard = await super()._hear_end(place)
        if heard is None or heard.code not in phases.TOLD_NOTHING:
            return heard
        # It was merely told to end: its node knows why, and may have written that down beside the pod only.
        known = [phases.end_of(pod) for pod in self._pods.of(place.id)]
        for end in (*known, phases.end_by_events(await self._events_of(place.id))):
            if end is not None and end.code not in phases.TOLD_NOTHING:
                return replace(end, boottime=heard.boottime)
        return heard

    async def _events_of(self, runtime_id: str) -> list[dict[str, Any]]:
        """Return what the cluster has written down about a runtime's pod, nothing when it can not be asked."""
        about = {"fieldSelector": f"involvedObject.kind=Pod,involvedObject.name={runtime_id}"}
        try:
            found = await self._cluster.get(self._events_path, about)
        except ApiFault as fault:
            log.warning("what happened to runtime %s can not be read: %s", runtime_id, fault)
            return []
        events: list[dict[str, Any]] = (found or {}).get("items") or []
        return events

    async def _doubt(self, place: Place) -> Place:
        place = await super()._doubt(place)
        if place.ended:
            return place
        try:
            pod = await self._read(place.id)
        except BackendError as error:
            if error.code != UNAVAILABLE:
                raise
            return place
        if pod is not None and await self._node_is_lost(pod):
            log.warning("runtime %s is lost with its node %s", place.id, phases.node_of(pod))
            return replace(self._place(pod), ended=True, reason=phases.NODE_LOST)
        return place

    async def _node_is_lost(self, pod: Object) -> bool:
        """Return whether the node of a pod has been away for a while, and the pod's supervisor does not answer either.

        A node whose kubelet alone is away goes on running what it runs: then the supervisor answers, and nothing is lost.
        """
        if phases.node_is_lost(pod):
            return True
        if phases.node_of(pod) is None:
            return False
        await self._nodes.synced()
        return self._away.seconds(pod) >= AWAY_SECONDS and not await self._answers(self._place(pod))

    async def _answers(self, place: Place) -> bool:
        if place.host is None:
            return False
        try:
            await link.call(self._address(place), {"op": "status"}, seconds=STATUS_SECONDS)
        except (SupervisorGone, NoAnswer):
            return False
        return True

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
            with self._pods.listen(runtime_id) as changed:
                await self._cluster.delete(path, uid=uid, grace_seconds=KILL_SECONDS)
                async with asyncio.timeout(END_SECONDS):
                    await self._until_gone(path, runtime_id, uid, changed)
        except ApiFault as fault:
            raise refusal(fault) from fault
        except TimeoutError:
            message = f"Runtime {runtime_id} is told to end, but its node has not said yet that it did."
            raise BackendError("stop_failed", message) from None

    async def _until_gone(self, path: str, runtime_id: str, uid: str, changed: asyncio.Event) -> None:
        """Wait until the API server says that a pod is gone; the mirror says when to ask."""
        while True:
            if not await _either(changed, None, LOOK_SECONDS):
                await self._pods.look(LOOK_SECONDS)
            changed.clear()
            for pod in self._pods.of(runtime_id):
                if pod["metadata"]["uid"] == uid and phases.is_deleted(pod) and await self._node_is_lost(pod):
                    return  # a node that is gone ends it when it comes back, and the cluster holds its place until then
            if any(pod["metadata"]["uid"] == uid for pod in self._pods.of(runtime_id)):
                continue
            found = await self._cluster.get(path)
            if found is None or found["metadata"]["uid"] != uid:
                self._pods.forget(runtime_id, uid)
                return

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

    # -- /content ---------------------------------------------------------------------------------------------

    async def set_snapshot(self, runtime_id: str, *, snapshot_bytes: int) -> None:
        await super().set_snapshot(runtime_id, snapshot_bytes=snapshot_bytes)
        change = {"metadata": {"annotations": {SNAPSHOT: str(snapshot_bytes)}}}
        try:
            changed = await self._cluster.patch(f"{self._pods_path}/{runtime_id}", change)
        except ApiFault as fault:
            raise refusal(fault) from fault
        if changed is not None:
            self._pods.note(changed)

    async def _most_content(self, runtime_id: str) -> int:
        known = next(iter(self._pods.of(runtime_id)), None) or self._pods.last_seen(runtime_id)
        return int(annotation(known, SNAPSHOT) or 0) if known is not None else 0

    # -- accelerators (their gates: spawner.kubernetes.gates) ------------------------------------------------------

    def nodes(self) -> list[dict[str, Any]] | None:
        """Return the nodes of the cluster, None while they are not known."""
        self._nodes.start()
        return self._nodes.all() if self._nodes.fresh else None

    # -- drives -----------------------------------------------------------------------------------------------

    async def _bind(self, runtime_id: str, name: str, source: str, *, readonly: bool) -> None:
        if self._installation.drives == "none":
            raise BackendError("mount_failed", "Drives can not be mounted in this installation.")
        drive = PurePosixPath(source).name
        if not DRIVE_ID.fullmatch(drive):
            raise BackendError("no_such_drive", "This drive is not there.")
        if self._installation.drives == "subpath":
            await self._must_have(runtime_id, name, drive)
            return
        entry = {"name": name, "drive": drive, "readonly": readonly}
        await self._change_bindings(
            runtime_id, lambda bound: [*(b for b in bound if b["name"] != name), entry]
        )

    async def _must_have(self, runtime_id: str, name: str, drive: str) -> None:
        """See that the pod has had the drive since its start. Raise BackendError."""
        pod = await self._pod(runtime_id)
        if pod is None:
            raise gone()
        wanted = (f"{IN_POD}/{name}", sub_path(drive))
        mounts = pod["spec"]["containers"][0]["volumeMounts"]
        if not any((mount["mountPath"], mount.get("subPath")) == wanted for mount in mounts):
            raise BackendError("restart_needed", RESTART_NEEDED)

    def _bind_name(self, target: str, *, readonly: bool) -> str:
        if self._installation.drives == "subpath":
            return name_at_start(readonly=readonly)
        return super()._bind_name(target, readonly=readonly)

    async def _unbind(self, runtime_id: str, name: str) -> None:
        if self._installation.drives == "subpath":
            return  # it goes with the pod
        await self._change_bindings(runtime_id, lambda bound: [b for b in bound if b["name"] != name])

    async def _change_bindings(self, runtime_id: str, change: Callable[[Bindings], Bindings]) -> None:
        path = f"{self._pods_path}/{runtime_id}"
        await change_bindings(self._cluster, self._installation, path, change)

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
