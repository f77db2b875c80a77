"""API keys, owners of submission keys, and who has done what."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")
_ROLES = "role IN ('viewer', 'submitter', 'operator', 'admin')"


def _time(name: str, *, now: bool = False) -> sa.Column[object]:
    default = _NOW if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=not now)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("previous_sha256", sa.String(), nullable=True),
        _time("previous_expires_at"),
        _time("created_at", now=True),
        sa.Column("created_by", sa.String(), nullable=True),
        _time("expires_at"),
        _time("revoked_at"),
        _time("last_used_at"),
        sa.CheckConstraint(_ROLES, name="keys_role_known"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _time("at", now=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("key_name", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column(
        "idempotency_keys",
        sa.Column("owner", sa.String(), server_default="default", nullable=False),
    )
    op.alter_column("idempotency_keys", "owner", server_default=None)
    _identify_by("owner", "resource", "key")


def downgrade() -> None:
    """Undo; of the same submission key of two owners, the one that comes first is kept."""
    op.execute(
        "DELETE FROM idempotency_keys AS one USING idempotency_keys AS other WHERE "
        "one.resource = other.resource AND one.key = other.key AND one.owner > other.owner"
    )
    _identify_by("resource", "key")
    op.drop_column("idempotency_keys", "owner")
    op.drop_table("audit_events")
    op.drop_table("keys")


def _identify_by(*columns: str) -> None:
    op.drop_constraint("idempotency_keys_pkey", "idempotency_keys")
    op.create_primary_key("idempotency_keys_pkey", "idempotency_keys", list(columns))
