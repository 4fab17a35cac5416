"""What is mounted where, as /proc/self/mountinfo tells. Pure: the text is an argument."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One mount. `root`: which folder of its file system is seen; `point`: where; `source`: what mount(2) was told."""

    id: int
    parent: int
    root: str
    point: str
    options: frozenset[str]
    shared: bool
    kind: str
    source: str

    @property
    def readonly(self) -> bool:
        return "ro" in self.options


def parse(text: str) -> tuple[Mount, ...]:
    """Return the mounts in the order of the text. Raise ValueError for what is no mountinfo."""
    return tuple(_parse_line(line) for line in text.splitlines())


def below(mounts: Iterable[Mount], path: str) -> tuple[Mount, ...]:
    """Return the mounts at `path` and below it; `path` is absolute and has no slash at its end."""
    return tuple(mount for mount in mounts if mount.point == path or mount.point.startswith(f"{path}/"))


def deepest_first(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    """Return the mounts so that none comes after one it lies upon: the order in which they can be taken away."""
    by_id = {mount.id: mount for mount in mounts}

    def depth(mount: Mount) -> int:
        seen = {mount.id}
        while (above := by_id.get(mount.parent)) is not None and above.id not in seen:
            seen.add(above.id)
            mount = above
        return len(seen)

    return tuple(sorted(by_id.values(), key=lambda mount: (-depth(mount), mount.point, mount.id)))


def _parse_line(line: str) -> Mount:
    left, separator, right = line.partition(" - ")
    fields, last = left.split(" "), right.split(" ")
    if not separator or len(fields) < 6 or len(last) < 3:
        raise ValueError(f"no line of mountinfo: {line!r}")
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        root=_plain(fields[3]),
        point=_plain(fields[4]),
        options=frozenset(fields[5].split(",")),
        shared=any(tag.startswith("shared:") for tag in fields[6:]),
        kind=last[0],
        source=_plain(last[1]),
    )


def _plain(field: str) -> str:
    """Undo the kernel's escapes (space, tab, newline, backslash, and # in newer kernels)."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)
