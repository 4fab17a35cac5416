"""The Drive: files with ids over a folder that runtimes may change at any time.

Every method looks at the folder first and brings the rows into agreement, then acts. Methods are synchronous and safe to call
from several threads; one process at a time owns a drive (the documents service).

```
service      look, read, make, change, copy
 ├─ trash    out of reach, and back      ├─ keys    idempotency      └─ drives    one drive at a time
     └─ rows     ids in agreement with the folder, the same files after a rename in a runtime
         └─ sql · beneath
```
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from storage_mount import errors, notebook, policy
from storage_mount.beneath import Facts
from storage_mount.copying import copy
from storage_mount.faults import file_errors
from storage_mount.keys import Keys
from storage_mount.model import ROOT_ID, ROOT_NAME, FileEntry, FileType, Order, Page, Role, SortKey, type_of
from storage_mount.rows import Rows, etag, utc
from storage_mount.trash import Trash

SEARCH_LIMIT = 200


class DriveService(Trash, Keys):
    """The files of every user."""

    # -- looking ----------------------------------------------------------------------------------------------

    def role_of(self, user: str, owner: str) -> Role | None:
        """Return what `user` may do with the files of `owner`, None when they may not know of them."""
        return Role.OWNER if user == owner else None

    def get(self, user: str, file_id: str) -> FileEntry:
        """Return a file. Raise NotFound, InTrash."""
        with self._rows(user) as rows:
            if file_id == ROOT_ID:
                return rows.root_entry()
            row, facts = rows.find(file_id)
            return rows.entry(row, facts)

    def ancestors(self, user: str, file_id: str) -> list[tuple[str, str]]:
        """Return (id, name) of the folders above a file, from the drive down."""
        with self._rows(user) as rows:
            out = [(ROOT_ID, ROOT_NAME)]
            if file_id == ROOT_ID:
                return []
            row, _ = rows.find(file_id)
            parts = row.path.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                path = "/".join(parts[:depth])
                folder = rows.at(path, rows.drive.files.facts(path))
                out.append((folder.id, parts[depth - 1]))
            return out

    def list_folder(
        self,
        user: str,
        folder_id: str,
        *,
        sort: SortKey = SortKey.NAME,
        order: Order = Order.ASC,
        offset: int = 0,
        limit: int = 100,
    ) -> Page:
        """Return a page of a folder: folders first, then by `sort`. Raise NotFound, BadRequest `not_a_folder`."""
        with self._rows(user) as rows:
            path = rows.folder_path(folder_id)
            found = _readable(rows, path)
            created = (
                {row.path: utc(row.created) for row in rows.all_at(found)} if sort is SortKey.CREATED else {}
            )
            shown = _sorted(found, sort, order, created)[offset : offset + limit]
            return Page(tuple(rows.entries(shown)), len(found), offset, limit)

    def recent(self, user: str, limit: int = 50) -> list[FileEntry]:
        """Return the files changed last."""
        with self._rows(user) as rows:
            found = [(path, facts) for path, facts in _visible(rows) if not facts.is_folder]
            found.sort(key=lambda at: at[1].mtime_ns, reverse=True)
            return rows.entries(found[:limit])

    def search(self, user: str, text: str) -> list[FileEntry]:
        """Return what has all words of `text` in its name, by name."""
        wanted = policy.matcher(text)
        with self._rows(user) as rows:
            found = [(path, facts) for path, facts in _visible(rows) if wanted(policy.split(path)[1])]
            found.sort(key=lambda at: policy.name_key(policy.split(at[0])[1]))
            return rows.entries(found[:SEARCH_LIMIT])

    # -- reading ----------------------------------------------------------------------------------------------

    def open_read(self, user: str, file_id: str) -> tuple[int, FileEntry]:
        """Return an open file descriptor (the caller closes it) and the entry it belongs to. Raise NotFound, BadRequest."""
        with self._rows(user) as rows:
            row, _ = rows.find(file_id)
            fd, facts = rows.drive.files.open_file(row.path)
            return fd, rows.entry(row, facts)

    def read(self, user: str, file_id: str) -> tuple[bytes, FileEntry]:
        """Return the content of a file. Raise NotFound, BadRequest."""
        fd, entry = self.open_read(user, file_id)
        with open(fd, "rb") as file:  # noqa: PTH123  # a descriptor has no path
            return file.read(), entry

    # -- changing ---------------------------------------------------------------------------------------------

    def create(
        self, user: str, parent: str, name: str | None, kind: FileType, content: bytes | None = None
    ) -> FileEntry:
        """Make a file or folder. A notebook without a name becomes `Untitled0.ipynb`. Raise NameTaken, BadNotebook..."""
        with self._rows(user) as rows:
            folder = rows.folder_path(parent)
            taken = rows.drive.files.names(folder)
            if name is None:
                names = (
                    policy.untitled_notebooks()
                    if kind is FileType.NOTEBOOK
                    else policy.numbered("Untitled folder" if kind is FileType.FOLDER else "Untitled")
                )
                name = policy.free_name(names, taken)
            name = policy.check_name(name)
            if kind is FileType.NOTEBOOK and not name.lower().endswith(".ipynb"):
                name = policy.check_name(name + ".ipynb")
            _refuse_taken(name, taken)
            path = policy.join(folder, name)
            if kind is FileType.FOLDER:
                facts = rows.drive.files.make_folder(path)
            else:
                if type_of(name, is_folder=False) is FileType.NOTEBOOK:
                    if content is None:
                        content = notebook.new_notebook(name, secrets.token_hex(6))
                    else:
                        notebook.check(content)
                facts = rows.drive.files.write(path, [content or b""], replace=False)
            return rows.entry(rows.at(path, facts), facts)

    def upload(self, user: str, parent: str, name: str, chunks: Iterable[bytes]) -> FileEntry:
        """Make a file from a stream; a taken name gets a number. What is not a good notebook is stored all the same."""
        with self._rows(user) as rows:
            folder = rows.folder_path(parent)
            name = policy.free_name(policy.numbered(policy.check_name(name)), rows.drive.files.names(folder))
            path = policy.join(folder, name)
        with file_errors():
            facts = rows.drive.files.write(path, chunks, replace=False)
        with self._rows(user) as rows:
            return rows.entry(rows.at(path, facts), facts)

    def write(self, user: str, file_id: str, content: bytes, *, if_match: str | None) -> FileEntry:
        """Replace a file's content, durably. Raise Changed, IfMatchRequired, BadNotebook, DiskFull."""
        with self._rows(user) as rows:
            row, facts = rows.find(file_id)
            if facts.is_folder:
                raise errors.BadRequest("A folder has no content.", code="is_a_folder")
            current = etag(row)
            if if_match is None:
                raise errors.IfMatchRequired(current)
            if if_match not in ("*", current):
                raise errors.Changed(if_match, current)
            if type_of(row.path, is_folder=False) is FileType.NOTEBOOK:
                notebook.check(content)
            facts = rows.drive.files.write(row.path, [content], replace=True)
            rows.note(row, facts)
            return rows.entry(row, facts)

    def change(
        self, user: str, file_id: str, *, name: str | None = None, parent: str | None = None
    ) -> FileEntry:
        """Rename or move a file; its id stays. Raise NameTaken, BadRequest `bad_parent`."""
        with self._rows(user) as rows:
            row, facts = rows.find(file_id)
            old_parent, old_name = policy.split(row.path)
            folder = rows.folder_path(parent) if parent is not None else old_parent
            if facts.is_folder and policy.is_inside(folder, row.path):
                raise errors.BadRequest(
                    "A folder can not be moved into itself.", code="bad_parent", field="parent"
                )
            new_name = policy.check_name(name) if name is not None else old_name
            path = policy.join(folder, new_name)
            if path == row.path:
                return rows.entry(row, facts)
            _refuse_taken(
                new_name,
                [n for n in rows.drive.files.names(folder) if not (folder == old_parent and n == old_name)],
            )
            rows.drive.files.move(row.path, rows.drive.files, path)
            rows.moved(row.path, path)
            facts = rows.drive.files.facts(path)
            rows.note(row, facts, new_version=False)
            return rows.entry(row, facts)

    def copy(
        self, user: str, file_id: str, *, name: str | None = None, parent: str | None = None
    ) -> FileEntry:
        """Copy a file or a folder with all it holds: `Copy of x`. Raise NotFound, DiskFull."""
        with self._rows(user) as rows:
            row, facts = rows.find(file_id)
            folder = rows.folder_path(parent) if parent is not None else policy.split(row.path)[0]
            if facts.is_folder and policy.is_inside(folder, row.path):
                raise errors.BadRequest(
                    "A folder can not be copied into itself.", code="bad_parent", field="parent"
                )
            wanted = (
                policy.check_name(name) if name is not None else policy.copy_of(policy.split(row.path)[1])
            )
            target = policy.join(
                folder, policy.free_name(policy.numbered(wanted), rows.drive.files.names(folder))
            )
            copy(rows.drive.files, row.path, facts, target)
            made = rows.drive.files.facts(target)
            return rows.entry(rows.at(target, made), made)


def _readable(rows: Rows, folder: str) -> list[tuple[str, Facts]]:
    return [
        (f"{folder}/{name}" if folder else name, facts)
        for name, facts in rows.drive.files.scan(folder)
        if policy.is_text(name)
    ]


def _visible(rows: Rows) -> list[tuple[str, Facts]]:
    """Return every file and folder whose name can be shown and is not hidden."""
    return [
        (path, facts)
        for path, facts in rows.drive.files.walk()
        if policy.is_text(path) and not policy.split(path)[1].startswith(".")
    ]


def _refuse_taken(name: str, taken: Iterable[str]) -> None:
    key = policy.equivalence_key(name)
    if any(policy.equivalence_key(other) == key for other in taken):
        raise errors.NameTaken(name)


def _sorted(
    found: list[tuple[str, Facts]], sort: SortKey, order: Order, created: Mapping[str, datetime]
) -> list[tuple[str, Facts]]:
    """Return folders first, then by `sort`, then by name. `created` is looked at for that order only."""
    names = {path: policy.split(path)[1] for path, _ in found}
    keys: dict[SortKey, Callable[[tuple[str, Facts]], object]] = {
        SortKey.NAME: lambda at: policy.name_key(names[at[0]]),
        SortKey.MODIFIED: lambda at: at[1].mtime_ns,
        SortKey.CREATED: lambda at: created[at[0]],
        SortKey.SIZE: lambda at: 0 if at[1].is_folder else at[1].size,
        SortKey.TYPE: lambda at: type_of(names[at[0]], is_folder=at[1].is_folder),
    }
    out = sorted(found, key=lambda at: policy.name_key(names[at[0]]))
    if sort is not SortKey.NAME or order is Order.DESC:
        out.sort(key=keys[sort], reverse=order is Order.DESC)  # type: ignore[arg-type]  # comparable among themselves
    out.sort(key=lambda at: not at[1].is_folder)
    return out
