"""Make the audit trail append-only and give it its first link.

Triggers, not only rights: they also stop the table's owner, as whom small deployments connect.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("INSERT INTO audit_head (only_row, number, hash) VALUES (true, 0, repeat('0', 64))")
    op.execute(
        """
        CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = '42501';
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER audit_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()
        """
    )
    op.execute(
        """
        CREATE TRIGGER audit_head_stays BEFORE DELETE OR TRUNCATE ON audit_head
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()
        """
    )


def downgrade() -> None:
    """Take back."""
    op.execute("DROP TRIGGER audit_head_stays ON audit_head")
    op.execute("DROP TRIGGER audit_event_append_only ON audit_event")
    op.execute("DROP FUNCTION audit_refuse()")
    op.execute("DELETE FROM audit_head")
