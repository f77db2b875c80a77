"""Jobs that are held back for a while: after a crash, or until there is room on the disk."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("held_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("hold_reason", sa.String(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "hold_reason")
    op.drop_column("jobs", "held_until")
