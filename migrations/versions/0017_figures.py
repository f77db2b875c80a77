"""What the service counts of itself stands in rows, and is found without reading all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; attempts of before get what the ledger still knows of them."""
    now = sa.Column(
        "queued_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
    )
    op.add_column("jobs", now)
    op.execute("UPDATE jobs SET queued_at = created_at")
    op.add_column("jobs", sa.Column("traceparent", sa.String(), nullable=True))
    for column in (
        sa.Column("waited_seconds", sa.Float(), nullable=True),
        sa.Column("tokens_per_mask", sa.Integer(), nullable=True),
        sa.Column("masks_evaluated", sa.Integer(), server_default="0", nullable=False),
    ):
        op.add_column("attempts", column)
    op.execute(
        "UPDATE attempts SET masks_evaluated = known.masks FROM (SELECT job_id, fencing_token, "
        "count(*) AS masks FROM evaluations GROUP BY job_id, fencing_token) AS known "
        "WHERE known.fencing_token = attempts.fencing_token AND known.job_id = attempts.job_id"
    )
    op.create_index("jobs_by_state", "jobs", ["state"])
    op.create_index("artifacts_by_size", "artifacts", ["size_bytes"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("artifacts_by_size", table_name="artifacts")
    op.drop_index("jobs_by_state", table_name="jobs")
    for name in ("masks_evaluated", "tokens_per_mask", "waited_seconds"):
        op.drop_column("attempts", name)
    for name in ("traceparent", "queued_at"):
        op.drop_column("jobs", name)
