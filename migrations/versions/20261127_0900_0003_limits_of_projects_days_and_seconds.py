"""Let projects have limits; count the bytes of a day and the requests of a second."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "project",
        sa.Column("limits", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    op.create_table(
        "day_usage",
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("received_bytes >= 0", name=op.f("ck_day_usage_received_bytes")),
        sa.ForeignKeyConstraint(
            ["client", "project"],
            ["project.client", "project.name"],
            name=op.f("fk_day_usage_client_project_project"),
        ),
        sa.PrimaryKeyConstraint("client", "project", "day", name=op.f("pk_day_usage")),
    )
    op.create_index(op.f("ix_day_usage_day"), "day_usage", ["day"], unique=False)
    op.create_table(
        "request_window",
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("allowed", sa.Integer(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("granted", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("client", name=op.f("pk_request_window")),
        prefixes=["UNLOGGED"],
        postgresql_with={"fillfactor": 50},
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("request_window")
    op.drop_table("day_usage")
    op.drop_column("project", "limits")
