"""Budgets: what a session costs and used, hours granted by administrators, what a user chose for all of their runtimes.

A database made by the first landing of budgets has all of it already, and no revision: it is adopted.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)

APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER IF NOT EXISTS quota_grants_no_{verb.lower()} BEFORE {verb} ON quota_grants "
        "BEGIN SELECT RAISE(ABORT, 'quota_grants is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION quota_events_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$",
        "CREATE OR REPLACE TRIGGER quota_grants_append_only BEFORE UPDATE OR DELETE ON quota_grants "
        "FOR EACH ROW EXECUTE FUNCTION quota_events_refuse()",
    ],
}


def upgrade() -> None:
    have = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("quota_sessions")}
    for name, kind in (
        ("teams", sa.Text()),
        ("cpus", sa.Float()),
        ("price", sa.Float()),
        ("extensions_used", sa.Integer()),
        ("extended_seconds", sa.Float()),
        ("budget_name", sa.String(64)),
        ("budget_seconds", sa.Float()),
        ("used_seconds", sa.Float()),
    ):
        if name not in have:
            op.add_column("quota_sessions", sa.Column(name, kind))
    op.create_index("quota_sessions_by_end", "quota_sessions", ["ended"], if_not_exists=True)
    op.create_table(
        "quota_grants",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("budget", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("hours", sa.Float, nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("at", TIME, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_quota_grants_at", "quota_grants", ["at"], if_not_exists=True)
    op.create_table(
        "quota_choices",
        sa.Column("user", sa.String(255), primary_key=True),
        sa.Column("keep_content", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(sa.text(statement))
