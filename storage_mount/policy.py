"""Rules for names and paths, new names, search and order. Pure.

A name made through the API is NFC text that a person can see and type: no control, direction or invisible characters, no
slash or backslash, no space at either end, no dot at the end, at most 255 bytes. Files made inside a runtime may break these
rules; they are listed as they are, and can be renamed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator

from storage_mount.errors import BadRequest
from storage_mount.model import NOTEBOOK_SUFFIX

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4000  # PATH_MAX is 4096 with the terminating NUL; leaves room for the mount point's own name
MAX_NAMES_TRIED = 100_000

_JOINERS = "\u200c\u200d"
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180e\u2800\u3164\uffa0"
)  # letters and marks that draw nothing
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_DIGITS = re.compile(r"([0-9]+)")


def check_name(name: str) -> str:
    """Return `name` in NFC, or raise BadRequest `bad_file_name` or `name_too_long`."""
    if not name:
        raise _bad_name("File name is empty.")
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise _bad_name("File name contains an unpaired surrogate.")
    if len(name) > 4 * MAX_NAME_BYTES:  # before the work below grows with it
        raise _too_long()
    name = unicodedata.normalize("NFC", name)
    if name in (".", ".."):
        raise _bad_name("'.' and '..' are not file names.")
    if "/" in name or "\\" in name:
        raise _bad_name("File name contains a slash or a backslash.")
    if any(_is_hidden(name, i) for i in range(len(name))):
        raise _bad_name("File name contains a control or invisible character.")
    if name != name.strip():
        raise _bad_name("File name begins or ends with a space.")
    if name.endswith("."):
        raise _bad_name("File name ends with a dot.")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise _too_long()
    return name


def _bad_name(message: str) -> BadRequest:
    return BadRequest(message, code="bad_file_name", field="name")


def _too_long() -> BadRequest:
    return BadRequest(f"File name is longer than {MAX_NAME_BYTES} bytes.", code="name_too_long", field="name")


def _is_hidden(name: str, i: int) -> bool:
    c = name[i]
    if (
        c in _JOINERS
    ):  # meant between letters of Persian or Indic scripts and inside emoji, a disguise elsewhere
        return not (0 < i < len(name) - 1 and _joins(name[i - 1]) and _joins(name[i + 1]))
    return c in _BLANK or unicodedata.category(c) in _HIDDEN_CATEGORIES


def _joins(c: str) -> bool:
    return not c.isascii() and unicodedata.category(c)[0] in "LMS" and c not in _BLANK


def equivalence_key(name: str) -> str:
    """Return what two names share when a person cannot tell them apart by their spelling in Unicode."""
    folded = unicodedata.normalize("NFC", name)
    return "".join(c for c in folded if c not in _JOINERS)


def is_text(name: str) -> bool:
    """Return whether a name found on disk is UTF-8 text; others can be neither shown nor stored, so they are not listed."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def join(parent: str, name: str) -> str:
    """Return the path of `name` in the folder `parent`; raise BadRequest `path_too_long`."""
    path = f"{parent}/{name}" if parent else name
    if len(path.encode()) > MAX_PATH_BYTES:
        raise BadRequest(
            f"The path is longer than {MAX_PATH_BYTES} bytes.", code="path_too_long", field="name"
        )
    return path


def split(path: str) -> tuple[str, str]:
    """Return (`parent path`, `name`)."""
    parent, _, name = path.rpartition("/")
    return parent, name


def clean_path(path: str) -> str | None:
    """Return a path given by a client in our form, or None when it names nothing inside a drive."""
    parts = [p for p in path.strip("/").split("/") if p]
    if not all(is_text(p) and "\0" not in p and p not in (".", "..") for p in parts):
        return None
    out = "/".join(parts)
    return out if len(out.encode()) <= MAX_PATH_BYTES else None


def is_inside(path: str, folder: str) -> bool:
    """Return whether `path` is `folder` itself or lies below it. The drive's own path is empty."""
    return not folder or path == folder or path.startswith(folder + "/")


# -- new names ------------------------------------------------------------------------------------------------------


def free_name(candidates: Iterable[str], taken: Collection[str]) -> str:
    """Return the first candidate that looks like none of `taken`."""
    keys = {equivalence_key(t) for t in taken}
    for name in candidates:
        if equivalence_key(name) not in keys:
            return name
    raise BadRequest("No free name is left in this folder.", code="bad_file_name", field="name")


def untitled_notebooks() -> Iterator[str]:
    """Yield `Untitled0.ipynb`, `Untitled1.ipynb`, and so on."""
    return (f"Untitled{n}{NOTEBOOK_SUFFIX}" for n in range(MAX_NAMES_TRIED))


def numbered(name: str) -> Iterator[str]:
    """Yield `x.txt`, `x (1).txt`, `x (2).txt` and so on, each at most 255 bytes."""
    yield name
    stem, suffix = _split_suffix(name)
    for n in range(1, MAX_NAMES_TRIED):
        tail = f" ({n}){suffix}"
        yield _cut(stem, MAX_NAME_BYTES - len(tail.encode())) + tail


def copy_of(name: str) -> str:
    """Return `Copy of x.ipynb`, at most 255 bytes."""
    stem, suffix = _split_suffix(f"Copy of {name}")
    return _cut(stem, MAX_NAME_BYTES - len(suffix.encode())) + suffix


def _split_suffix(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    if not stem.strip(".") or not dot or not suffix or len(suffix) > 16:
        return name, ""
    return stem, dot + suffix


def _cut(text: str, max_bytes: int) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore").rstrip()


# -- search and order -----------------------------------------------------------------------------------------------


def matcher(text: str) -> Callable[[str], bool]:
    """Return a test for names that contain every word of `text`, whatever the case and Unicode form."""
    words = _fold(text).split()
    return lambda name: all(word in folded for folded in (_fold(name),) for word in words)


def name_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key in which `Untitled2` comes before `Untitled10`; the name itself breaks ties."""
    parts = _DIGITS.split(_fold(name))
    return [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts if p], name


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
