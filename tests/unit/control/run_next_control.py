"""The control service of the version after this one, over the stand-in backend: its database has one revision more."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic.script import ScriptDirectory
from file_backend import FileBackend

from hub.control.__main__ import main
from quota import migrations

NEXT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "next", {head!r}, None, None
def upgrade():
    op.add_column("quota_sessions", sa.Column("mood", sa.String(16)))
    op.execute("UPDATE quota_sessions SET mood = 'cheerful'")
"""


def scripts_of_the_next(folder: Path) -> ScriptDirectory:
    here = Path(migrations.__file__).parent
    locations = [str(here / "versions"), str(folder)]
    return ScriptDirectory(str(here), version_locations=locations)


if __name__ == "__main__":
    state = Path(sys.argv[sys.argv.index("--state") + 1])
    versions = state / "next-versions"
    versions.mkdir(exist_ok=True)
    (versions / "next.py").write_text(NEXT.format(head=migrations.head()))
    migrations.scripts = lambda: scripts_of_the_next(versions)
    raise SystemExit(main(FileBackend(state / "fake-runtimes")))
