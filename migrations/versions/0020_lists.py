"""Free metadata of jobs, and indexes for what lists are filtered by."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "jobs",
        sa.Column("metadata", postgresql.JSONB(), server_default="{}", nullable=False),
    )
    op.create_index(
        "jobs_by_end",
        "jobs",
        ["finished_at", "id"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index("jobs_of_owner", "jobs", ["owner", "created_at", "id"])
    op.create_index("jobs_by_name", "jobs", ["name"], postgresql_where=sa.text("name IS NOT NULL"))
    op.create_index("jobs_by_label", "jobs", ["labels"], postgresql_using="gin")
    op.create_index("jobs_by_model", "jobs", [sa.text("(request #>> '{model,source}')")])


def downgrade() -> None:
    """Undo."""
    for name in ("jobs_by_model", "jobs_by_label", "jobs_by_name", "jobs_of_owner", "jobs_by_end"):
        op.drop_index(name, table_name="jobs")
    op.drop_column("jobs", "metadata")
