"""The tables of the walking product. A database made before there were revisions has some or all of them already: it is adopted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LIVE = sa.text("state IN ('queued', 'starting', 'ready', 'stopping')")
TIME = sa.DateTime(timezone=True)
ADDED_EARLY = (
    "boot_id",
    "ready_boottime",
    "active_boottime",
)  # to `quota_sessions`, before there were revisions

APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER IF NOT EXISTS quota_events_no_{verb.lower()} BEFORE {verb} ON quota_events "
        "BEGIN SELECT RAISE(ABORT, 'quota_events is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION quota_events_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'quota_events is append-only'; END $$",
        "CREATE OR REPLACE TRIGGER quota_events_append_only BEFORE UPDATE OR DELETE ON quota_events "
        "FOR EACH ROW EXECUTE FUNCTION quota_events_refuse()",
    ],
}


def upgrade() -> None:
    sessions()
    op.create_table(
        "quota_events",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.String(32), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_quota_events_session_id", "quota_events", ["session_id"], if_not_exists=True)
    op.create_table(
        "quota_epoch",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("since", TIME, nullable=False),
        if_not_exists=True,
    )
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)
    of_control()


def sessions() -> None:
    op.create_table(
        "quota_sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("file_id", sa.String(64), nullable=False),
        sa.Column("file_name", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(32), nullable=False),
        sa.Column("phase_message", sa.String(500), nullable=False),
        sa.Column("accelerator", sa.String(64), nullable=False),
        sa.Column("shape", sa.String(64), nullable=False),
        sa.Column("backend", sa.String(32), nullable=False),
        sa.Column("device", sa.String(128)),
        sa.Column("created", TIME, nullable=False),
        sa.Column("ready", TIME),
        sa.Column("last_activity", TIME),
        sa.Column("ended", TIME),
        sa.Column("reason_code", sa.String(64)),
        sa.Column("reason_message", sa.String(500)),
        sa.Column("max_lifetime_seconds", sa.Float, nullable=False),
        sa.Column("idle_limit_seconds", sa.Float, nullable=False),
        *(_early(name) for name in ADDED_EARLY),
        if_not_exists=True,
    )
    have = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("quota_sessions")}
    for name in ADDED_EARLY:
        if name not in have:
            op.add_column("quota_sessions", _early(name))
    op.create_index(
        "quota_one_live_runtime",
        "quota_sessions",
        ["user", "file_id"],
        unique=True,
        sqlite_where=LIVE,
        postgresql_where=LIVE,
        if_not_exists=True,
    )
    op.create_index("quota_sessions_by_user", "quota_sessions", ["user", "created"], if_not_exists=True)
    op.create_index("quota_sessions_by_state", "quota_sessions", ["state"], if_not_exists=True)


def _early(name: str) -> sa.Column[str] | sa.Column[float]:
    return sa.Column(name, sa.String(64)) if name == "boot_id" else sa.Column(name, sa.Float)


def of_control() -> None:
    """The tables of hub/control that lie in the same database."""
    op.create_table(
        "control_idempotency",
        sa.Column("user", sa.String(255), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("body", sa.String(64), nullable=False),
        sa.Column("result", sa.String(64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "control_oauth_codes",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("runtime_id", sa.String(32), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("challenge", sa.String(128), nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.Column("used", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "control_oauth_tokens",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("runtime_id", sa.String(32), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("expires", TIME, nullable=False),
        if_not_exists=True,
    )
