"""Statistics of one calibration batch: gathered when first asked for, kept in a file, shared.

Each method is charged what the statistics it uses cost, as if it had gathered them alone.
"""

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.spending import Meter, Spending
from bonsai_core import second_moments
from bonsai_core.events import regardless
from bonsai_core.gates import Gate
from bonsai_core.statistics import ColumnStatistics, column_statistics


class Need(StrEnum):
    """What a method must know of the calibration batch."""

    NOTHING = "nothing"
    COLUMNS = "columns"
    MOMENTS = "moments"


class Statistics:
    """Columns' moments and second moments at the gates of a dense model over one batch."""

    def __init__(
        self,
        backbone: nn.Module,
        gates: Sequence[Gate],
        batch: Callable[[], Tensor],
        folder: Path,
        meter: Meter,
    ) -> None:
        """Nothing is gathered yet.

        Args:
            backbone: of the dense model.
            gates: of the model.
            batch: gives the calibration tokens [N, S] on the model's device; called when needed.
            folder: where statistics are kept; another batch needs another folder.
            meter: open while statistics are gathered.
        """
        self._backbone = backbone
        self._gates = gates
        self._batch = batch
        self._folder = folder
        self._meter = meter
        self._need = Need.NOTHING
        self._prepared: dict[str, Tensor] = {}
        self._spent = Spending()

    def prepare(self, need: Need) -> Spending:
        """Have in memory what a method needs, and nothing else; what it cost to gather."""
        if need is not self._need:
            self._prepared, self._spent = {}, Spending()
            if need is Need.COLUMNS:
                self._prepared, self._spent = self._kept(need, self._gather_columns)
            elif need is Need.MOMENTS:
                self._prepared, self._spent = self._kept(need, self._gather_moments)
            self._need = need
        return self._spent

    def columns(self, gate: Gate) -> ColumnStatistics:
        """Moments of a gate's columns; needs COLUMNS."""
        assert self._need is Need.COLUMNS
        return ColumnStatistics(*self._prepared[gate.name].unbind())

    def moments(self, gate: Gate) -> Tensor:
        """The mean of x x' at a gate, [C, C] float32; needs MOMENTS."""
        assert self._need is Need.MOMENTS
        return self._prepared[gate.name]

    def mean_square(self, gate: Gate) -> Tensor:
        """The mean of x^2 at a gate, [C] float64, from what was prepared."""
        if self._need is Need.MOMENTS:
            return self.moments(gate).diagonal().double().cpu()
        return self.columns(gate).mean_square

    def _gather_columns(self) -> dict[str, Tensor]:
        found = column_statistics(self._backbone, self._gates, self._batch())
        return {
            gate.name: torch.stack([s.mean, s.mean_absolute, s.mean_square])
            for gate, s in zip(self._gates, found, strict=True)
        }

    def _gather_moments(self) -> dict[str, Tensor]:
        found = second_moments.gather(self._backbone, self._gates, self._batch(), regardless)
        return {gate.name: found[gate.name] for gate in self._gates}

    def _kept(
        self, need: Need, gather: Callable[[], dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], Spending]:
        path = self._folder / f"{need}.safetensors"
        if not path.is_file():
            self._meter.restart()
            found = gather()
            spent = {"spending": json.dumps(self._meter.spent().as_dict())}
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            save_file(found, partial, metadata=spent)
            partial.rename(path)
        device = self._gates[0].output.weight.device if need is Need.MOMENTS else "cpu"
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, Spending(**json.loads(file.metadata()["spending"]))
