"""Requests of before presets say which they meant; half-done prunes of then start anew."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    # What decided then was today's recipe of random masks; every other setting was written out.
    op.execute(
        "UPDATE jobs SET request = jsonb_set(request, '{pruning}', "
        """'{"preset": "paper", "recipe": "random_masks", "damping": 0.01}'::jsonb """
        "|| (request -> 'pruning')) WHERE NOT request -> 'pruning' ? 'preset'"
    )
    # Their ledgers hold records that are no longer read, of decisions that would be others now.
    for table in ("evaluations", "rounds"):
        op.execute(
            f"DELETE FROM {table} USING jobs "  # noqa: S608 - the two names above
            f"WHERE jobs.id = {table}.job_id AND jobs.finished_at IS NULL"
        )
    op.execute("UPDATE jobs SET fingerprint = NULL WHERE finished_at IS NULL")


def downgrade() -> None:
    """Undo. Ledgers are left alone: one of other inputs is refused when it is opened."""
    op.execute(
        "UPDATE jobs SET request = request #- '{pruning,preset}' #- '{pruning,recipe}' "
        "#- '{pruning,improvements}' #- '{pruning,experts}' #- '{pruning,damping}'"
    )
