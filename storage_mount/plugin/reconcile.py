"""What is to be bound and unbound so that every volume shows the drives its pod may see. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MOST_DRIVES = 16
NAME = re.compile(r"[0-9a-f]{12}")
DRIVE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KEYS = {"name", "drive", "readonly"}


@dataclass(frozen=True)
class Drive:
    """A drive as a pod's annotation asks for it: seen as `name`, the folder of the drive `id`."""

    name: str
    id: str
    readonly: bool


@dataclass(frozen=True)
class Bound:
    """A mount inside a volume; `id` is None for what is no drive of ours. `name` is its path below the volume."""

    name: str
    id: str | None
    readonly: bool


@dataclass(frozen=True)
class Volume:
    """The volume of one pod on this node, with what is bound in it now."""

    pod: str
    place: str
    bound: tuple[Bound, ...]


@dataclass(frozen=True)
class Unbind:
    """Take away what is bound at `name`."""

    volume: Volume
    name: str


@dataclass(frozen=True)
class Bind:
    """Bind a drive."""

    volume: Volume
    drive: Drive


Step = Unbind | Bind


def parse_drives(annotation: str) -> tuple[tuple[Drive, ...], tuple[str, ...]]:
    """Return the drives an annotation asks for, and a sentence for each thing in it that is refused."""
    if not annotation:
        return (), ()
    try:
        entries = json.loads(annotation)
    except (ValueError, RecursionError):
        return (), ("The annotation is not JSON.",)
    if not isinstance(entries, list):
        return (), ("The annotation is not a list.",)
    drives: dict[str, Drive] = {}
    problems = []
    for entry in entries[:MOST_DRIVES]:
        drive = _drive(entry)
        if drive is None:
            problems.append("An entry of the annotation is no drive.")
        elif drive.name in drives:
            problems.append(f"The name {drive.name} is asked for twice.")
        else:
            drives[drive.name] = drive
    if len(entries) > MOST_DRIVES:
        problems.append(f"The annotation asks for more than {MOST_DRIVES} drives.")
    return tuple(drives.values()), tuple(problems)


def steps(wanted: Mapping[str, Iterable[Drive]], volumes: Iterable[Volume]) -> list[Step]:
    """Return what to do, what is taken away first. `wanted`: drives by pod uid; a pod that is not there gets none."""
    unbinds: list[Step] = []
    binds: list[Step] = []
    for volume in volumes:
        drives = {drive.name: drive for drive in wanted.get(volume.pod, ())}
        right = set()
        for bound in volume.bound:
            drive = drives.get(bound.name)
            alone = sum(other.name == bound.name for other in volume.bound) == 1
            if drive is not None and alone and (drive.id, drive.readonly) == (bound.id, bound.readonly):
                right.add(bound.name)
        wrong = {bound.name for bound in volume.bound} - right
        unbinds += [Unbind(volume, name) for name in sorted(wrong, reverse=True)]
        binds += [Bind(volume, drive) for name, drive in drives.items() if name not in right]
    return unbinds + binds


def _drive(entry: object) -> Drive | None:
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        return None
    name, drive, readonly = entry["name"], entry["drive"], entry["readonly"]
    if not isinstance(name, str) or not isinstance(drive, str) or not isinstance(readonly, bool):
        return None
    if not NAME.fullmatch(name) or not DRIVE_ID.fullmatch(drive):
        return None
    return Drive(name, drive, readonly)
