"""Files and ledgers of jobs that have ended expire, unless pinned."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    no = sa.text("false")
    op.add_column("jobs", sa.Column("pinned", sa.Boolean(), server_default=no, nullable=False))
    for name in ("expires_at", "expired_at"):
        op.add_column("jobs", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "jobs_kept",
        "jobs",
        ["owner", "finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL AND expired_at IS NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("jobs_kept", table_name="jobs")
    for name in ("expired_at", "expires_at", "pinned"):
        op.drop_column("jobs", name)
