"""Files between this runtime and the person at the page."""

from __future__ import annotations

import os
from pathlib import Path

from minicolab_runtime import page


def upload(target_dir: str = "") -> dict[str, bytes]:
    """Let the user pick files; save them in `target_dir` (default: the working folder); return their bytes by name.

    A name that is taken becomes `name (1).ext`. Raises MessageError when the page cannot upload.
    """
    page.require("files_upload", "files.upload()")
    return {name: Path(path).read_bytes() for name, path in _received(target_dir, multiple=True).items()}


def upload_file(filename: str) -> None:
    """Let the user pick exactly one file and save it as `filename`."""
    page.require("files_upload", "files.upload_file()")
    received = _received("", multiple=False)
    if len(received) != 1:
        raise ValueError("Expected exactly one uploaded file.")
    target = Path(filename)
    Path(next(iter(received.values()))).replace(target)
    print(f"Saved {next(iter(received))} to {target.absolute()}")


def download(filename: str) -> None:
    """Let the page save `filename` on the user's computer. Raises FileNotFoundError when there is no such file."""
    path = Path(filename)
    if not path.exists():
        raise FileNotFoundError(f"Cannot find file: {filename}")
    page.require("files_download", "files.download()")
    page.send("files_download", {**_place(path), "size": path.stat().st_size})


def view(filepath: str) -> None:
    """Open a file, or a folder in the file list, in the page."""
    path = Path(filepath)
    if not path.exists():
        raise FileNotFoundError(f"Cannot find file: {filepath}")
    page.require("files_view", "files.view()")
    page.send("files_view", {**_place(path), "directory": path.is_dir()})


def _received(target_dir: str, multiple: bool) -> dict[str, str]:
    """Return name → path of what the page put into a fresh folder, moved to where it belongs.

    The page stores the files over HTTP (Contents API, below the runtime's root) and replies with their paths there.
    """
    reply = page.ask("files_upload", {"multiple": multiple}, timeout_sec=None)
    target = Path(target_dir) if target_dir else Path.cwd()
    target.mkdir(parents=True, exist_ok=True)
    saved: dict[str, str] = {}
    for entry in (reply or {}).get("files", []):
        name = Path(str(entry["name"])).name
        free = _free_name(target, name)
        (_root() / str(entry["path"]).lstrip("/")).replace(free)
        if multiple:
            print(f"Saving {name} to {free.name}")
        saved[free.name] = str(free)
    return saved


def _free_name(folder: Path, name: str) -> Path:
    path, number = folder / name, 0
    while path.exists():
        number += 1
        path = folder / f"{Path(name).stem} ({number}){Path(name).suffix}"
    return path


def _place(path: Path) -> dict[str, str]:
    """Return how the page reaches a file: its path below the server's root."""
    absolute = path.absolute()
    try:
        below = absolute.relative_to(_root())
    except ValueError:
        raise ValueError(
            f"{absolute} lies outside {_root()}, where the page cannot reach it; copy it there first."
        ) from None
    return {"name": absolute.name, "path": below.as_posix()}


def _root() -> Path:
    return Path(os.environ.get("MINICOLAB_ROOT", "/content"))
