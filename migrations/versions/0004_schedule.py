"""Owners, priorities, windows, dependencies; what owners have used of the devices."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_HELD = "state IN ('running', 'pausing', 'cancelling')"


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("owner", sa.String(), nullable=False, server_default="default"),
        sa.Column("priority", sa.SmallInteger(), nullable=False, server_default="2"),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("after", sa.Uuid(), nullable=True),
        sa.Column("window_opens", sa.Time(), nullable=True),
        sa.Column("window_closes", sa.Time(), nullable=True),
        sa.Column("window_zone", sa.String(), nullable=True),
        sa.Column("window_days", postgresql.ARRAY(sa.SmallInteger()), nullable=True),
        sa.Column("window_finish", sa.Boolean(), nullable=False, server_default=sa.false()),
    ]


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "usages",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("owner"),
    )
    for column in _columns():
        op.add_column("jobs", column)
        if column.server_default is not None:
            # For the rows there are; new ones say it themselves.
            op.alter_column("jobs", column.name, server_default=None)
    op.create_foreign_key("jobs_after_fkey", "jobs", "jobs", ["after"], ["id"], ondelete="SET NULL")
    op.drop_index("jobs_queued", table_name="jobs")
    op.create_index(
        "jobs_queued",
        "jobs",
        ["priority", "created_at", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("jobs_held", "jobs", ["owner"], postgresql_where=sa.text(_HELD))
    op.create_index(
        "jobs_due", "jobs", ["deadline"], postgresql_where=sa.text("finished_at IS NULL")
    )
    op.create_index(
        "jobs_dependent", "jobs", ["after"], postgresql_where=sa.text("after IS NOT NULL")
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("jobs_dependent", table_name="jobs")
    op.drop_index("jobs_due", table_name="jobs")
    op.drop_index("jobs_held", table_name="jobs")
    op.drop_index("jobs_queued", table_name="jobs")
    op.create_index(
        "jobs_queued",
        "jobs",
        ["created_at", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.drop_constraint("jobs_after_fkey", "jobs", type_="foreignkey")
    for column in reversed(_columns()):
        op.drop_column("jobs", column.name)
    op.drop_table("usages")
