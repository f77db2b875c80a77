"""States of a job that is pausing, paused or cancelling; jobs that retry others."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_HELD = "state IN ('running', 'pausing', 'cancelling')"


def upgrade() -> None:
    """Apply."""
    op.drop_constraint("jobs_state_known", "jobs", type_="check")
    op.drop_constraint("jobs_held_while_running", "jobs", type_="check")
    op.drop_index("jobs_leased", table_name="jobs")
    # The wish on the row becomes the state that it leads to.
    op.execute(
        "UPDATE jobs SET state = 'cancelling' "
        "WHERE state = 'running' AND cancel_requested_at IS NOT NULL"
    )
    op.drop_column("jobs", "cancel_requested_at")
    op.create_check_constraint(
        "jobs_state_known",
        "jobs",
        "state IN ('queued', 'running', 'pausing', 'paused', 'cancelling', 'succeeded', "
        "'failed', 'cancelled')",
    )
    op.create_check_constraint(
        "jobs_held_by_lease",
        "jobs",
        f"({_HELD}) = (fencing_token IS NOT NULL AND lease_expires_at IS NOT NULL)",
    )
    op.create_index(
        "jobs_leased",
        "jobs",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text(_HELD),
    )
    op.add_column("jobs", sa.Column("retry_of", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        "jobs_retry_of_fkey", "jobs", "jobs", ["retry_of"], ["id"], ondelete="SET NULL"
    )
    op.create_unique_constraint("jobs_retry_of_key", "jobs", ["retry_of"])


def downgrade() -> None:
    """Undo. A job that is pausing goes on, one that is paused waits for a worker again."""
    op.drop_constraint("jobs_retry_of_key", "jobs", type_="unique")
    op.drop_constraint("jobs_retry_of_fkey", "jobs", type_="foreignkey")
    op.drop_column("jobs", "retry_of")
    op.drop_index("jobs_leased", table_name="jobs", postgresql_where=sa.text(_HELD))
    op.drop_constraint("jobs_held_by_lease", "jobs", type_="check")
    op.drop_constraint("jobs_state_known", "jobs", type_="check")
    op.add_column(
        "jobs", sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.execute(
        "UPDATE jobs SET cancel_requested_at = now() WHERE state IN ('cancelling', 'cancelled')"
    )
    op.execute("UPDATE jobs SET state = 'running' WHERE state IN ('pausing', 'cancelling')")
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'paused'")
    op.create_check_constraint(
        "jobs_state_known",
        "jobs",
        "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
    )
    op.create_check_constraint(
        "jobs_held_while_running",
        "jobs",
        "(state = 'running') = (fencing_token IS NOT NULL AND lease_expires_at IS NOT NULL)",
    )
    op.create_index(
        "jobs_leased",
        "jobs",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
