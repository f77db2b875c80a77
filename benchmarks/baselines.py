"""What others would remove: each method from its paper's formulas, in a few lines.

A method is a function of a subject and a sparsity; it says which units go and, where it repairs,
the new weights or biases of the output projections. `uniform` and `of all` are explained in
`benchmarks.allocation`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.allocation import lowest, lowest_of_all, uniform_counts
from benchmarks.calibration_statistics import Need, Statistics
from benchmarks.change import Change
from benchmarks.unit_scores import Scores, fluctuation, magnitude, standardised, wanda
from bonsai_core.elimination import eliminate
from bonsai_core.gates import Gate, Units
from bonsai_core.refit import repaired
from bonsai_core.seeds import generator
from bonsai_core.selection import GateShape, shapes_of

DAMPING = 1e-3
"""Of every least-squares repair and elimination here, relative to the mean diagonal."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A dense live model and what is known of the calibration batch.

    Attributes:
        gates: of the model.
        total: its non-embedding parameters.
        statistics: prepared with what the method needs.
        seed: of the calibration batch, and of the method's own chance.
    """

    gates: Sequence[Gate]
    total: int
    statistics: Statistics
    seed: int

    @property
    def shapes(self) -> list[GateShape]:
        """Of each gate."""
        return shapes_of(self.gates)

    def uniform(self, sparsity: float, *, attention: bool = True) -> list[int]:
        """Units that each gate loses when all layers lose the same."""
        return uniform_counts(self.shapes, sparsity * self.total, sparsity, attention=attention)


Method = Callable[[Subject, float], Change]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A method, what it needs to know, and whether anything in it depends on the seed."""

    prune: Method
    needs: Need
    sampled: bool
    what: str


def random_units(subject: Subject, sparsity: float) -> Change:
    """Uniform, by chance: the floor that any method must be above."""
    random = generator(subject.seed, 0, "random baseline")
    scores = [random.random(gate.units) for gate in subject.gates]
    return Change(_lowest_uniform(subject, sparsity, scores))


def magnitude_uniform(subject: Subject, sparsity: float) -> Change:
    """Uniform, smallest group norm first (`unit_scores.magnitude`); no calibration."""
    return Change(_lowest_uniform(subject, sparsity, [magnitude(gate) for gate in subject.gates]))


def wanda_uniform(subject: Subject, sparsity: float) -> Change:
    """Wanda-sp, uniform (`unit_scores.wanda`: arXiv 2306.11695, eq. 1, for whole units)."""
    return Change(_lowest_uniform(subject, sparsity, _wanda_scores(subject, Need.COLUMNS)))


def wanda_global(subject: Subject, sparsity: float) -> Change:
    """Wanda-sp of all gates together: least share of its gate's score per parameter first.

    Raw sums cannot be compared between gates: inputs grow with depth, and a group sums over more
    columns than a channel. The share per parameter is the kindest reading of a global Wanda.
    """
    scores = [
        values / values.sum() / gate.price
        for gate, values in zip(subject.gates, _wanda_scores(subject, Need.COLUMNS), strict=True)
    ]
    return Change(lowest_of_all(subject.shapes, scores, sparsity * subject.total))


def flap(subject: Subject, sparsity: float) -> Change:
    """FLAP as published (arXiv 2312.11983): fluctuation, adaptive in all (AL-AM), with bias.

    Scores of columns (`unit_scores.fluctuation`) are standardised within each gate, averaged over
    the columns of a unit, and ranked over all gates; a group counts as the parameters it costs.
    What goes is replaced by its mean, as a bias of the output projection (`mean_biases`).
    """
    scores = [
        standardised(_fluctuation(subject, gate)).reshape(-1, gate.columns).mean(axis=1)
        for gate in subject.gates
    ]
    absent = lowest_of_all(subject.shapes, scores, sparsity * subject.total)
    return Change(absent, biases=mean_biases(subject, absent))


def flap_uniform(subject: Subject, sparsity: float) -> Change:
    """FLAP's score and bias with the same share from each layer (its UL-UM)."""
    scores = [
        _fluctuation(subject, gate).reshape(-1, gate.columns).sum(axis=1) for gate in subject.gates
    ]
    absent = _lowest_uniform(subject, sparsity, scores)
    return Change(absent, biases=mean_biases(subject, absent))


def wanda_refit(subject: Subject, sparsity: float) -> Change:
    """Wanda-sp uniform, then the kept columns refitted by least squares (`repair`)."""
    return repair(subject, _lowest_uniform(subject, sparsity, _wanda_scores(subject, Need.MOMENTS)))


def wanda_mlp_refit(subject: Subject, sparsity: float) -> Change:
    """The same, of channels only: attention stays whole."""
    counts = subject.uniform(sparsity, attention=False)
    return repair(subject, _lowest_each(_wanda_scores(subject, Need.MOMENTS), counts))


def obs_refit(subject: Subject, sparsity: float) -> Change:
    """Optimal brain surgery for whole units, uniform, then refitted (`obs_order`, `repair`)."""
    return repair(subject, obs_order(subject, subject.uniform(sparsity)))


def obs_mlp_refit(subject: Subject, sparsity: float) -> Change:
    """The same, of channels only: attention stays whole."""
    return repair(subject, obs_order(subject, subject.uniform(sparsity, attention=False)))


def obs_order(subject: Subject, counts: Sequence[int]) -> list[Units]:
    """The units that go one after another with the least error of the repaired output.

    Unit S costs tr(W_S ((H^-1)_SS)^-1 W_S'), H being the damped second moments; after a removal
    the other weights and H^-1 are brought up to date, so that of two columns that say the same one
    stays (optimal brain compression, arXiv 2208.11580; for structures ZipLM, arXiv 2302.04089).
    """
    return [
        np.sort(_eliminated(subject, gate, count)) if count else np.empty(0, dtype=np.int64)
        for gate, count in zip(subject.gates, counts, strict=True)
    ]


def _eliminated(subject: Subject, gate: Gate, count: int) -> Units:
    moments = subject.statistics.moments(gate)
    found = eliminate(gate.output.weight, moments, gate.columns, count, DAMPING)
    return np.asarray(found.order[:count], dtype=np.int64)


def repair(subject: Subject, absent: Sequence[Units]) -> Change:
    """The kept columns take over from those that go, by least squares with a ridge.

    W' = W_K + W_R G_RK (G_KK + s I)^-1 with the second moments G of the dense model: optimal brain
    compression (arXiv 2208.11580) for whole columns.
    """
    weights = {}
    for gate, units in zip(subject.gates, absent, strict=True):
        if len(units):
            weight = gate.output.weight
            gone = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
            gone[_columns(gate, units).to(weight.device)] = True
            moments = subject.statistics.moments(gate)
            weights[gate.name] = repaired(weight, moments, gone, DAMPING)
    return Change(absent, weights=weights)


def mean_biases(subject: Subject, absent: Sequence[Units]) -> dict[str, Tensor]:
    """W_removed @ mean of the removed inputs, by gate name; [D].

    FLAP's baseline bias (arXiv 2312.11983): the mean of the output stays as it was.
    """
    biases = {}
    for gate, units in zip(subject.gates, absent, strict=True):
        if len(units):
            gone = _columns(gate, units)
            weight = gate.output.weight.double().cpu()[:, gone]
            biases[gate.name] = weight @ subject.statistics.columns(gate).mean[gone]
    return biases


def _columns(gate: Gate, units: Units) -> Tensor:
    return torch.from_numpy(gate.columns_of(units))


def _wanda_scores(subject: Subject, need: Need) -> list[Scores]:
    return [
        wanda(gate.output.weight, subject.statistics.mean_square(gate, need), gate.columns)
        for gate in subject.gates
    ]


def _fluctuation(subject: Subject, gate: Gate) -> Scores:
    return fluctuation(gate.output.weight, subject.statistics.columns(gate))


def _lowest_uniform(subject: Subject, sparsity: float, scores: Sequence[Scores]) -> list[Units]:
    return _lowest_each(scores, subject.uniform(sparsity))


def _lowest_each(scores: Sequence[Scores], counts: Sequence[int]) -> list[Units]:
    return [lowest(values, count) for values, count in zip(scores, counts, strict=True)]


BASELINES: Mapping[str, Baseline] = {
    "random": Baseline(random_units, Need.NOTHING, True, "uniform, by chance"),
    "magnitude": Baseline(
        magnitude_uniform, Need.NOTHING, False, "uniform, group L2 norm; no chance in it"
    ),
    "wanda-uniform": Baseline(wanda_uniform, Need.COLUMNS, True, "Wanda-sp, uniform"),
    "wanda-global": Baseline(
        wanda_global, Need.COLUMNS, True, "Wanda-sp, share of the gate's score per parameter"
    ),
    "flap": Baseline(flap, Need.COLUMNS, True, "FLAP, AL-AM, with its biases"),
    "flap-uniform": Baseline(
        flap_uniform, Need.COLUMNS, True, "FLAP's score and biases, uniform (UL-UM)"
    ),
    "wanda-refit": Baseline(
        wanda_refit, Need.MOMENTS, True, "Wanda-sp, uniform, least-squares refit"
    ),
    "wanda-mlp-refit": Baseline(wanda_mlp_refit, Need.MOMENTS, True, "the same, channels only"),
    "obs-refit": Baseline(
        obs_refit, Need.MOMENTS, True, "OBS column selection, uniform, least-squares refit"
    ),
    "obs-mlp-refit": Baseline(obs_mlp_refit, Need.MOMENTS, True, "the same, channels only"),
}
