"""What a prune will spend: rounds, trials and forward tokens, told from the model's config alone.

Plain arithmetic. A trial is counted if it may be made, since which units go decides how many more
there are; a forward token is a token through all layers of the dense model, as in
docs/add-a-recipe.md. What is not counted: utilities that read texts of their own.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bonsai_core.config import Layout, Prior, PruneRequest
from bonsai_core.families import (
    GateKind,
    GatePattern,
    Widths,
    block_of,
    family_of,
    gates_like,
    holds,
    non_embedding_parameters,
    removable_parameters,
    unit_price,
    widths_of,
)
from bonsai_core.recipes.probes import CONFIDENCES, DAMPINGS, losses_alone, splits, step
from bonsai_core.target import Size

PROBE_TOKENS = 64
"""By which a saved result is recognised (`bonsai_core.probe`): few, so that they cost nothing and
fit the context of every model."""

TOKENS_PER_OPENING = 32
"""Of the calibration, to one that is listened to alone (`bonsai_core.batch`)."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a prune will spend.

    Attributes:
        rounds: at most; rarely one or two fewer, where coarse units go beyond their share.
        trials: at most.
        trials_at_least: in as many rounds.
        trial_tokens: forward tokens of the trials, at most.
        forward_tokens: of everything, at most.
    """

    rounds: int
    trials: int
    trials_at_least: int
    trial_tokens: int
    forward_tokens: int


def budget(request: PruneRequest, config: Mapping[str, Any]) -> Budget | None:
    """The budget of a request; None for a recipe that is none of the project's own.

    Args:
        request: what is asked.
        config: of the dense model.

    Raises:
        InvalidModelError: a size that the config must say is missing or not positive.
        UnsupportedModelError: the architecture is not one of `bonsai_core.families`.
        UnreachableTargetError: the alignment is wider than the model's MLP.
    """
    recipe = _RECIPES.get(request.pruning.recipe)
    if recipe is None:
        return None
    first, *later = request.each()
    parts = [_budget(recipe, first, config)]
    parts += [_budget(recipe, one, config, is_first=False) for one in later]
    return Budget(
        rounds=sum(part.rounds for part in parts),
        trials=sum(part.trials for part in parts),
        # What was tried for one target may serve the others.
        trials_at_least=max(part.trials_at_least for part in parts),
        trial_tokens=sum(part.trial_tokens for part in parts),
        forward_tokens=sum(part.forward_tokens for part in parts),
    )


def _budget(
    recipe: "Callable[[_Prune], list[_Round]]",
    request: PruneRequest,
    config: Mapping[str, Any],
    *,
    is_first: bool = True,
) -> Budget:
    """Of one target; what was measured of the dense model for the first one serves the others
    (`bonsai_core.findings`)."""
    prune = _Prune(request, config)
    rounds = recipe(prune)
    if not is_first and recipe is _measured_damage:
        # What each gate loses alone does not depend on the target.
        rounds[0] = _whole(prune, 0)
    cuts = len(rounds) if request.pruning.recipe == "random_masks" else 1
    trial_tokens = sum(found.tokens for found in rounds)
    return Budget(
        rounds=len(rounds),
        trials=sum(found.most for found in rounds),
        trials_at_least=sum(found.least for found in rounds),
        trial_tokens=math.ceil(trial_tokens),
        forward_tokens=math.ceil(
            trial_tokens + prune.beside_trials(len(rounds), cuts, is_first=is_first)
        ),
    )


def heard_tokens(request: PruneRequest) -> int:
    """Tokens that statistics and repairs listen to, those included that are heard alone."""
    openings = 2 * math.ceil(request.calibration.tokens / TOKENS_PER_OPENING / 2)
    return _listened_tokens(request) + openings


def _listened_tokens(request: PruneRequest) -> int:
    samples = request.batch_samples - request.trial_samples or request.trial_samples
    return samples * request.calibration.sequence_length


@dataclass(frozen=True, slots=True)
class _Round:
    """The trials of a round, at least and at most, and the forward tokens of so many."""

    least: int
    most: int
    tokens: float


@dataclass(frozen=True, slots=True)
class _Pool:
    """What is tried as one (`bonsai_core.recipes.pools`): a gate, or the experts of a layer."""

    layer: int
    kind: GateKind
    units: int
    block: int
    most: int


class _Prune:
    """A request and its model, in numbers."""

    def __init__(self, request: PruneRequest, config: Mapping[str, Any]) -> None:
        pruning = request.pruning
        self.request = request
        self.pruning = pruning
        self._config = config
        self.family, self.widths = family_of(config), widths_of(config)
        self.total = non_embedding_parameters(config)
        devices = pruning.tensor_parallel
        most = removable_parameters(config, pruning.align, pruning.experts, devices)
        self.goal = min(
            most, math.ceil(request.target.share_to_remove(Size.of(config)) * self.total)
        )
        own_texts = all(part.name in _OF_OWN_TEXTS for part in pruning.utilities)
        self.per_trial = 0 if own_texts else request.trial_samples * request.trial_length

    @property
    def patterns(self) -> tuple[GatePattern, ...]:
        """Of the gates of which units can go."""
        return self.family.gates(self.pruning.experts)

    def pools(self) -> Iterator[_Pool]:
        """In order of layers."""
        for layer in range(self.widths.layers):
            for pattern in self.patterns:
                if pattern.sparse is None or pattern.sparse is self.widths.sparse[layer]:
                    yield _pool(layer, pattern, self.widths, self._block(pattern))

    def tokens_from(self, layer: int) -> float:
        """Forward tokens of a trial that runs from a layer on."""
        return self.per_trial * (1 - layer / self.widths.layers)

    def coarsest_step(self) -> int:
        """Parameters by which a plan may exceed its goal."""
        uniform = self.pruning.layout is Layout.UNIFORM
        return max(
            unit_price(pattern, self.widths, self._config)
            * self._block(pattern)
            * (gates_like(pattern, self.widths) if uniform else 1)
            for pattern in self.patterns
        )

    def beside_trials(self, rounds: int, cuts: int, *, is_first: bool) -> float:
        """Forward tokens of own text, statistics, repair, and of what is told of the model; the
        dense model writes and is told of for the first target alone."""
        request, pruning = self.request, self.pruning
        length = request.calibration.sequence_length
        written = request.own_samples * (length - 1) if is_first else 0
        told = (is_first + rounds) * request.trial_given_samples * length
        # Before and after, and once to remember what the dense model said.
        remembered = any(part.name == "kl" for part in pruning.utilities)
        valued = (1 + is_first + remembered) * self.per_trial
        listened, heard = _listened_tokens(request), heard_tokens(request)
        each_cut = 0.0
        if pruning.prior is not Prior.ELIMINATION:
            each_cut += listened
        if pruning.prior is Prior.ELIMINATION or pruning.refit or self._plans:
            each_cut += heard
        if pruning.refit and holds(self.family.adds_outputs, self._config):
            each_cut += heard * self._repair_passes()
        if pruning.refit:
            # All layers but the last one once; that one for each factor.
            each_cut += self.per_trial * (1 + (len(CONFIDENCES) - 1) / self.widths.layers)
        return written + told + valued + cuts * each_cut + PROBE_TOKENS

    def _block(self, pattern: GatePattern) -> int:
        units = getattr(self.widths, pattern.units)
        return block_of(pattern.kind, units, self.pruning.align, self.pruning.tensor_parallel)

    @property
    def _plans(self) -> bool:
        return self.pruning.recipe == "measured_damage"

    def _repair_passes(self) -> float:
        """Of the dense model and the smaller one; and to each gate that is repaired."""
        layers = self.widths.layers
        repaired = sum(
            self.widths.layers_with(pattern.sparse)
            for pattern in self.patterns
            if not (pattern.copies or pattern.weightless)
        )
        return 2 - 1 / layers + repaired / layers


def _pool(layer: int, pattern: GatePattern, widths: Widths, block: int) -> _Pool:
    copies = getattr(widths, pattern.copies) if pattern.copies else 1
    units = getattr(widths, pattern.units)
    return _Pool(layer, pattern.kind, units * copies, block, max(0, units - block) * copies)


def _measured_damage(prune: _Prune) -> list[_Round]:
    settings = prune.pruning
    dampings = len(DAMPINGS) if settings.refit else 1
    last = _whole(prune, dampings)
    if settings.layout is Layout.UNIFORM:
        attention = [pool.most for pool in prune.pools() if pool.kind is GateKind.ATTENTION]
        shares = len(splits(min(attention, default=0)))
        return [_whole(prune, 0), _Round(1, shares, shares * prune.per_trial), last]
    improvements = [_beside(prune)] * settings.improvements
    return [_alone(prune), *improvements, _whole(prune, settings.improvements + 1), last]


def _whole(prune: _Prune, trials: int) -> _Round:
    return _Round(trials, trials, trials * prune.per_trial)


def _alone(prune: _Prune) -> _Round:
    """The dense model, and each pool without a part of its units."""
    found = _probes(prune, lambda pool: len(losses_alone(pool.units, pool.block, pool.most)))
    # Without repair, and with nothing planned, masks alone are tried: from the first layer on.
    return found if prune.pruning.refit else _whole(prune, found.most)


def _beside(prune: _Prune) -> _Round:
    """The plan, and changes of it: one more loss, one less, or both, as the plan allows."""

    def most(pool: _Pool) -> int:
        change = step(pool.units, pool.block)
        both = pool.kind is not GateKind.MLP and 2 * change <= pool.most
        return 2 if both else int(change <= pool.most)

    found = _probes(prune, most)
    fewest = sum(min(1, most(pool)) for pool in prune.pools())
    return _Round(1 + fewest, found.most, found.tokens)


def _probes(prune: _Prune, trials_of: Callable[[_Pool], int]) -> _Round:
    """One trial of all layers, and those of each pool from its layer on."""
    trials, tokens, at = 1, float(prune.per_trial), 0
    for pool in prune.pools():
        trials += trials_of(pool)
        tokens += trials_of(pool) * prune.tokens_from(pool.layer)
        at = max(at, pool.layer if trials_of(pool) else 0)
    # What enters a layer is computed once for all its trials.
    return _Round(trials, trials, tokens + prune.per_trial * at / prune.widths.layers)


def _random_masks(prune: _Prune) -> list[_Round]:
    share = math.ceil(prune.pruning.sparsity_per_round * prune.total)
    rounds = math.ceil(prune.goal / share)
    fewest = math.ceil(prune.goal / (share + prune.coarsest_step()))
    masks = prune.pruning.masks_per_round
    return [
        _Round(masks if number < fewest else 0, masks, masks * prune.per_trial)
        for number in range(rounds)
    ]


def _statistics(prune: _Prune) -> list[_Round]:
    return [_whole(prune, 0)]


_RECIPES: Mapping[str, Callable[[_Prune], list[_Round]]] = {
    "measured_damage": _measured_damage,
    "random_masks": _random_masks,
    "statistics": _statistics,
}
_OF_OWN_TEXTS = {"choice", "function"}
"""Utilities that do not run the sequences of trials."""
