"""Keep contracts from their onboarding on."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NAME = "fk_project_contract_sha256_contract_version"


def upgrade() -> None:
    """Apply: what is in force is kept, and nothing is in force that is not."""
    op.execute(
        "INSERT INTO contract_version (sha256, document) "
        "SELECT DISTINCT ON (contract_sha256) contract_sha256, contract FROM project "
        "ON CONFLICT DO NOTHING"
    )
    op.create_foreign_key(
        op.f(NAME), "project", "contract_version", ["contract_sha256"], ["sha256"]
    )


def downgrade() -> None:
    """Take back."""
    op.drop_constraint(op.f(NAME), "project", type_="foreignkey")
