"""Keep leases, and the passes to the files of one batch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "lease",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("driver", sa.Text(), nullable=False),
        sa.Column("handle", JSONB(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("due_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("issued_at", moment, nullable=True),
        sa.Column("renewed_at", moment, nullable=True),
        sa.Column("ended_at", moment, nullable=True),
        sa.Column("revoked_at", moment, nullable=True),
        sa.CheckConstraint(
            "state IN ('intended', 'issued', 'revoking', 'revoked', 'irrevocable')",
            name=op.f("ck_lease_state"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_lease_attempts")),
        sa.ForeignKeyConstraint(["job"], ["job.id"], name=op.f("fk_lease_job_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease")),
    )
    op.create_index(
        "ix_lease_unrevoked",
        "lease",
        ["state", "due_at"],
        postgresql_where=sa.text("state <> 'revoked'"),
    )
    op.create_index("ix_lease_job", "lease", ["job"])
    op.create_index(
        "ix_lease_unsettled",
        "lease",
        ["client"],
        postgresql_where=sa.text("state IN ('intended', 'issued', 'revoking')"),
    )
    op.create_table(
        "batch_pass",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_pass")),
        sa.UniqueConstraint("digest", name=op.f("uq_batch_pass_digest")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("batch_pass")
    op.drop_table("lease")
