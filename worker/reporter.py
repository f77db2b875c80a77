"""What the core tells, as the job's progress and events."""

import time
from dataclasses import asdict

from bonsai_core import events
from jobs.attempts import AttemptStore, Claim
from jobs.ledger import LedgerStore
from jobs.patience import Patience
from jobs.progress import Stage
from worker.estimate import Estimate
from worker.pulse import Pulse

_SECONDS_BETWEEN_WRITES = 0.5


class Reporter:
    """A listener of the core that keeps the job's row up to date; trials are thinned out."""

    def __init__(
        self,
        attempts: AttemptStore,
        ledger: LedgerStore,
        claim: Claim,
        patiently: Patience,
        pulse: Pulse,
    ) -> None:
        self._patiently = patiently
        self._attempts = attempts
        self._ledger = ledger
        self._claim = claim
        # What earlier attempts have reached is still reached.
        self._progress = patiently(ledger.progress)
        self._estimate = Estimate(pulse)
        self._in_round = False
        self._written = 0.0
        self._show(stage=Stage.LOADING, seconds_per_mask=None)

    def __call__(self, event: events.Event) -> None:
        """See `bonsai_core.events.Listener`."""
        match event:
            case events.OwnTextStarted():
                self._tell("own_text_started", event)
            case events.ModelLoaded():
                self._show(
                    stage=Stage.PRUNING,
                    rounds=event.rounds,
                    perplexity_before=event.perplexity,
                )
                self._tell("model_loaded", event)
            case events.MemoryExhausted():
                self._show(stage=Stage.LOADING)
                self._tell("memory_exhausted", event)
            case events.RoundStarted():
                self._in_round = True
                self._estimate.round_started()
                self._show_estimate(
                    stage=Stage.PRUNING,
                    round=event.round,
                    rounds=event.rounds,
                    masks_evaluated=event.masks_in_ledger,
                    masks_resumed=event.masks_in_ledger,
                    masks_per_round=event.masks,
                    # What a round before this one has planned, though not yet cut, stays shown.
                    sparsity=max(self._progress.sparsity, event.sparsity),
                )
                self._tell("round_started", event)
            case events.MaskEvaluated():
                self._mask_evaluated(event)
            case events.RoundFinished():
                self._in_round = False
                self._estimate.round_finished(event.seconds)
                self._show_estimate(sparsity=event.sparsity, perplexity=event.perplexity)
                self._tell("round_finished", event)
            case events.SaveStarted():
                self._show(
                    stage=Stage.SAVING,
                    forward_passes_per_second=None,
                    seconds_left=None,
                    seconds_left_basis=None,
                )
            case events.ModelSaved():
                pass  # the job succeeds next, which says the same and more

    def _mask_evaluated(self, event: events.MaskEvaluated) -> None:
        self._estimate.mask_evaluated(event.seconds)
        done = self._progress.masks_evaluated + 1
        self._progress = self._progress.model_copy(update={"masks_evaluated": done})
        due = time.monotonic() - self._written >= _SECONDS_BETWEEN_WRITES
        if due or done == self._progress.masks_per_round:
            self._show_estimate()

    def _show_estimate(self, **changes: object) -> None:
        self._progress = self._progress.model_copy(update=changes)
        self._progress = self._estimate.of(self._progress, in_round=self._in_round)
        self._show()

    def _show(self, **changes: object) -> None:
        self._progress = self._progress.model_copy(update=changes)
        self._patiently(lambda: self._ledger.show_progress(self._progress))
        self._written = time.monotonic()

    def _tell(self, name: str, event: events.Event) -> None:
        self._patiently(lambda: self._attempts.report(self._claim, name, asdict(event)))
