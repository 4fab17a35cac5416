"""A PostgreSQL server of the tests' own: Debian's programs, as an unprivileged user, on a unix socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

USERS = ("postgres", "nobody")


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL server that is installed."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    return max(found, key=lambda path: int(path.parent.name), default=None)


@contextmanager
def postgresql_server(bin_folder: Path) -> Iterator[str]:
    """Run a server; yield the URL of its database."""
    folder = Path(
        tempfile.mkdtemp(prefix="minicolab-postgresql-", dir="/tmp")
    )  # short: a socket's path is at most 107 bytes
    as_user = {}
    if os.geteuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        name = next(user for user in USERS if user in known)
        shutil.chown(folder, name)
        as_user = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}

    def run(*command: str) -> None:
        done = subprocess.run(
            [str(bin_folder / command[0]), *command[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "err").open("wb") if not as_user else subprocess.DEVNULL,
            check=False,
            timeout=120,
            **as_user,  # type: ignore[arg-type]
        )
        if done.returncode:
            log = folder / "log"
            raise AssertionError(f"{command[0]} failed: {log.read_text() if log.exists() else ''}")

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=50"
        run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-w", "-t", "100", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(server: str, prefix: str) -> str:
    """Make a database on a server; return its URL."""
    name = f"{prefix}_{secrets.token_hex(4)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server).set(database=name).render_as_string(hide_password=False)
