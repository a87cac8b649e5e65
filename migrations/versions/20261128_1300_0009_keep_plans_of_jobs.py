"""Keep how each job's delivery was taken apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "job_plan",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_plan_job_id_job")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_plan")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("job_plan")
