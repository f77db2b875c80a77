"""How many units the trials of `measured_damage` take: plain numbers, which a budget counts too."""

DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Tried in the last round."""

CONFIDENCES = (1.06, 1.03, 1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79)
"""Factors for the logits of a repaired model (`bonsai_core.confidence`). Half of a step either way
changes the loss by less than a thousandth."""

ALONE = (1 / 4, 3 / 5)
"""Shares of its units that a gate loses alone in the first round: two points of a power law."""

PROBE = 1 / 12
"""Share of an MLP's channels by which a trial differs from the plan."""

SPLITS = 9
"""Plans tried at most where all layers get the same widths."""


def losses_alone(units: int, block: int, most: int) -> list[int]:
    """How many of its units a pool loses alone: two numbers, or as many as it has to lose.

    Args:
        units: of the pool.
        block: units that go at once.
        most: units that may go.
    """
    few, many = (max(1, round(share * units / block)) * block for share in ALONE)
    return sorted({count for count in (few, max(many, few + block)) if count <= most})


def step(units: int, block: int) -> int:
    """Units by which a trial differs from the plan: whole blocks of the alignment."""
    return max(1, round(PROBE * units / block)) * block


def splits(most: int) -> list[int]:
    """How many attention units go in the plans of equal widths; `most` may."""
    return sorted({round(number / (SPLITS - 1) * most) for number in range(SPLITS)})
