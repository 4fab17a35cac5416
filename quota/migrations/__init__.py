"""Revisions of control's database (Alembic), carried out at start by `quota.store.prepare_database`.

To change a table: change its class (quota/sql.py, hub/control/consent.py, hub/control/idempotency.py) and add one module to `versions/`:
1. name it `rNNNN_what_it_does.py`, with `revision = "NNNN"` and `down_revision` the one before; never change one that was merged;
2. `upgrade()` uses `op.add_column` (nullable, or with a `server_default`), `op.create_table`, `op.create_index`, `op.execute`, and on
   SQLite `op.batch_alter_table` for the rest; all runs in one transaction, so it never commits and is never half done;
3. `op.get_bind().dialect.name` tells SQLite from PostgreSQL; there is no downgrade: the copy made before an upgrade is the way back.
`pytest tests/unit/quota/test_migrations.py` holds the classes and the revisions together, on both databases.
"""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

UNVERSIONED = "0000"  # what a database without a revision is called


def scripts() -> ScriptDirectory:
    """Return the revisions this program knows."""
    here = Path(__file__).parent
    return ScriptDirectory(str(here), version_locations=[str(here / "versions")])


def head() -> str:
    """Return the newest revision this program knows."""
    newest = scripts().get_current_head()
    assert newest is not None
    return newest


def known() -> frozenset[str]:
    """Return every revision this program knows."""
    return frozenset(script.revision for script in scripts().walk_revisions())


def current(connection: Connection) -> str:
    """Return the revision of a database, UNVERSIONED when it has none."""
    return MigrationContext.configure(connection).get_current_revision() or UNVERSIONED


def upgrade(connection: Connection, to: str = "head") -> None:
    """Carry out the revisions that are missing. The transaction is the caller's."""
    directory = scripts()
    with EnvironmentContext(
        Config(), directory, fn=lambda revision, _context: directory._upgrade_revs(to, revision)
    ) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()
