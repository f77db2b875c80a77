"""Bonsai through the library's front door: as the paper's code does it, and ours.

What a run spends is kept beside its ledger, so that a run that was interrupted and resumed counts
both halves. Every forward pass is counted, those over the dense model too, which a utility may
compare with; the seconds begin when the model is loaded and measured, and end before it is saved.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.change import Change
from benchmarks.spending import Meter, Spending
from bonsai_core import events
from bonsai_core.config import PruneRequest
from bonsai_core.file_ledger import FileLedger
from bonsai_core.gates import Gate
from bonsai_core.ledger import RoundRecord
from bonsai_core.pruner import prune


@dataclass
class Account:
    """What a run has spent, over all its interruptions; written whenever it grows."""

    path: Path
    before: Spending = field(default_factory=Spending)
    rounds: dict[int, Spending] = field(default_factory=dict)
    """Since the run's beginning, by finished round."""

    @staticmethod
    def opened(path: Path) -> "Account":
        """The account of an earlier run, or an empty one."""
        if not path.is_file():
            return Account(path)
        kept = json.loads(path.read_text())
        rounds = {int(number): Spending(**spent) for number, spent in kept["rounds"].items()}
        return Account(path, Spending(**kept["total"]), rounds)

    def note(self, spent: Spending, finished_round: int | None = None) -> Spending:
        """Write what this run has spent so far; the total with the runs before it."""
        total = self.before + spent
        if finished_round is not None:
            self.rounds[finished_round] = total
        kept = {
            "total": total.as_dict(),
            "rounds": {number: spent.as_dict() for number, spent in self.rounds.items()},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(kept))
        partial.replace(self.path)
        return total


@dataclass(frozen=True, slots=True)
class BonsaiRun:
    """A finished run: the model's folder, what it spent in all, and by round."""

    model: Path
    spending: Spending
    rounds: dict[int, Spending]
    records: Sequence[RoundRecord]

    def up_to(self, sparsity: float) -> tuple[int, Sequence[RoundRecord]]:
        """The number of the first round that cut to a sparsity, and all rounds up to it."""
        number = next(r.number for r in self.records if r.cut and r.sparsity >= sparsity - 1e-9)
        return number, self.records[:number]


def run(
    request: PruneRequest, work: Path, layers: nn.ModuleList, device: torch.device
) -> BonsaiRun:
    """Prune, or go on with what lies in `work`; all that it spends is counted.

    Args:
        request: what to do.
        work: folder of ledger, account and result; the result of an earlier run is replaced.
        layers: of a model of the same architecture, so that the meter knows them.
        device: where to run.
    """
    account = Account.opened(work / "spending.json")
    model = work / "model"
    shutil.rmtree(model, ignore_errors=True)
    spent, wrote = account.before, False
    with Meter(layers, device) as meter:

        def listen(event: events.Event) -> None:
            nonlocal spent, wrote
            if isinstance(event, events.OwnTextStarted):
                wrote = True
                meter.restart_clocks()
            elif isinstance(event, events.ModelLoaded) and not wrote:
                meter.restart_clocks()
            elif isinstance(event, events.RoundFinished):
                spent = account.note(meter.spent(), event.round)
            elif not isinstance(event, events.SaveStarted | events.ModelSaved):
                spent = account.note(meter.spent())

        ledger = FileLedger(work / "ledger")
        prune(request, model, ledger=ledger, device=str(device), listener=listen)
    return BonsaiRun(model, spent, account.rounds, ledger.finished_rounds())


def change_of(records: Sequence[RoundRecord], gates: Sequence[Gate]) -> Change:
    """What the first rounds of a run without refit cut, as a change of the dense model."""
    gone: dict[str, list[int]] = {}
    for record in records:
        for name, units in record.removed.items() if record.cut else ():
            gone.setdefault(name, []).extend(units)
    return Change([np.array(sorted(gone.get(gate.name, [])), dtype=np.int64) for gate in gates])
