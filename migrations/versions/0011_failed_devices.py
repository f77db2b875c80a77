"""Workers whose device has failed say so."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "workers",
        sa.Column("device_failed", sa.Boolean(), server_default="false", nullable=False),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column("workers", "device_failed")
