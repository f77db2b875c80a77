"""Uploaded texts, and the one that a job calibrates on."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "datasets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("datasets_by_age", "datasets", ["created_at", "id"])
    op.create_index("datasets_of_owner", "datasets", ["owner"])
    op.add_column("jobs", sa.Column("dataset_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        "jobs_dataset_id_fkey", "jobs", "datasets", ["dataset_id"], ["id"], ondelete="SET NULL"
    )
    op.create_index(
        "jobs_of_dataset",
        "jobs",
        ["dataset_id"],
        postgresql_where=sa.text("dataset_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "dataset_id")
    op.drop_table("datasets")
