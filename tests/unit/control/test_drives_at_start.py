"""Consent where a Drive can only be there from a runtime's start: asked for once, kept for the notebook, taken back when it is taken away."""

from __future__ import annotations

import os
from typing import Any

import pytest
from control_support import World

from storage_mount import errors


@pytest.fixture
def at_start(here: World) -> World:
    here.control.drives_at_start.needed = here.backend.only_from_start = True
    return here


async def again(here: World, file_id: str = "nb-ada") -> dict[str, Any]:
    """End what runs and start the notebook's next runtime."""
    for session in here.control.sessions.ledger.live("ada"):
        await here.call("ada", "DELETE", f"runtimes/{session.id}")
    return await here.ready(file_id=file_id)


def started_with(here: World, runtime: dict[str, Any]) -> Any:
    return here.hub.options[runtime["id"]]["drive"]


async def mounts(here: World, runtime: dict[str, Any]) -> list[Any]:
    listed: list[Any] = (await here.call("ada", "GET", f"runtimes/{runtime['id']}/mounts"))[1]["items"]
    return listed


async def test_no_runtime_starts_with_a_drive_before_its_owner_has_agreed(at_start: World) -> None:
    runtime = await at_start.ready()
    assert started_with(at_start, runtime) is None
    assert await mounts(at_start, runtime) == []
    assert started_with(at_start, await again(at_start)) is None


async def test_who_agrees_is_told_to_restart_and_the_next_runtimes_have_the_drive_until_it_is_taken_away(
    at_start: World,
) -> None:
    runtime = await at_start.ready()
    wanted = {"path": "/content/my/drive", "readonly": True}
    status, refusal = await at_start.call("ada", "POST", f"runtimes/{runtime['id']}/mounts", wanted)
    assert (status, refusal["code"]) == (409, "restart_needed")
    assert await mounts(at_start, runtime) == []
    folder = at_start.control.drive.drive_folder("ada")
    for _ in range(2):  # what a runtime had, the next one has
        runtime = await again(at_start)
        assert started_with(at_start, runtime) == {"id": folder.name, "readonly": True}
        assert await mounts(at_start, runtime) == [wanted]
    address = f"runtimes/{runtime['id']}/mounts?path=/content/my/drive"
    assert (await at_start.call("ada", "DELETE", address))[0] == 200
    for _ in range(2):
        assert started_with(at_start, await again(at_start)) is None


async def test_consent_is_for_one_notebook_and_one_person(at_start: World) -> None:
    runtime = await at_start.ready()
    await at_start.call("ada", "POST", f"runtimes/{runtime['id']}/mounts", {})
    assert started_with(at_start, await again(at_start, "nb-two")) is None
    assert started_with(at_start, await at_start.ready("bob", file_id="nb-bob")) is None
    assert started_with(at_start, await again(at_start)) is not None


async def test_consent_can_be_taken_back_before_the_restart(at_start: World) -> None:
    runtime = await at_start.ready()
    address = f"runtimes/{runtime['id']}/mounts"
    await at_start.call("ada", "POST", address, {})
    assert (await at_start.call("ada", "DELETE", address))[0] == 404
    assert started_with(at_start, await again(at_start)) is None


async def test_where_drives_come_into_running_runtimes_consent_is_for_one_runtime(here: World) -> None:
    runtime = await here.ready()
    assert (await here.call("ada", "POST", f"runtimes/{runtime['id']}/mounts", {}))[0] == 201
    runtime = await again(here)
    assert started_with(here, runtime) is None
    assert await mounts(here, runtime) == []


def _fails(error: errors.StorageError) -> Any:
    def drive_folder(_user: str) -> Any:
        raise error

    return drive_folder


@pytest.mark.parametrize(
    ("error", "status", "code", "words"),
    [
        (errors.DiskFull(), 507, "disk_full", "disk is full"),
        (
            errors.Unavailable(
                f"The Drive's disk does not do its work ({os.strerror(30)}).", code="read_only"
            ),
            503,
            "read_only",
            "Read-only file system",
        ),
    ],
    ids=["full", "read-only"],
)
async def test_a_drive_whose_disk_does_not_do_its_work_is_said_so(
    at_start: World,
    monkeypatch: pytest.MonkeyPatch,
    error: errors.StorageError,
    status: int,
    code: str,
    words: str,
) -> None:
    runtime = await at_start.ready()
    address = f"runtimes/{runtime['id']}/mounts"
    with monkeypatch.context() as broken:
        broken.setattr(at_start.control.drive, "drive_folder", _fails(error))
        answered, refusal = await at_start.call("ada", "POST", address, {})
    assert (answered, refusal["code"]) == (status, code)
    assert words in refusal["message"]

    await at_start.call("ada", "POST", address, {})  # now it is agreed to
    await at_start.call("ada", "DELETE", f"runtimes/{runtime['id']}")
    with monkeypatch.context() as broken:
        broken.setattr(at_start.control.drive, "drive_folder", _fails(error))
        _, made = await at_start.call("ada", "POST", "runtimes", {"file_id": "nb-ada"})
        failed = await at_start.until("ada", made["id"], lambda m: m["state"] == "failed")
    assert failed["reason"]["code"] == code
    assert words in failed["reason"]["message"]
