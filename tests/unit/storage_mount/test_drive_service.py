"""The Drive over a real folder and a real database, also while a runtime changes the folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import event

from quota.clock import FakeClock
from quota.sql import create_engine
from storage_mount import beneath, errors
from storage_mount.model import FileType, SortKey
from storage_mount.rows import new_id
from storage_mount.service import DriveService

NOTEBOOK = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}).encode()


@pytest.fixture
def drive(tmp_path: Path) -> DriveService:
    return DriveService(create_engine(f"sqlite:///{tmp_path}/drive.sqlite"), tmp_path, FakeClock())


def names(drive: DriveService, folder: str = "root", user: str = "ada") -> list[str]:
    return [entry.name for entry in drive.list_folder(user, folder, limit=1000).items]


def test_a_saved_file_is_what_the_next_read_returns_through_api_and_folder(drive: DriveService) -> None:
    entry = drive.create("ada", "root", "a.txt", FileType.FILE, b"one")
    entry = drive.write("ada", entry.id, b"two", if_match=entry.etag)
    assert drive.read("ada", entry.id)[0] == b"two"
    assert (drive.drive_folder("ada") / "a.txt").read_bytes() == b"two"


def test_a_stale_version_is_refused_and_nothing_changes(drive: DriveService) -> None:
    first = drive.create("ada", "root", "a.txt", FileType.FILE, b"one")
    drive.write("ada", first.id, b"two", if_match=first.etag)
    with pytest.raises(errors.Changed, match=r"yours v1, now v2"):
        drive.write("ada", first.id, b"three", if_match=first.etag)
    with pytest.raises(errors.IfMatchRequired):
        drive.write("ada", first.id, b"three", if_match=None)
    assert drive.read("ada", first.id)[0] == b"two"


def test_a_change_made_in_a_runtime_changes_the_etag(drive: DriveService) -> None:
    entry = drive.create("ada", "root", "a.txt", FileType.FILE, b"one")
    (drive.drive_folder("ada") / "a.txt").write_bytes(b"uno")
    assert drive.get("ada", entry.id).etag != entry.etag
    with pytest.raises(errors.Changed):
        drive.write("ada", entry.id, b"two", if_match=entry.etag)


def test_a_file_made_in_a_runtime_appears_and_keeps_its_id_when_renamed_or_moved_there(
    drive: DriveService,
) -> None:
    folder = drive.drive_folder("ada")
    (folder / "made.txt").write_text("x")
    entry = next(e for e in drive.list_folder("ada", "root").items if e.name == "made.txt")
    (folder / "sub").mkdir()
    (folder / "made.txt").rename(folder / "sub" / "renamed.txt")
    assert drive.get("ada", entry.id).path == "sub/renamed.txt"
    (folder / "sub").rename(folder / "other")
    assert drive.get("ada", entry.id).path == "other/renamed.txt"
    assert drive.list_folder("ada", drive.get("ada", entry.id).parent).items[0].id == entry.id


def test_a_file_replaced_by_a_program_keeps_its_id(drive: DriveService) -> None:
    entry = drive.create("ada", "root", "a.txt", FileType.FILE, b"one")
    folder = drive.drive_folder("ada")
    (folder / "tmp").write_text("two")
    (folder / "tmp").replace(folder / "a.txt")
    assert drive.read("ada", entry.id) == (b"two", drive.get("ada", entry.id))


def test_a_new_file_never_gets_the_id_of_a_deleted_one(drive: DriveService) -> None:
    folder = drive.drive_folder("ada")
    (folder / "a.txt").write_text("x")
    old = drive.list_folder("ada", "root").items[0].id
    for number in range(50):  # inodes are reused at once on many file systems
        for path in folder.iterdir():
            path.unlink()
        (folder / f"b{number}.txt").write_text("y")
        assert drive.list_folder("ada", "root").items[0].id != old
    with pytest.raises(errors.NotFound):
        drive.get("ada", old)


def test_not_yours_and_not_there_look_the_same(drive: DriveService) -> None:
    entry = drive.create("ada", "root", "a.txt", FileType.FILE, b"secret")
    refusals = []
    for user, file_id in (("bob", entry.id), ("bob", new_id()), ("ada", new_id())):
        with pytest.raises(errors.NotFound) as refused:
            drive.read(user, file_id)
        refusals.append((refused.value.code, str(refused.value)))
    assert len(set(refusals)) == 1
    assert names(drive, user="bob") == []


def test_rename_move_and_copy_keep_what_they_should(drive: DriveService) -> None:
    folder = drive.create("ada", "root", "Projects", FileType.FOLDER)
    entry = drive.create("ada", "root", "a.ipynb", FileType.NOTEBOOK)
    assert drive.change("ada", entry.id, name="b.ipynb", parent=folder.id).id == entry.id
    assert drive.ancestors("ada", entry.id) == [("root", "My Drive"), (folder.id, "Projects")]
    copy = drive.copy("ada", entry.id)
    assert (copy.name, copy.parent) == ("Copy of b.ipynb", folder.id)
    assert copy.id != entry.id
    tree = drive.copy("ada", folder.id)
    assert names(drive, tree.id) == ["b.ipynb", "Copy of b.ipynb"] or sorted(names(drive, tree.id)) == [
        "Copy of b.ipynb",
        "b.ipynb",
    ]
    with pytest.raises(errors.BadRequest, match="into itself"):
        drive.change("ada", folder.id, parent=folder.id)
    with pytest.raises(errors.NameTaken):
        drive.create("ada", "root", "projects".title(), FileType.FOLDER)


def test_names_a_person_can_not_tell_apart_are_taken(drive: DriveService) -> None:
    drive.create("ada", "root", "caf\u00e9.txt", FileType.FILE)
    with pytest.raises(errors.NameTaken):
        drive.create("ada", "root", "cafe\u0301.txt", FileType.FILE)


def test_trash_is_out_of_the_mounted_folder_and_comes_back_with_ids(drive: DriveService) -> None:
    folder = drive.create("ada", "root", "Projects", FileType.FOLDER)
    inner = drive.create("ada", folder.id, "a.txt", FileType.FILE, b"x")
    drive.trash("ada", folder.id)
    assert list(drive.drive_folder("ada").iterdir()) == []
    with pytest.raises(errors.NotFound):
        drive.get("ada", inner.id)
    assert [e.name for e in drive.list_trash("ada")] == ["Projects"]
    drive.create("ada", "root", "Projects", FileType.FOLDER)
    assert drive.restore("ada", folder.id).name == "Projects (1)"
    assert drive.read("ada", inner.id)[0] == b"x"
    drive.trash("ada", inner.id)
    drive.delete_forever("ada", inner.id)
    assert drive.list_trash("ada") == []


def test_untitled_notebooks_are_numbered_and_valid(drive: DriveService) -> None:
    made = [drive.create("ada", "root", None, FileType.NOTEBOOK) for _ in range(3)]
    assert [e.name for e in made] == ["Untitled0.ipynb", "Untitled1.ipynb", "Untitled2.ipynb"]
    document = json.loads(drive.read("ada", made[0].id)[0])
    assert (document["nbformat"], len(document["cells"])) == (4, 1)


def test_a_broken_notebook_is_kept_as_it_is_and_a_good_one_is_not_overwritten_by_it(
    drive: DriveService,
) -> None:
    broken = drive.upload("ada", "root", "broken.ipynb", [b'{"cells": 1'])
    assert drive.read("ada", broken.id)[0] == b'{"cells": 1'
    good = drive.create("ada", "root", "good.ipynb", FileType.NOTEBOOK, NOTEBOOK)
    with pytest.raises(errors.BadNotebook):
        drive.write(
            "ada",
            good.id,
            b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {"x": NaN}, "cells": []}',
            if_match=good.etag,
        )
    assert drive.read("ada", good.id)[0] == NOTEBOOK


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", "", "a\nb", "nb\u202e.ipynb", "x ", "x.", "a\0b", "\ud800", "n" * 300]
)
def test_a_bad_name_is_refused(drive: DriveService, name: str) -> None:
    with pytest.raises(errors.BadRequest):
        drive.create("ada", "root", name, FileType.FILE)
    assert names(drive) == []


def test_links_pipes_and_devices_are_neither_shown_nor_followed(drive: DriveService, tmp_path: Path) -> None:
    folder = drive.drive_folder("ada")
    entry = drive.create("ada", "root", "a.txt", FileType.FILE, b"x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (folder / "link").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    assert names(drive) == ["a.txt"]
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(outside / "secret.txt")
    with pytest.raises(errors.StorageError):
        drive.read("ada", entry.id)
    with pytest.raises(errors.StorageError):
        drive.write("ada", entry.id, b"y", if_match="*")
    assert (outside / "secret.txt").read_text() == "secret"


def test_a_folder_swapped_for_a_link_never_lets_a_path_out(drive: DriveService, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f.txt").write_text("outside")
    folder = drive.drive_folder("ada")
    (folder / "real").mkdir()
    (folder / "real" / "f.txt").write_text("inside")
    (folder / "link").symlink_to(outside)
    (folder / "sub").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for name in ("real", "link"):
                (folder / "sub").rename(folder / "kept")
                (folder / name).rename(folder / "sub")
                (folder / "sub").rename(folder / name)
                (folder / "kept").rename(folder / "sub")

    swapper = threading.Thread(target=swap)
    swapper.start()
    files = beneath.Folder(folder)
    seen = set()
    try:
        for _ in range(5000):
            try:
                seen.add(files.read("sub/f.txt")[0])
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.ELOOP, errno.EXDEV, errno.ENOTDIR, errno.EAGAIN)
    finally:
        stop.set()
        swapper.join()
    assert seen <= {b"inside"}


def test_a_process_killed_while_saving_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from storage_mount.beneath import Folder
files = Folder(Path({str(tmp_path)!r}))
n = 0
print("go", flush=True)
while True:
    n += 1
    files.write("f.bin", [bytes([n % 256]) * 300_000], replace=True)
"""
    for _ in range(15):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        while not (tmp_path / "f.bin").exists():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        raw = (tmp_path / "f.bin").read_bytes()
        assert len(raw) == 300_000
        assert len(set(raw)) == 1
        assert [n for n, _ in beneath.Folder(tmp_path).scan("")] == ["f.bin"]


def test_readers_beside_a_writer_never_see_half_a_file(drive: DriveService) -> None:
    entry = drive.create("ada", "root", "f.bin", FileType.FILE, b"\0" * 200_000)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 256
            drive.write("ada", entry.id, bytes([number]) * 200_000, if_match="*")

    writer = threading.Thread(target=write)
    writer.start()
    path = drive.drive_folder("ada") / "f.bin"
    try:
        for _ in range(200):
            raw = path.read_bytes()
            assert len(raw) == 200_000
            assert len(set(raw)) == 1
    finally:
        stop.set()
        writer.join()


def test_listing_is_sorted_folders_first_and_paged(drive: DriveService) -> None:
    for name in ("b10.txt", "b2.txt", "a.txt"):
        drive.create("ada", "root", name, FileType.FILE, name.encode())
    drive.create("ada", "root", "z", FileType.FOLDER)
    assert names(drive) == ["z", "a.txt", "b2.txt", "b10.txt"]
    page = drive.list_folder("ada", "root", sort=SortKey.SIZE, offset=1, limit=2)
    assert ([e.name for e in page.items], page.total) == (["a.txt", "b2.txt"], 4)


@pytest.mark.parametrize("sort", list(SortKey))
def test_a_page_of_a_large_folder_costs_as_many_queries_as_one_of_a_small_one(
    drive: DriveService, sort: SortKey
) -> None:
    asked: list[str] = []
    event.listen(drive._engine, "before_cursor_execute", lambda *call: asked.append(call[2]))

    def queries() -> int:
        drive.list_folder("ada", "root", sort=sort)  # what is new gets its row
        asked.clear()
        page = drive.list_folder("ada", "root", sort=sort)
        assert page.total == len(list(drive.drive_folder("ada").iterdir()))
        return len(asked)

    for i in range(10):
        (drive.drive_folder("ada") / f"{i}.txt").write_text("x")
    small = queries()
    for i in range(10, 400):
        (drive.drive_folder("ada") / f"{i}.txt").write_text("x")
    assert queries() == small


def test_search_finds_names_in_every_folder(drive: DriveService) -> None:
    folder = drive.create("ada", "root", "Deep", FileType.FOLDER)
    drive.create("ada", folder.id, "Mein Café.txt", FileType.FILE)
    assert [e.name for e in drive.search("ada", "CAFÉ mein")] == ["Mein Café.txt"]
    assert drive.search("bob", "mein") == []


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, "disk_full", "disk is full"),
        (errno.EDQUOT, "disk_full", "disk is full"),
        (errno.EROFS, "read_only", "Read-only file system"),
        (errno.EIO, "storage_error", "Input/output error"),
    ],
)
def test_a_disk_that_does_not_do_its_work_is_said_so_and_the_earlier_version_stays(
    drive: DriveService, monkeypatch: pytest.MonkeyPatch, number: int, code: str, words: str
) -> None:
    entry = drive.create("ada", "root", "a.txt", FileType.FILE, b"one")

    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(beneath.os, "fsync", fails)
    with pytest.raises(errors.StorageError) as refused:
        drive.write("ada", entry.id, b"two", if_match=entry.etag)
    assert refused.value.code == code
    assert words in refused.value.message
    monkeypatch.undo()
    assert drive.read("ada", entry.id)[0] == b"one"
    assert sorted(p.name for p in drive.drive_folder("ada").iterdir()) == ["a.txt"]


def test_an_idempotency_key_is_good_for_one_request(drive: DriveService) -> None:
    drive.remember_key("ada", "k", b"body", "id1")
    assert drive.find_key("ada", "k", b"body") == "id1"
    assert drive.find_key("bob", "k", b"body") is None
    with pytest.raises(errors.KeyReused):
        drive.find_key("ada", "k", b"other")
