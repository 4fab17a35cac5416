"""Accelerators of a cluster: claims in order of arrival, and who has which slot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gpu_claims",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("teams", sa.Text, nullable=False),
        sa.Column("flavor", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("slots", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_index("gpu_claims_by_state", "gpu_claims", ["state"], if_not_exists=True)
    op.create_table(
        "gpu_leases",
        sa.Column("slot", sa.String(512), primary_key=True),
        sa.Column("claim_id", sa.String(32), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_gpu_leases_claim_id", "gpu_leases", ["claim_id"], if_not_exists=True)
