"""Pods with accelerators are born gated: here their gates are opened, and it is told who still has what the gate was for.

The claims are somebody else's (hub.control.claims).
"""

from __future__ import annotations

from spawner.kubernetes import phases, pods
from spawner.kubernetes.client import ApiFault, Cluster
from spawner.kubernetes.model import Installation, is_ours
from spawner.kubernetes.refusals import refusal
from spawner.kubernetes.watch import Mirror


class PodGates:
    """The gates of one installation's pods, which `mirror` follows."""

    def __init__(self, cluster: Cluster, installation: Installation, mirror: Mirror) -> None:
        self._cluster, self._installation, self._pods = cluster, installation, mirror
        self._path = f"/api/v1/namespaces/{installation.namespace}/pods"

    async def open_gate(self, runtime_id: str, *, node: str | None) -> bool:
        """Let a runtime's pod be scheduled, best on a node; return whether it is. False: there is no pod yet."""
        try:
            await self._pods.renew()
        except ApiFault as fault:
            raise refusal(fault) from fault
        for pod in self._pods.of(runtime_id):
            change = pods.ungated(pod, node)
            if change is None:
                return True
            try:
                changed = await self._cluster.patch(f"{self._path}/{runtime_id}", change)
            except ApiFault as fault:
                if fault.status == 409:
                    return False  # it changed meanwhile: the next look sees how
                raise refusal(fault) from fault
            if changed is not None:
                self._pods.note(changed)
                return True
        return False

    async def holds_accelerator(self, runtime_id: str) -> bool:
        """Return whether the pod of a runtime has devices or may still get some: it has them until it is seen to have ended.

        So it keeps them on a node that is lost, until that comes back and ends the pod, or the cluster's administration says that it
        will not: it deletes the node, or declares it out of service.
        """
        if self._pods.fresh and any(not phases.is_over(pod) for pod in self._pods.of(runtime_id)):
            return True
        try:
            found = await self._cluster.get(f"{self._path}/{runtime_id}")
        except ApiFault as fault:
            raise refusal(fault) from fault
        return found is not None and is_ours(found, self._installation) and not phases.is_over(found)
