"""`minicolab up`, `status`, `doctor` and `down` on real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest
import requests

from hub.installation import read_holder
from support.patience import PATIENCE, until
from support.service import DEFAULT_CONFIG, Running, free_port, run_command, running


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> object:
    with running(tmp_path_factory.mktemp("up") / "state") as service:
        service.add_user("ada")
        yield service


def test_a_second_up_on_the_same_state_refuses_and_names_the_holder(own: Running) -> None:
    second = run_command("up", "--state", str(own.state), "--port", str(free_port()), check=False)
    assert second.returncode == 75
    holder = read_holder(own.state)
    assert holder is not None
    assert str(holder.pid) in second.stderr


def test_the_first_link_signs_the_first_admin_in_once(own: Running) -> None:
    browser = requests.Session()
    first = browser.get(own.ready, allow_redirects=False, timeout=PATIENCE)
    assert (first.status_code, first.headers["Location"]) == (302, "/drive")
    assert browser.get(f"{own.app}/hub/account", timeout=PATIENCE).status_code == 200
    assert requests.get(own.ready, allow_redirects=False, timeout=PATIENCE).status_code == 403


def test_an_account_without_a_password_is_opened_by_its_link(own: Running) -> None:
    link = own.command("user", "add", "eve", "--link").stdout.splitlines()[-1]
    browser = requests.Session()
    first = browser.get(link, allow_redirects=False, timeout=PATIENCE)
    assert (first.status_code, first.headers["Location"]) == (302, "/drive")
    assert requests.get(link, allow_redirects=False, timeout=PATIENCE).status_code == 403


def test_status_tells_machines_and_people(own: Running) -> None:
    report = json.loads(own.command("status", "--json").stdout)
    assert report["running"] is True
    assert set(report["services"].values()) == {"ok"}
    assert set(report["processes"]) == {"proxy", "hub", "documents", "control"}
    assert "Running at" in own.command("status").stdout


def test_doctor_names_the_sandbox_and_finds_nothing_missing(own: Running) -> None:
    done = own.command("doctor")
    assert "isolation:" in done.stdout
    assert "✗" not in done.stdout


@pytest.mark.parametrize("name", ["hub", "documents", "control", "proxy"])
def test_a_killed_process_comes_back_and_the_service_answers_again(own: Running, name: str) -> None:
    holder = read_holder(own.state)
    assert holder is not None
    before = json.loads(own.command("status", "--json").stdout)
    until(lambda: _pids_of(own, name), f"{name} does not run")
    (pid,) = _pids_of(own, name)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not _exists(pid))
    until(lambda: _pids_of(own, name) and own.answers("ada"), "the service did not answer again")
    assert before["running"]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _pids_of(service: Running, name: str) -> list[int]:
    found = []
    module = {"hub": "hub.jupyterhub_process", "documents": "hub.documents", "control": "hub.control"}.get(
        name
    )
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if module is not None and module.encode() in words and str(service.state).encode() in words:
            found.append(int(folder.name))
        if (
            module is None
            and any(b"configurable-http-proxy" in w for w in words)
            and str(service.port).encode() in words
        ):
            found.append(int(folder.name))
    return found


def test_two_installations_run_side_by_side_and_down_ends_one_of_them(own: Running, tmp_path: Path) -> None:
    with running(tmp_path / "other") as other:
        assert requests.get(other.url + "/services/control/healthz", timeout=PATIENCE).status_code == 200
        pids = list(json.loads(other.command("status", "--json").stdout)["processes"].values())
        other.command("down")
        assert read_holder(other.state) is None
        assert not any(_exists(pid) for pid in pids)
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", other.port)) != 0
    assert requests.get(own.url + "/services/control/healthz", timeout=PATIENCE).status_code == 200


def test_a_broken_settings_file_starts_nothing(tmp_path: Path) -> None:
    config = tmp_path / "minicolab.yaml"
    config.write_text("quota: {max_liftime: 3h}\n")
    done = run_command("up", "--state", str(tmp_path / "state"), "--config", str(config), check=False)
    assert done.returncode == 78
    assert "minicolab.yaml:1: unknown key 'quota.max_liftime' (did you mean 'max_lifetime'?)" in done.stderr


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        done = run_command("up", "--state", str(tmp_path / "state"), "--port", str(port), check=False)
    assert done.returncode == 75
    assert f"Port {port} is in use" in done.stderr


def test_ctrl_c_ends_everything_it_started(tmp_path: Path) -> None:
    import subprocess

    from support.service import BIN

    config = tmp_path / "minicolab.yaml"
    config.write_text(DEFAULT_CONFIG)
    command = [
        BIN / "minicolab",
        "up",
        "--state",
        tmp_path / "state",
        "--port",
        str(free_port()),
        "--config",
        config,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Ready: ")
    holder = read_holder((tmp_path / "state").resolve())
    assert holder is not None
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert not any(_exists(pid) for pid in holder.processes.values())
