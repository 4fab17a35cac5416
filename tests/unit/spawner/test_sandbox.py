"""The command lines of the sandbox: what is visible inside, and how."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from spawner.local.sandbox import Layout, Machine, Rung, bubblewrap, environment, no_apt

MACHINE = Machine(
    links={"/bin": "usr/bin", "/lib32": ""},
    resolv_conf="/run/systemd/resolve/stub-resolv.conf",
    hidden={"/etc/shadow": False, "/etc/ssh": True},
    proc={"/proc/kcore": False, "/proc/bus": True},
    named=("/etc/hosts",),
)


def layout(rung: Rung, *, base: str = "/usr") -> Layout:
    return Layout(Path("/state/runtimes/r-1"), Path("/cache/env"), Path("/cache/code/1"), Path(base), rung)


def arguments(rung: Rung, *, base: str = "/usr", mask: bool = False, devices: tuple[str, ...] = ()) -> str:
    shown = ((Path("/sys/fs/cgroup/memory/minicolab/r-1"), "/sys/fs/cgroup/memory"),)
    made = bubblewrap(layout(rung, base=base), "r-1", MACHINE, devices=devices, shown=shown, mask=mask)
    return " ".join(made) + " "


def test_namespaces_see_overlays_and_bubblewrap_the_read_only_system() -> None:
    assert "--bind /state/runtimes/r-1/merged/usr /usr " in arguments(Rung.NAMESPACES)
    assert "--ro-bind /usr /usr --ro-bind /etc /etc " in arguments(Rung.BUBBLEWRAP)
    assert (
        "--ro-bind /cache/env /cache/env --ro-bind /cache/code/1 /cache/code/1 "
        "--bind /state/runtimes/r-1/venv /opt/runtime "
    ) in arguments(Rung.BUBBLEWRAP)


@pytest.mark.parametrize("rung", [Rung.NAMESPACES, Rung.BUBBLEWRAP])
def test_proc_is_read_only_after_all_of_it_that_tells_of_the_machine_is_covered(rung: Rung) -> None:
    text = arguments(rung)
    covered = text.index("--ro-bind /dev/null /proc/kcore "), text.index("--tmpfs /proc/bus ")
    assert text.index("--proc /proc ") < min(covered) < max(covered) < text.index("--remount-ro /proc ")


def test_only_granted_devices_are_there() -> None:
    assert "nvidia" not in arguments(Rung.NAMESPACES)
    assert "--dev-bind-try /dev/nvidia0 /dev/nvidia0 " in arguments(
        Rung.NAMESPACES, devices=("/dev/nvidia0",)
    )


def test_hidden_configuration_is_masked_where_no_overlay_took_it_away() -> None:
    assert "/etc/shadow" not in arguments(Rung.NAMESPACES)
    masked = arguments(Rung.BUBBLEWRAP, mask=True)
    assert "--ro-bind /dev/null /etc/shadow " in masked
    assert "--tmpfs /etc/ssh " in masked


def test_limits_are_shown_read_only() -> None:
    assert "--ro-bind-try /sys/fs/cgroup/memory/minicolab/r-1 /sys/fs/cgroup/memory " in arguments(
        Rung.NAMESPACES
    )


def test_an_interpreter_below_a_home_appears_after_the_private_home() -> None:
    text = arguments(Rung.NAMESPACES, base="/root/.pyenv/versions/3.11.7")
    assert text.index("/root ") < text.index("--ro-bind /root/.pyenv/versions/3.11.7 ")
    assert ".pyenv" not in arguments(Rung.NAMESPACES)


@pytest.mark.parametrize("rung", [Rung.NAMESPACES, Rung.BUBBLEWRAP])
def test_everything_dies_with_its_parent_in_namespaces_of_its_own_and_without_powers(rung: Rung) -> None:
    text = arguments(rung)
    for flag in ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--cap-drop ALL"):
        assert f"{flag} " in text
    for capability in (
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_NET_ADMIN",
        "CAP_MKNOD",
        "CAP_DAC_READ_SEARCH",
    ):
        assert capability not in text


def test_the_environments_own_programs_come_first_and_what_is_given_wins() -> None:
    env = environment(layout(Rung.NAMESPACES), {"MINICOLAB_USER": "ada", "LANG": "de_DE.UTF-8"})
    assert env["PATH"].startswith("/cache/env/bin:")
    assert (env["HOME"], env["MINICOLAB_ROOT"], env["LANG"]) == ("/root", "/content", "de_DE.UTF-8")
    plain = environment(layout(Rung.PLAIN), {"MINICOLAB_USER": "ada"})
    assert plain["HOME"] == "/state/runtimes/r-1/home"
    assert plain["MINICOLAB_RUNTIME_DIR"] == "/tmp/minicolab-r-1"


def test_apt_s_stand_in_is_a_program_that_says_why_and_fails() -> None:
    done = subprocess.run(["/bin/sh", "-c", no_apt("because")], capture_output=True, text=True, check=False)
    assert done.returncode == 100
    assert done.stderr.startswith("apt can not install in this runtime: because. ")
    assert done.stderr.count("\n") == 1
