"""Keep browsers that have signed in, and authorization codes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "sign_in",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        _time("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in")),
        sa.UniqueConstraint("digest", name=op.f("uq_sign_in_digest")),
    )
    op.create_index(op.f("ix_sign_in_expires_at"), "sign_in", ["expires_at"])
    op.add_column("token_family", sa.Column("sign_in", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_token_family_sign_in_sign_in"), "token_family", "sign_in", ["sign_in"], ["id"]
    )
    op.create_index(op.f("ix_token_family_sign_in"), "token_family", ["sign_in"])
    _create_authorization_code()


def _create_authorization_code() -> None:
    op.create_table(
        "authorization_code",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("sign_in", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("challenge", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=True),
        sa.Column("is_openid", sa.Boolean(), nullable=False),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=True),
        _time("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["sign_in"], ["sign_in.id"], name=op.f("fk_authorization_code_sign_in_sign_in")
        ),
        sa.ForeignKeyConstraint(
            ["family"], ["token_family.id"], name=op.f("fk_authorization_code_family_token_family")
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_authorization_code")),
    )
    for column in ("sign_in", "expires_at"):
        op.create_index(op.f(f"ix_authorization_code_{column}"), "authorization_code", [column])


def _time(name: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("authorization_code")
    op.drop_index(op.f("ix_token_family_sign_in"), "token_family")
    op.drop_constraint(op.f("fk_token_family_sign_in_sign_in"), "token_family")
    op.drop_column("token_family", "sign_in")
    op.drop_table("sign_in")
