"""Pin each job's contract, count rows by file, keep what retention did, and legal holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "contract_version",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        _time("created_at", default=True),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_contract_version")),
    )
    _pin_jobs()
    _create_job_file()
    _create_batch_layer()
    _create_legal_hold()


def _pin_jobs() -> None:
    op.add_column("job", sa.Column("contract_sha256", sa.Text(), nullable=True))
    op.add_column("job", sa.Column("on_reject", postgresql.JSONB(), nullable=True))
    op.add_column(
        "job", sa.Column("starts_from", sa.Text(), server_default="landing", nullable=False)
    )
    op.add_column("job", sa.Column("staged_job", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_job_contract_sha256_contract_version"),
        "job",
        "contract_version",
        ["contract_sha256"],
        ["sha256"],
    )
    op.create_check_constraint(
        op.f("ck_job_starts_from"), "job", "starts_from IN ('landing', 'staged')"
    )


def _create_job_file() -> None:
    op.create_table(
        "job_file",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("rows_read", sa.BigInteger(), nullable=False),
        sa.Column("rows_loaded", sa.BigInteger(), nullable=False),
        sa.Column("rows_rejected", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_file_job_id_job")),
        sa.PrimaryKeyConstraint("job_id", "step", "map_index", "file", name=op.f("pk_job_file")),
    )


def _create_batch_layer() -> None:
    op.create_table(
        "batch_layer",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        _time("purged_at", default=True),
        _time("cleared_at"),
        sa.CheckConstraint(
            "layer IN ('landing', 'staged', 'curated')", name=op.f("ck_batch_layer_layer")
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batch.id"], name=op.f("fk_batch_layer_batch_id_batch")
        ),
        sa.PrimaryKeyConstraint("batch_id", "layer", name=op.f("pk_batch_layer")),
    )


def _create_legal_hold() -> None:
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        _time("set_at", default=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        _time("lifted_at"),
        sa.ForeignKeyConstraint(
            ["client"], ["client.name"], name=op.f("fk_legal_hold_client_client")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_hold")),
    )
    op.create_index(op.f("ix_legal_hold_client"), "legal_hold", ["client"])


def _time(name: str, *, default: bool = False) -> sa.Column[object]:
    server_default = sa.text("now()") if default else None
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=server_default, nullable=not default
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("legal_hold")
    op.drop_table("batch_layer")
    op.drop_table("job_file")
    op.drop_constraint(op.f("ck_job_starts_from"), "job")
    op.drop_constraint(op.f("fk_job_contract_sha256_contract_version"), "job")
    for name in ("staged_job", "starts_from", "on_reject", "contract_sha256"):
        op.drop_column("job", name)
    op.drop_table("contract_version")
