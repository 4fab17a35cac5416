"""The most processes of a container that has a user namespace of its own, as pods with `hostUsers: false` do."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from spawner.container.server import limit
from spawner.supervisor import linux

MOST, SOMEBODY = 20, 65534
# Starts processes, saying how many it has; the shell ends when it can start no more.
START = "n=0; while [ $n -lt $0 ]; do sleep 600 >/dev/null & n=$((n+1)); echo $n; done; echo all; read wait"


def as_in_a_container() -> None:
    if os.geteuid() == 0:
        os.setuid(SOMEBODY)  # the machine's root is never limited
    linux.unshare(linux.CLONE_NEWUSER)
    limit(MOST)


def begin(count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", "-c", START, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
        start_new_session=True,
        preexec_fn=as_in_a_container,
    )


def started(process: subprocess.Popen[str]) -> int:
    """Return how many it has started once it has all it wants, or can start no more."""
    assert process.stdout is not None
    count = 0
    for line in process.stdout:
        if line == "all\n":
            return count
        count = int(line)
    return count


def test_the_limit_is_held_and_counts_no_other_containers_processes() -> None:
    try:
        groups = [begin(MOST - 4), begin(MOST - 4)]
    except subprocess.SubprocessError:
        pytest.skip("this machine makes no user namespaces")
    try:
        assert [started(group) for group in groups] == [MOST - 4, MOST - 4]
        groups.append(begin(10 * MOST))
        assert started(groups[-1]) == MOST - 1, "the shell itself counts"
    finally:
        for group in groups:
            os.killpg(group.pid, signal.SIGKILL)
            group.wait()


def test_in_the_machines_own_user_namespace_nothing_is_limited() -> None:
    """There all containers of one uid would count together."""
    done = subprocess.run(
        ["sh", "-c", "grep 'Max processes' /proc/self/limits"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: limit(1),
    )
    assert done.stdout.split()[2] != "1" or linux.in_own_user_namespace()
