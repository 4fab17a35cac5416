"""What a thousand runtimes cost the hub, control and the cluster's API server.

`python bench/kubernetes_scale.py [--runtimes 1000]` (as root, after `make cluster-programs`) prints one JSON object a line. The hub,
documents, control, the Kubernetes backend, API server, scheduler and controllers are the real ones; the nodes are KWOK's, and one
process answers for the supervisors of all pods (tests/cluster/harness/stand_in.py), which answer at once and run nothing. Hub and
control reach the API server through a proxy that counts: so each call of theirs pays for a connection of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
for folder in (ROOT, ROOT / "tests"):
    sys.path.insert(0, str(folder))

import psutil  # noqa: E402
import requests  # noqa: E402

from cluster.harness import lifecycle  # noqa: E402
from cluster.harness.cluster import Cluster  # noqa: E402
from cluster.harness.fault_proxy import FaultProxy  # noqa: E402
from cluster.harness.pretended import TAINT, node  # noqa: E402
from cluster.harness.stand_in import SUPERVISOR_PORT, answering  # noqa: E402
from support.service import Running, running  # noqa: E402

USERS, PODS_ON_NODE, CALLERS = 5, 100, 8
REST_SECONDS = 60.0
LONGEST = 900.0
API = "/services/control/api/v1/runtimes"
PROCESSES = {"hub": "hub.jupyterhub_process", "control": "hub.control"}

CONFIG = """
runtimes:
  environment: minimal
  backend: kubernetes
  kubernetes:
    namespace: {namespace}
    installation: scale
    image: docker.io/local/pretended:1
    drives: none
    kubeconfig: {kubeconfig}
    node_selector: {{minicolab-bench: {mark}}}
    tolerations: [{{key: {taint}, operator: Exists, effect: NoSchedule}}]
    cpu_share: 0.01
    memory_share: 0.01
quota: {{max_runtimes: 1000}}
"""


def say(what: str, **numbers: object) -> None:
    print(json.dumps({"measure": what, "cores": os.cpu_count(), **numbers}), flush=True)


class Bench:
    """A running service whose runtimes are pretended."""

    def __init__(self, service: Running, proxy: FaultProxy, cluster: Cluster, namespace: str) -> None:
        self.service, self.proxy, self.cluster, self.namespace = service, proxy, cluster, namespace
        self.users = [f"u{n}" for n in range(USERS)]
        self.runtimes: dict[str, str] = {}  # id → user
        self._counted = 0
        self._cpu: dict[str, float] = {}
        self._began = time.monotonic()

    # -- measuring --------------------------------------------------------------------------------------------

    def process(self, which: str) -> psutil.Process:
        words = (PROCESSES[which], str(self.service.state))
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words):
                return process
        raise LookupError(which)

    def begin(self) -> None:
        """Count from here."""
        self._counted = len(self.proxy.requests)
        self._cpu = {which: cpu_of(self.process(which)) for which in PROCESSES}
        self._began = time.monotonic()

    def measured(self, count: int) -> dict[str, object]:
        """Return what was spent since `begin`; calls are divided by `count`."""
        found: dict[str, object] = {"seconds": round(time.monotonic() - self._began, 1)}
        for which in PROCESSES:
            process = self.process(which)
            found[f"{which}_cpu_s"] = round(cpu_of(process) - self._cpu[which], 1)
            found[f"{which}_memory_mb"] = round(process.memory_info().rss / (1 << 20))
        calls = Counter(kind_of(*request) for request in self.proxy.requests[self._counted :])
        found["api_calls"] = dict(calls.most_common())
        found["api_calls_per_runtime"] = round(calls.total() / count, 2)
        return found

    # -- doing ------------------------------------------------------------------------------------------------

    def start_all(self, count: int) -> Counter[str]:
        """Start runtimes, and return once all are ready or have failed; return how many are in which state."""
        with ThreadPoolExecutor(CALLERS) as pool:
            who = [self.users[n % USERS] for n in range(count)]
            files = list(pool.map(lambda user: self.service.make_file(user)["id"], who))
            self.begin()

            def start(user: str, file: str) -> tuple[str, str]:
                reply = self.service.api(user, "POST", API, json={"file_id": file})
                assert reply.status_code == 202, reply.text
                return str(reply.json()["id"]), user

            self.runtimes = dict(pool.map(start, who, files))
        say("starts accepted", runtimes=count, seconds=round(time.monotonic() - self._began, 1))
        until(lambda: not self.states()["starting"])
        return self.states()

    def states(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for user in self.users:
            offset, total = 0, 1
            while offset < total:
                reply = self.service.api(user, "GET", f"{API}?limit=200&offset={offset}").json()
                found.update(item["state"] for item in reply["items"])
                offset, total = offset + 200, reply["total"]
        return found

    def stop_all(self) -> None:
        def stop(item: tuple[str, str]) -> None:
            runtime, user = item
            reply = self.service.api(user, "DELETE", f"{API}/{runtime}")
            assert reply.status_code in (200, 202), reply.text

        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(stop, self.runtimes.items()))
        until(lambda: not self.pods())

    def pods(self) -> list[str]:
        return self.cluster.kubectl("-n", self.namespace, "get", "pods", "-o", "name").split()

    def followed(self) -> int:
        """Return to how many supervisors control holds a connection."""
        try:
            held = self.process("control").net_connections("tcp")
        except (psutil.Error, LookupError):
            return 0
        return len(
            {
                c.raddr.ip
                for c in held
                if c.raddr and c.raddr.port == SUPERVISOR_PORT and c.status == "ESTABLISHED"
            }
        )

    def kill(self, which: str) -> None:
        process = self.process(which)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def hub_answers(self) -> bool:
        try:
            return self.service.api(self.users[0], "GET", "/hub/api/user", timeout=5).status_code == 200
        except requests.RequestException:
            return False


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def kind_of(method: str, target: str) -> str:
    """Return what a request is about, without names."""
    path, _, query = target.partition("?")
    kind = re.sub(r"^/api/v1/(namespaces/[^/]+/)?", "", path)
    kind, _, name = kind.partition("/")
    if "watch=" in query:
        return f"WATCH {kind}"
    return f"LIST {kind}" if method == "GET" and not name else f"{method} {kind}"


def until(condition: Callable[[], object]) -> None:
    over = time.monotonic() + LONGEST
    while not condition():
        if time.monotonic() > over:
            raise TimeoutError("it never happened")
        time.sleep(0.5)


def measure(bench: Bench, count: int) -> None:
    states = bench.start_all(count)
    say("starts", runtimes=count, **states, **bench.measured(count))
    until(lambda: bench.followed() >= states["ready"])

    bench.begin()
    time.sleep(REST_SECONDS)
    say("a minute of rest", runtimes=count, **bench.measured(count))

    for which, is_back in (
        ("control", lambda: bench.followed() >= states["ready"]),
        ("hub", bench.hub_answers),
    ):
        counted, began = len(bench.proxy.requests), time.monotonic()
        bench.kill(which)
        until(is_back)
        took = time.monotonic() - began
        process = bench.process(which)
        calls = Counter(kind_of(*request) for request in bench.proxy.requests[counted:])
        say(
            f"{which} killed, and back with every runtime",
            runtimes=count,
            seconds=round(took, 1),
            cpu_s=round(cpu_of(process), 1),
            memory_mb=round(process.memory_info().rss / (1 << 20)),
            api_calls=dict(calls.most_common()),
            **bench.states(),
        )

    bench.begin()
    bench.stop_all()
    say("stops", runtimes=count, **bench.measured(count), left=len(bench.pods()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runtimes", type=int, default=1000)
    count = parser.parse_args().runtimes
    kept = os.environ.get("MINICOLAB_CLUSTER_STATE")
    with tempfile.TemporaryDirectory(prefix="minicolab-scale-") as folder:
        state = Path(kept) if kept else Path(folder) / "cluster"
        cluster = lifecycle.up(state)
        mark = f"scale-{secrets.token_hex(3)}"
        names = [f"{mark}-{n}" for n in range(-(-count // PODS_ON_NODE))]
        cluster.apply(*(node(name, {}, {"minicolab-bench": mark}) for name in names))
        try:
            with cluster.namespace("scale") as namespace, FaultProxy(cluster.kubeconfig) as proxy:
                cluster.kubectl("-n", namespace, "create", "serviceaccount", "runtime")
                config = CONFIG.format(
                    namespace=namespace, kubeconfig=proxy.kubeconfig, mark=mark, taint=TAINT["key"]
                )
                with answering(cluster), running(Path(folder) / "state", config) as service:
                    for n in range(USERS):
                        service.add_user(f"u{n}")
                    measure(Bench(service, proxy, cluster, namespace), count)
        finally:
            cluster.kubectl("delete", "node", *names, "--wait=false")
            if not kept:
                lifecycle.down(state)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
