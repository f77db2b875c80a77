"""What the processes of attempts say, line by line."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "log_lines",
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("text", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["fencing_token"], ["attempts.fencing_token"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("fencing_token", "number"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("log_lines")
