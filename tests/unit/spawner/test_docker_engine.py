"""What is said of an engine that does not answer, and which of its refusals mean what."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest
from docker.errors import APIError

from spawner.docker import engine as docker_engine
from spawner.docker.devices import NO_GPUS, told_refusal
from spawner.docker.engine import Engine, Unreachable
from spawner.docker.layers import is_refusal


def asks(url: str) -> None:
    async def ask() -> None:
        await Engine(url).look(lambda api: api.info())

    asyncio.run(ask())


def test_an_engine_that_takes_calls_and_answers_none_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "LOOK_SECONDS", 0.2)
    path, taken = str(tmp_path / "engine.sock"), []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        threading.Thread(target=lambda: taken.append(listener.accept()[0]), daemon=True).start()
        with pytest.raises(Unreachable, match="does not answer: it is silent") as told:
            asks(f"unix://{path}")
    assert told.value.code == "no_answer"
    assert len(taken) == 1
    taken[0].close()


def test_an_engine_that_is_not_there_is_told_with_why(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"does not answer: .*No such file") as told:
        asks(f"unix://{tmp_path}/none.sock")
    assert told.value.code == "no_answer"


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', NO_GPUS),
        (
            'error gathering device information while adding custom device "/dev/accel0": no such file or directory',
            "The device /dev/accel0 is not on the machine of the Docker engine.",
        ),
        (
            "stderr: nvidia-container-cli: device error: GPU-1-2: unknown device: unknown",
            "The driver of this machine's GPUs does not know GPU-1-2.",
        ),
        ("no space left on device", None),
    ],
)
def test_what_a_refusal_of_devices_means(why: str, told: str | None) -> None:
    assert told_refusal(why) == told


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("--storage-opt is supported only for overlay over xfs with 'pquota' mount option", True),
        ("chown /data/btrfs/subvolumes/x: disk quota exceeded", False),
        ("no such image: x", False),
    ],
)
def test_only_a_refused_limit_makes_a_container_without_one(why: str, expected: bool) -> None:
    assert is_refusal(APIError("refused", explanation=why)) is expected
