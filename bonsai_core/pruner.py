"""The loop: rounds of score, choose, try, decide, cut, until the target is met."""

import gc
import hashlib
import itertools
import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bonsai_core import elimination, events, memory, second_moments
from bonsai_core.batch import batch_of
from bonsai_core.blocks import Blocks
from bonsai_core.budget import budget
from bonsai_core.confidence import FinalNorm, choose
from bonsai_core.config import Prior, PruneRequest
from bonsai_core.correction import Streams, correct
from bonsai_core.errors import Stopped, UnreachableTargetError
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.export import save
from bonsai_core.families import block_of, holds, require_context
from bonsai_core.findings import Dense, Findings, State
from bonsai_core.folders import require_free
from bonsai_core.formats.block import require_exportable
from bonsai_core.formats.exporter import require_tokenizer
from bonsai_core.gates import Units, gates_of
from bonsai_core.ledger import LaterRounds, Ledger, RoundRecord, Tensors
from bonsai_core.models import (
    dense_config,
    device_named,
    load,
    non_embedding_parameters,
    parameters,
)
from bonsai_core.portions import halved, sequences_at_once
from bonsai_core.priors import unit_scores
from bonsai_core.recipe import Decision, Recipe, Situation, Trial, nothing
from bonsai_core.recipes.registry import recipe_for
from bonsai_core.seeds import generator
from bonsai_core.selection import GateShape, removable, shapes_of, trimmed
from bonsai_core.shelf import Shelf
from bonsai_core.statistics import column_statistics
from bonsai_core.surgery import cut
from bonsai_core.target import Size, Target, require_reachable
from bonsai_core.trials import Bench
from bonsai_core.utilities.mixture import mixture_of
from bonsai_core.utilities.names import require_known
from bonsai_core.utilities.utility import Factory

ALGORITHM = 10
"""Changes whenever the same request would be decided otherwise; part of a ledger's fingerprint."""


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What a prune gave. Perplexities and utilities are of text that the run has seen."""

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
    utilities_before: dict[str, float]
    """Of the dense model, by title, before their weights."""
    utilities: dict[str, float]
    """Of the result."""
    device_weights: int
    """The most bytes of weights that the device held at once."""
    seconds: float
    on_the_way: tuple["PruneResult", ...] = ()
    """Where the target has stops, the results of the larger ones; this is the smallest one's."""


def prune(
    request: PruneRequest,
    output: Path,
    *,
    ledger: Ledger,
    device: str = "auto",
    device_memory: int | None = None,
    listener: events.Listener = lambda _event: None,
    stop: events.Stop = lambda: False,
    scratch: Path | None = None,
    calibration_file: Path | None = None,
    utilities: Mapping[str, Factory] | None = None,
) -> PruneResult:
    """Prune a model by forward passes and save the smaller one.

    Args:
        request: what to do.
        output: folder of the result; made here, and left alone if the run does not finish. A target
            with stops has a folder inside for each of its results (`Target.folder`).
        ledger: where progress is kept; one that is not empty is continued.
        device: auto, cpu, cuda or cuda:N.
        device_memory: bytes of the device that weights may take; layers beyond that stay in the
            host's memory and come to run. None: a share of what a GPU has free, and no limit on a
            CPU. The result is the same.
        listener: told what happens.
        stop: asked between two forward passes.
        scratch: folder for what a run looks up again and again, 4 * C^2 bytes for a gate of C
            columns; emptied at the end. None: the system's folder for temporary files.
        calibration_file: text to read in place of `calibration.source`, which then only names it.
        utilities: further utilities by name, beside those built in and installed.

    A device that runs out of memory is given half as much at once, down to one sequence; the run
    then goes on from its ledger.

    Raises:
        PruneError: the request cannot be done; the subclass says why.
        Stopped: `stop` said so; a later call with the same ledger goes on.
    """
    output = output.expanduser().resolve()
    require_free(output)
    chosen = device_named(device)
    for halvings in itertools.count():
        with tempfile.TemporaryDirectory(dir=scratch, prefix="bonsai-") as folder, halved(halvings):
            place = _Place(chosen, device_memory, Path(folder), calibration_file)
            try:
                job = _Job(request, ledger, listener, stop, place, utilities or {})
                return _prune(job, output)
            except Exception as error:
                shortage = memory.shortage(error, chosen)
                if shortage is None:
                    raise
            at_once = sequences_at_once(request.calibration.sequence_length, chosen)
            if at_once == 1:
                raise shortage
        # Out of the except block: the error's traceback held the model.
        gc.collect()
        memory.give_back(chosen)
        listener(events.MemoryExhausted(str(shortage.value), at_once // 2))
    raise AssertionError("one sequence at a time is the end")


def _prune(job: "_Job", output: Path) -> PruneResult:
    """Prune to each target in turn, from the dense model; all folders appear at once."""
    targets = job.request.target.each()
    if len(targets) == 1:
        return _prune_to(job, targets, output, 0, None)
    inside = output.with_name(f".{output.name}.partial")
    shutil.rmtree(inside, ignore_errors=True)
    results: list[PruneResult] = []
    findings = Findings()
    try:
        for number, target in enumerate(targets):
            before = sum(result.rounds for result in results)
            folder = inside / target.folder
            results.append(_prune_to(job, targets[number:], folder, before, findings))
            # The model of one target goes before that of the next comes.
            gc.collect()
            memory.give_back(job.place.device)
        require_free(output)
        if output.exists():
            output.rmdir()
        inside.rename(output)
    finally:
        shutil.rmtree(inside, ignore_errors=True)
    *larger, last = (replace(result, folder=output / result.folder.name) for result in results)
    return replace(last, on_the_way=tuple(larger))


def _prune_to(
    job: "_Job",
    targets: Sequence[Target],
    folder: Path,
    before: int,
    findings: Findings | None,
) -> PruneResult:
    """Prune to the first of these targets, after so many rounds to others; the rest come later."""
    started = time.perf_counter()
    run = _Run(job, targets, before, findings)
    rounds = run.rounds()
    after = run.mixture.measure_each(run.go_on)
    job.listener(events.SaveStarted(str(folder)))
    saved = save(
        run.loaded,
        run.gates,
        folder,
        request=run.request,
        records=rounds,
        perplexity_before=run.perplexity_before,
        utilities=(run.utilities_before, after),
        calibration_sha256=run.batch.sha256,
        non_embedding_before=run.total,
    )
    job.listener(events.ModelSaved(str(folder), saved.parameters, saved.sparsity))
    return PruneResult(
        folder=folder,
        sparsity=saved.sparsity,
        parameters_before=run.parameters_before,
        parameters=saved.parameters,
        non_embedding_parameters_before=run.total,
        non_embedding_parameters=saved.non_embedding_parameters,
        perplexity_before=run.perplexity_before,
        perplexity=rounds[-1].perplexity,
        rounds=len(rounds),
        masks_evaluated=run.masks_evaluated,
        utilities_before=run.utilities_before,
        utilities=after,
        device_weights=run.loaded.streaming.peak,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a run computes, and with what."""

    device: torch.device
    device_memory: int | None
    scratch: Path
    calibration_file: Path | None


@dataclass(frozen=True, slots=True)
class _Job:
    """What was asked, and all that a run needs to do it."""

    request: PruneRequest
    ledger: Ledger
    listener: events.Listener
    stop: events.Stop
    place: _Place
    utilities: Mapping[str, Factory]


class _Run:
    """One run of the loop over one loaded model, to the first of some targets.

    Args:
        job: what was asked.
        targets: those that are still to be met, the largest model first.
        before: rounds that the targets before it took.
        findings: what was measured for those; None where there is one target only.
    """

    def __init__(
        self, job: _Job, targets: Sequence[Target], before: int, findings: Findings | None
    ) -> None:
        request = job.request.model_copy(update={"target": targets[0]})
        place, utilities, listener = job.place, job.utilities, job.listener
        self.request = request
        self.asked = job.request.target
        self.later = targets[1:]
        self.before = before
        self.findings = findings
        self.state = State()
        self.ledger: Ledger = LaterRounds(job.ledger, before) if before else job.ledger
        self.listener = listener
        self.stop = job.stop
        self.scratch = place.scratch
        self.recipe: Recipe = recipe_for(request.pruning)
        # Before the weights, which may take minutes.
        for part in request.pruning.utilities:
            require_known(part.name, given=utilities)
        config = dense_config(request.model)
        pruning = request.pruning
        devices = pruning.tensor_parallel
        require_reachable(request.target, config, pruning.align, pruning.experts, devices)
        require_context(config, request.calibration.sequence_length)
        require_exportable(request.formats, config, pruning.layout)
        self.budget = budget(job.request, config)
        self.loaded = load(request.model, place.device, place.device_memory)
        require_tokenizer(self.loaded.tokenizer, request, self.scratch / "tokenizer")
        self.gates = gates_of(
            self.loaded.model, self.loaded.family, self.loaded.widths, request.pruning.experts
        )
        self.blocks = [
            block_of(gate.kind, gate.units, pruning.align, devices) for gate in self.gates
        ]
        self.dense_shapes = self._shapes()
        self.parameters_before = parameters(self.loaded.model)
        self.total = non_embedding_parameters(self.loaded.model)
        self.size = Size(self.parameters_before, self.total)
        self._require_room_to_trim()
        self.plan: Sequence[Units] = nothing(self.dense_shapes)
        self.earlier: list[Sequence[Units]] = []
        self.plan_damping: float | None = None
        self.weights: Tensors = {}
        self.prior: Tensors | None = None
        self.removed = 0
        self.masks_evaluated = 0
        dense = findings and findings.dense
        if request.own_samples and not dense:
            length = request.calibration.sequence_length
            listener(events.OwnTextStarted(request.own_samples, length))
        text_file = place.calibration_file
        self.batch = (
            dense.batch
            if dense
            else batch_of(self.loaded, request, self.go_on, text_file=text_file)
        )
        parts, live = request.pruning.utilities, self.loaded.live
        self.mixture = mixture_of(live, self.batch.tried, parts, utilities)
        self.bench = Bench(self.gates, self._blocks(self.batch.tried), self.mixture)
        self.ledger.open(self._fingerprint())
        if dense:
            self.perplexity_before, self.utilities_before = dense.perplexity, dense.utilities
            return
        self.perplexity_before = self._perplexity()
        self.utilities_before = self.mixture.measure_each(self.go_on)
        if findings:
            findings.dense = Dense(self.batch, self.perplexity_before, self.utilities_before)
        self._tell_loaded()

    def rounds(self) -> list[RoundRecord]:
        """Run, or replay from the ledger, every round until the target is met."""
        records: list[RoundRecord] = []
        for record in self.ledger.finished_rounds():
            if self.removed >= self._goal():
                break  # the rest belongs to the next target
            self._replay(record)
            records.append(record)
        while self.removed < self._goal():
            records.append(self._round(len(records) + 1))
        return records

    def _round(self, number: int) -> RoundRecord:
        started = time.perf_counter()
        self.go_on()
        prior = self.ledger.prior(number)
        if prior is None:
            prior = self.prior if self.prior is not None else self._known_prior(number)
            self.ledger.begin_round(number, prior)
        self.prior = prior
        situation = self._situation(number, prior)
        trials = self.recipe.propose(situation)
        utilities = self._try(number, trials)
        decision = self.recipe.decide(situation, trials, utilities)
        self._require_progress(decision)
        record = self._cut(number, decision) if decision.cut else self._plan(number, decision)
        account = _account(trials, utilities, decision)
        record = record.model_copy(update=account | {"notes": account["notes"] | record.notes})
        self.ledger.finish_round(record, self.weights)
        self._tell_finished(record, time.perf_counter() - started)
        return record

    def _known_prior(self, number: int) -> Tensors:
        """The prior that was scored for an earlier target while the model was the same, or now."""
        if self.findings is None:
            return self._score(number)
        place = self._in_place()
        if place not in self.findings.priors:
            self.findings.priors[place] = self._score(number)
        return self.findings.priors[place]

    def _shapes(self) -> list[GateShape]:
        """The gates as they are cut so far."""
        return shapes_of(self.gates, self.blocks)

    def _in_place(self) -> bytes:
        return self.state.with_plan(self.plan, self.plan_damping)

    def _score(self, number: int) -> Tensors:
        """The prior of every unit still there, from one pass; [U] per gate."""
        if self.recipe.prior is Prior.ELIMINATION:
            return self._elimination()
        backbone = self._backbone()
        statistics = column_statistics(backbone, self.gates, self.batch.listened, self.go_on)
        random = generator(self.request.pruning.seed, number, "prior")
        found = {}
        for gate, columns in zip(self.gates, statistics, strict=True):
            weight = gate.output.weight.to(self.loaded.device)  # it may lie in the host's memory
            scores = unit_scores(self.recipe.prior, weight, columns, gate.columns, random)
            found[gate.name] = torch.from_numpy(scores)
        return found

    def _elimination(self) -> Tensors:
        moments, damping = self._moments(), self.request.pruning.damping
        found = {}
        for gate in self.gates:
            self.go_on()
            of_gate = moments.of(gate)
            if gate.weightless:
                # Nothing can take over for its units, so what counts is how much goes to each.
                found[gate.name] = of_gate.diagonal().sqrt().double().cpu()
                continue
            scores = elimination.scores(moments.weight(gate), of_gate, gate.columns, damping)
            found[gate.name] = torch.from_numpy(scores)
        return found

    def _moments(self) -> second_moments.SecondMoments:
        """Of the model as it is cut; taken when first needed, before any plan is in place."""
        if self.bench.moments is None:
            self.bench.moments = second_moments.gather(
                self._listening("states"), self.gates, self.scratch, self.go_on
            )
        return self.bench.moments

    def _situation(self, number: int, prior: Tensors) -> Situation:
        return Situation(
            round=number,
            shapes=self._shapes(),
            scores=[prior[gate.name].numpy() for gate in self.gates],
            plan=self.plan,
            goal=self._goal() - self.removed,
            total=self.total,
            earlier=self.earlier,
        )

    def _try(self, number: int, trials: Sequence[Trial]) -> NDArray[np.float64]:
        """The utility of every trial, [M]: from the ledger, or measured now and written to it."""
        known = dict(self.ledger.utilities(number))
        known |= self._found_before(number, trials, known)
        self._tell_round(number, len(trials), len(known))
        for index in range(len(trials)):
            if index in known:
                continue
            self.go_on()
            started = time.perf_counter()
            known[index] = utility = self._utility(trials[index])
            seconds = time.perf_counter() - started
            self.ledger.record(number, index, utility, seconds)
            self.masks_evaluated += 1
            self.listener(events.MaskEvaluated(self.before + number, index, utility, seconds))
        if self.findings and self.later:
            self.findings.keep(self.state, self._in_place(), trials, known)
        return np.array([known[index] for index in range(len(trials))])

    def _found_before(
        self, number: int, trials: Sequence[Trial], known: Mapping[int, float]
    ) -> dict[int, float]:
        """What was measured of these trials for an earlier target, written to the ledger."""
        if self.findings is None:
            return {}
        place, found = self._in_place(), {}
        for index in range(len(trials)):
            if index in known:
                continue
            trial = trials[index]
            changed = self.state.with_plan(trial.absent, trial.damping)
            utility = self.findings.utility(place, changed)
            if utility is not None:
                found[index] = utility
                self.ledger.record(number, index, utility, 0.0)
        return found

    def _utility(self, trial: Trial) -> float:
        if trial.damping is not None or self._planned():
            self._moments()
            self.bench.plan(Trial(self.plan, self.plan_damping))
        return self.bench.measure(trial, self.go_on)

    def _take_over(self, plan: Sequence[Units], damping: float | None) -> None:
        if self._planned():
            self.earlier.append(self.plan)
        self.plan, self.plan_damping = plan, damping

    def _planned(self) -> bool:
        return any(len(units) for units in self.plan)

    def _plan(self, number: int, decision: Decision) -> RoundRecord:
        """Take a plan over as where the next round starts from."""
        self._take_over(list(decision.absent), decision.damping)
        self._moments()
        self.bench.put_in_place(Trial(self.plan, self.plan_damping))
        self.weights = {}
        return self._record(number, decision)

    def _cut(self, number: int, decision: Decision) -> RoundRecord:
        """Cut what was decided, repaired if asked for."""
        if decision.damping is not None or self._planned():
            self._moments()
            self.bench.put_in_place(Trial(decision.absent, decision.damping))
        else:
            self.bench.settle()
        if decision.damping is not None and self._adds_outputs():
            self._correct(decision.absent)
        self.weights = self.bench.weights()
        # Before the cut, for its units are numbered among those still there.
        record = self._record(number, decision)
        if decision.damping is not None:
            record = record.model_copy(update={"notes": self._choose_confidence()})
        self._apply(record, self.weights)
        return record.model_copy(update={"perplexity": self._perplexity()})

    def _choose_confidence(self) -> dict[str, float | None]:
        """Let the last norm say how sure the repaired model is; what to note of it."""
        norm = self._final_norm()
        if norm is None:
            return {}
        self.bench.refresh(self.go_on)
        factor = choose(norm, lambda: self.bench.measure_the_end(self.go_on))
        self.weights = {**self.weights, **norm.weights()}
        return {"confidence": factor}

    def _final_norm(self) -> FinalNorm | None:
        return FinalNorm.of(self.loaded.model, self.loaded.family)

    def _adds_outputs(self) -> bool:
        return holds(self.loaded.family.adds_outputs, self.loaded.model.config.to_dict())

    def _correct(self, absent: Sequence[Units]) -> None:
        """Let what stays make up for what was lost in the layers before it, too."""
        family, device = self.loaded.family, self.loaded.device
        factor = family.outputs_factor and getattr(self.loaded.model.config, family.outputs_factor)
        streams = Streams(
            self._listening("before"),
            self._listening("after"),
            Shelf(self.scratch / "within", device),
            factor or 1.0,
        )
        gone = {gate.name: gate.gone(units) for gate, units in zip(self.gates, absent, strict=True)}
        correct(self.gates, gone, self._moments(), streams, self.go_on)

    def _replay(self, record: RoundRecord) -> None:
        """Plan or cut as a finished round did; repaired weights are in the ledger."""
        if self.findings and self.later:
            self._find_again(record.number)
        if record.cut:
            self._apply(record, self.ledger.weights(record.number))
        else:
            self._take_over(self._positions(record), record.damping)

    def _find_again(self, number: int) -> None:
        """What a finished round measured, for the targets that follow."""
        prior = self.ledger.prior(number)
        if self.findings is None or prior is None:
            return
        self.findings.priors.setdefault(self._in_place(), prior)
        trials = self.recipe.propose(self._situation(number, prior))
        utilities = self.ledger.utilities(number)
        self.findings.keep(self.state, self._in_place(), trials, utilities)

    def _apply(self, record: RoundRecord, weights: Tensors) -> None:
        """Cut for good."""
        for gate, units in zip(self.gates, self._positions(record), strict=True):
            self.removed += cut(gate, units)
            if gate.name in weights:
                gate.output.weight.data.copy_(weights[gate.name])
        norm = self._final_norm()
        if norm is not None:
            norm.take(weights)
        self.state.cut(record)
        self.plan, self.earlier, self.prior = nothing(self._shapes()), [], None
        self.plan_damping = None
        self.bench.clear()
        self.loaded.streaming.place()

    def _positions(self, record: RoundRecord) -> list[NDArray[np.int64]]:
        """A record's units among those still there."""
        return [
            np.flatnonzero(np.isin(gate.kept, record.removed.get(gate.name, [])))
            for gate in self.gates
        ]

    def _record(self, number: int, decision: Decision) -> RoundRecord:
        removed = {
            gate.name: gate.kept[units].tolist()
            for gate, units in zip(self.gates, decision.absent, strict=True)
            if len(units)
        }
        gone = self.removed + sum(
            len(units) * gate.price for gate, units in zip(self.gates, decision.absent, strict=True)
        )
        return RoundRecord(
            number=number,
            removed=removed,
            cut=decision.cut,
            damping=decision.damping,
            sparsity=gone / self.total,
            perplexity=math.nan if decision.cut else self._perplexity(),
            trials=0,
            notes={},
        )

    def _require_progress(self, decision: Decision) -> None:
        if not any(len(units) for units in decision.absent):
            raise UnreachableTargetError(
                f"no further unit can go at a sparsity of {self.removed / self.total:.4f}",
                field=self.request.target.field,
                value=self.request.target.value,
                cure="ask for less, or use a smaller pruning.align",
            )

    def _perplexity(self) -> float:
        nll = mean_nll(self.loaded.model, self.loaded.family, self.batch.given, self.go_on)
        return perplexity_of(nll)

    def _goal(self) -> int:
        """Parameters to remove."""
        return self._goal_of(self.request.target)

    def _goal_of(self, target: Target) -> int:
        """Rounding must not ask for one more than can go."""
        return min(self._most(), math.ceil(target.share_to_remove(self.size) * self.total))

    def _most(self) -> int:
        return sum(removable(shape) * shape.price for shape in self.dense_shapes)

    def _rounds_needed(self) -> int:
        """At most, for all targets."""
        later = (self._goal_of(target) for target in self.later)
        return self.before + sum(
            self.recipe.rounds(goal, self.total) for goal in (self._goal(), *later)
        )

    def _listening(self, folder: str) -> Blocks:
        """The layers with all that is listened to, its states in a folder of the scratch space."""
        shelf = Shelf(self.scratch / folder, self.loaded.device)
        return self._blocks(self.batch.listened, shelf, self.batch.openings)

    def _blocks(
        self,
        sequences: torch.Tensor,
        shelf: Shelf | None = None,
        openings: torch.Tensor | None = None,
    ) -> Blocks:
        layers = self.loaded.model.get_submodule(self.loaded.family.layers)
        return Blocks(self._backbone(), layers, sequences, shelf, openings)

    def _backbone(self) -> torch.nn.Module:
        return self.loaded.model.get_submodule(self.loaded.family.backbone)

    def go_on(self) -> None:
        """Called before each forward pass."""
        if self.stop():
            raise Stopped("stopped between two forward passes; the ledger is whole")

    def _require_room_to_trim(self) -> None:
        pruning, widths = self.request.pruning, self.loaded.widths
        least = sum(trimmed(shape) * shape.price for shape in self.dense_shapes)
        if least > self._goal():
            raise UnreachableTargetError(
                f"bringing every layer's {widths.groups} groups and {widths.channels} channels to "
                f"multiples of pruning.tensor_parallel ({pruning.tensor_parallel}), channels also "
                f"of pruning.align ({pruning.align or 'not given'}), removes more",
                field=self.request.target.field,
                value=self.request.target.value,
                allowed=self.request.target.allowed(least, self._most(), self.size),
                cure="ask for more, or use values that divide them",
            )

    def _fingerprint(self) -> str:
        """Digest of all that decides the result, apart from versions and the kind of device."""
        inputs = {
            "algorithm": ALGORITHM,
            "model": self.loaded.digest,
            "dtype": str(self.loaded.dtype),
            "calibration": self.batch.sha256,
            "target": self.asked.model_dump(mode="json", exclude_defaults=True),
            "pruning": self.request.pruning.model_dump(mode="json"),
            "utility_inputs": self.mixture.inputs,
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def _tell_loaded(self) -> None:
        told = self.budget
        self.listener(
            events.ModelLoaded(
                architecture=self.loaded.family.architecture,
                device=str(self.loaded.device),
                dtype=str(self.loaded.dtype).removeprefix("torch."),
                parameters=self.parameters_before,
                non_embedding_parameters=self.total,
                rounds=self._rounds_needed(),
                perplexity=self.perplexity_before,
                trials=told.trials if told else None,
                trial_tokens=told.trial_tokens if told else None,
                forward_tokens=told.forward_tokens if told else None,
            )
        )

    def _tell_round(self, number: int, trials: int, in_ledger: int) -> None:
        self.listener(
            events.RoundStarted(
                round=self.before + number,
                rounds=self._rounds_needed(),
                masks=trials,
                masks_in_ledger=in_ledger,
                sparsity=self.removed / self.total,
            )
        )

    def _tell_finished(self, record: RoundRecord, seconds: float) -> None:
        self.listener(
            events.RoundFinished(
                round=self.before + record.number,
                rounds=self._rounds_needed(),
                sparsity=record.sparsity,
                perplexity=record.perplexity,
                seconds=seconds,
            )
        )


def _account(
    trials: Sequence[Trial], utilities: NDArray[np.float64], decision: Decision
) -> dict[str, Any]:
    """What a round's record tells of its trials."""
    spread = np.quantile(utilities, [0, 0.5, 1]).tolist() if len(trials) else None
    pairs = zip(decision.predicted, utilities.tolist(), strict=True) if decision.predicted else ()
    return {
        "trials": len(trials),
        "utilities": spread and tuple(spread),
        "predictions": list(pairs),
        "notes": dict(decision.notes),
    }
