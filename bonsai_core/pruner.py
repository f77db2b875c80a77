"""The loop: rounds of score, choose, try, fit, cut, until the target is met."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bonsai_core import events
from bonsai_core.calibration import calibration_batch, digest_of
from bonsai_core.config import PruneRequest, Utility
from bonsai_core.errors import Stopped, UnreachableTargetError
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.export import require_free, save
from bonsai_core.families import reachable_sparsity, require_context, require_reachable
from bonsai_core.gates import Units, gates_of
from bonsai_core.ledger import Ledger, RoundRecord, Tensors
from bonsai_core.masks import applied
from bonsai_core.models import (
    dense_config,
    device_named,
    load,
    non_embedding_parameters,
    parameters,
)
from bonsai_core.priors import unit_scores
from bonsai_core.recipe import Bonsai, Decision, Recipe, Situation, Trials
from bonsai_core.refit import refitted
from bonsai_core.seeds import generator
from bonsai_core.selection import GateShape, removable, trimmed
from bonsai_core.statistics import column_statistics
from bonsai_core.surgery import cut

ALGORITHM = 1
"""Changes whenever the same request would be decided otherwise; part of a ledger's fingerprint."""


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What a prune gave. Perplexities are of the calibration batch, which the run has seen."""

    folder: Path
    sparsity: float
    parameters_before: int
    parameters: int
    non_embedding_parameters_before: int
    non_embedding_parameters: int
    perplexity_before: float
    perplexity: float
    rounds: int
    masks_evaluated: int
    """By this run; those an earlier run left in the ledger are not counted."""
    seconds: float


def prune(
    request: PruneRequest,
    output: Path,
    *,
    ledger: Ledger,
    device: str = "auto",
    listener: events.Listener = lambda _event: None,
    stop: events.Stop = lambda: False,
) -> PruneResult:
    """Prune a model by forward passes and save the smaller one.

    Args:
        request: what to do.
        output: folder of the result; made here, and left alone if the run does not finish.
        ledger: where progress is kept; one that is not empty is continued.
        device: auto, cpu, cuda or cuda:N.
        listener: told what happens.
        stop: asked between two forward passes.

    Raises:
        PruneError: the request cannot be done; the subclass says why.
        Stopped: `stop` said so; a later call with the same ledger goes on.
    """
    started = time.perf_counter()
    output = output.expanduser().resolve()
    require_free(output)
    run = _Run(request, ledger, listener, stop, device_named(device))
    rounds = run.rounds()
    listener(events.SaveStarted(str(output)))
    saved = save(
        run.loaded,
        run.gates,
        output,
        request=request,
        records=rounds,
        perplexity_before=run.perplexity_before,
        calibration_sha256=run.calibration_sha256,
        non_embedding_before=run.total,
    )
    listener(events.ModelSaved(str(output), saved.parameters, saved.sparsity))
    return PruneResult(
        folder=output,
        sparsity=saved.sparsity,
        parameters_before=run.parameters_before,
        parameters=saved.parameters,
        non_embedding_parameters_before=run.total,
        non_embedding_parameters=saved.non_embedding_parameters,
        perplexity_before=run.perplexity_before,
        perplexity=rounds[-1].perplexity,
        rounds=len(rounds),
        masks_evaluated=run.masks_evaluated,
        seconds=time.perf_counter() - started,
    )


class _Run:
    """One run of the loop over one loaded model."""

    def __init__(
        self,
        request: PruneRequest,
        ledger: Ledger,
        listener: events.Listener,
        stop: events.Stop,
        device: torch.device,
    ) -> None:
        self.request = request
        self.ledger = ledger
        self.listener = listener
        self.stop = stop
        # Before the weights, which may take minutes.
        config = dense_config(request.model)
        reachable = reachable_sparsity(config, request.pruning.align)
        require_reachable(request.target.sparsity, reachable)
        require_context(config, request.calibration.sequence_length)
        self.loaded = load(request.model, device)
        self.gates = gates_of(self.loaded.model, self.loaded.family, self.loaded.widths)
        self.dense_shapes = self._shapes()
        self.parameters_before = parameters(self.loaded.model)
        self.total = non_embedding_parameters(self.loaded.model)
        self._require_room_to_trim()
        self.removed = 0
        self.masks_evaluated = 0
        batch = calibration_batch(request.calibration, self.loaded.tokenizer, request.pruning.seed)
        self.calibration_sha256 = digest_of(batch)
        self.sequences = batch.to(device)
        ledger.open(self._fingerprint())
        self.recipe: Recipe = Bonsai(request.pruning)
        self.perplexity_before = self._perplexity()
        self._tell_loaded()

    def rounds(self) -> list[RoundRecord]:
        """Run, or replay from the ledger, every round until the target is met."""
        records = list(self.ledger.finished_rounds())
        for record in records:
            self._replay(record)
        while self.removed < self._goal():
            records.append(self._round(len(records) + 1))
        return records

    def _round(self, number: int) -> RoundRecord:
        started = time.perf_counter()
        self._go_on()
        prior = self.ledger.prior(number)
        if prior is None:
            prior = self._score(number)
            self.ledger.begin_round(number, prior)
        situation = self._situation(number, prior)
        trials = self.recipe.propose(situation)
        utilities = self._try(number, trials)
        decision = self.recipe.decide(situation, trials, utilities)
        removed = self._numbers(decision.removed)
        weights = self._cut(decision)
        record = self._record(number, trials, decision, removed)
        self.ledger.finish_round(record, weights)
        self._tell_finished(record, time.perf_counter() - started)
        return record

    def _score(self, number: int) -> Tensors:
        """The prior of every unit still there, from one pass; [U] per gate."""
        pruning = self.request.pruning
        statistics = column_statistics(self._backbone(), self.gates, self.sequences, self._go_on)
        random = generator(pruning.seed, number, "prior")
        return {
            gate.name: torch.from_numpy(
                unit_scores(pruning.prior, gate.output.weight, moments, gate.columns, random)
            )
            for gate, moments in zip(self.gates, statistics, strict=True)
        }

    def _situation(self, number: int, prior: Tensors) -> Situation:
        return Situation(
            round=number,
            shapes=self._shapes(),
            scores=[prior[gate.name].numpy() for gate in self.gates],
            budget=min(self._step(), self._goal() - self.removed),
        )

    def _shapes(self) -> list[GateShape]:
        return [GateShape(gate.kind, gate.units, gate.price) for gate in self.gates]

    def _try(self, number: int, trials: Trials) -> NDArray[np.float64]:
        """The utility of every trial, [M]: from the ledger, or measured now and written to it."""
        known = dict(self.ledger.utilities(number))
        self._tell_round(number, trials, len(known))
        for trial in range(len(trials)):
            if trial in known:
                continue
            self._go_on()
            started = time.perf_counter()
            with applied(self.gates, trials.absent(trial)):
                utility = self._utility()
            seconds = time.perf_counter() - started
            self.ledger.record(number, trial, utility, seconds)
            self.masks_evaluated += 1
            known[trial] = utility
            self.listener(events.MaskEvaluated(number, trial, utility, seconds))
        return np.array([known[trial] for trial in range(len(trials))])

    def _cut(self, decision: Decision) -> Tensors:
        """Cut what was decided, repaired if asked for; the repaired weights by gate name."""
        weights: Tensors = {}
        if self.request.pruning.refit:
            weights = refitted(
                self._backbone(), self.gates, decision.removed, self.sequences, self._go_on
            )
        self._apply(decision.removed, weights)
        return weights

    def _apply(self, removed: Sequence[Units], weights: Tensors) -> None:
        for gate, units in zip(self.gates, removed, strict=True):
            self.removed += cut(gate, units)
            if gate.name in weights:
                gate.output.weight.data.copy_(weights[gate.name])

    def _replay(self, record: RoundRecord) -> None:
        """Cut as a finished round did; its repaired weights are in the ledger."""
        removed = [
            np.flatnonzero(np.isin(gate.kept, record.removed.get(gate.name, [])))
            for gate in self.gates
        ]
        self._apply(removed, self.ledger.weights(record.number))

    def _numbers(self, removed: Sequence[Units]) -> dict[str, list[int]]:
        """Units to be cut by gate name, in the numbering of the dense model."""
        numbers = {
            gate.name: gate.kept[units].tolist()
            for gate, units in zip(self.gates, removed, strict=True)
            if len(units)
        }
        if not numbers:
            raise UnreachableTargetError(
                f"no further unit can go at a sparsity of {self.removed / self.total:.4f}",
                field="target.sparsity",
                value=self.request.target.sparsity,
                cure="ask for less, or use a smaller pruning.align",
            )
        return numbers

    def _record(
        self, number: int, trials: Trials, decision: Decision, removed: dict[str, list[int]]
    ) -> RoundRecord:
        fit = decision.fit
        return RoundRecord(
            number=number,
            removed=removed,
            sparsity=self.removed / self.total,
            perplexity=self._perplexity(),
            candidates=trials.masks.shape[1],
            masks=len(trials),
            regularisation=fit.regularisation if math.isfinite(fit.regularisation) else None,
            leave_one_out_error=fit.leave_one_out_error,
            explained=fit.explained,
        )

    def _utility(self) -> float:
        sequences = self.sequences[: self.request.pruning.samples_per_mask]
        nll = self._nll(sequences)
        if self.request.pruning.utility is Utility.PERPLEXITY:
            return -perplexity_of(nll)
        return -nll

    def _nll(self, sequences: torch.Tensor) -> float:
        return mean_nll(self.loaded.model, self.loaded.family, sequences, self._go_on)

    def _perplexity(self) -> float:
        return perplexity_of(self._nll(self.sequences))

    def _goal(self) -> int:
        """Parameters to remove; rounding must not ask for one more than can go."""
        align = self.request.pruning.align
        most = sum(removable(shape, align) * shape.price for shape in self.dense_shapes)
        return min(most, math.ceil(self.request.target.sparsity * self.total))

    def _step(self) -> int:
        return math.ceil(self.request.pruning.sparsity_per_round * self.total)

    def _rounds_needed(self) -> int:
        return math.ceil(self._goal() / self._step())

    def _backbone(self) -> torch.nn.Module:
        return self.loaded.model.get_submodule(self.loaded.family.backbone)

    def _go_on(self) -> None:
        if self.stop():
            raise Stopped("stopped between two forward passes; the ledger is whole")

    def _require_room_to_trim(self) -> None:
        align = self.request.pruning.align
        least = sum(trimmed(shape, align) * shape.price for shape in self.dense_shapes)
        if least > self._goal():
            raise UnreachableTargetError(
                f"bringing every MLP's {self.loaded.widths.channels} channels to a multiple of "
                f"pruning.align ({align}) removes more",
                field="target.sparsity",
                value=self.request.target.sparsity,
                allowed=f"from {math.ceil(least / self.total * 1e4) / 1e4}",
                cure=f"ask for more, or use an align that divides {self.loaded.widths.channels}",
            )

    def _fingerprint(self) -> str:
        """Digest of all that decides the result, apart from versions and the kind of device."""
        inputs = {
            "algorithm": ALGORITHM,
            "model": self.loaded.digest,
            "dtype": str(self.loaded.dtype),
            "calibration": self.calibration_sha256,
            "target": self.request.target.model_dump(mode="json"),
            "pruning": self.request.pruning.model_dump(mode="json"),
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def _tell_loaded(self) -> None:
        self.listener(
            events.ModelLoaded(
                architecture=self.loaded.family.architecture,
                device=str(self.loaded.device),
                dtype=str(self.loaded.dtype).removeprefix("torch."),
                parameters=self.parameters_before,
                non_embedding_parameters=self.total,
                rounds=self._rounds_needed(),
                perplexity=self.perplexity_before,
            )
        )

    def _tell_round(self, number: int, trials: Trials, in_ledger: int) -> None:
        self.listener(
            events.RoundStarted(
                round=number,
                rounds=self._rounds_needed(),
                masks=len(trials),
                masks_in_ledger=in_ledger,
                candidates=trials.masks.shape[1],
                sparsity=self.removed / self.total,
            )
        )

    def _tell_finished(self, record: RoundRecord, seconds: float) -> None:
        rounds = self._rounds_needed()
        self.listener(
            events.RoundFinished(record.number, rounds, record.sparsity, record.perplexity, seconds)
        )
