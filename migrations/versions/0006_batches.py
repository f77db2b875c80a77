"""Batches of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("jobs", sa.Column("batch_id", sa.Uuid(), nullable=True))
    op.create_foreign_key("jobs_batch_id_fkey", "jobs", "batches", ["batch_id"], ["id"])
    op.create_index(
        "jobs_of_batch",
        "jobs",
        ["batch_id", "created_at", "id"],
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("jobs_of_batch", table_name="jobs")
    op.drop_constraint("jobs_batch_id_fkey", "jobs", type_="foreignkey")
    op.drop_column("jobs", "batch_id")
    op.drop_table("batches")
