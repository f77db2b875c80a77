"""Statistics of one calibration batch: gathered when first asked for, kept in files, shared.

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
from bonsai_core.blocks import Blocks
from bonsai_core.gates import Gate
from bonsai_core.second_moments import SecondMoments, gather
from bonsai_core.shelf import Shelf
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
        layers: nn.ModuleList,
        gates: Sequence[Gate],
        batch: Callable[[], Tensor],
        folder: Path,
        meter: Meter,
    ) -> None:
        """Nothing is gathered yet.

        Args:
            backbone: of the dense model.
            layers: its decoder layers.
            gates: of the model.
            batch: gives the calibration tokens [N, S] on the model's device; called when needed.
            folder: where statistics are kept; another batch needs another folder.
            meter: open while statistics are gathered.
        """
        self._backbone = backbone
        self._layers = layers
        self._gates = gates
        self._batch = batch
        self._folder = folder
        self._meter = meter

    def prepare(self, need: Need) -> Spending:
        """Gather what a method needs, if no method has needed it before; what gathering cost."""
        if need is Need.NOTHING:
            return Spending()
        # Written last, so that half of the statistics are never taken for the whole.
        account = self._folder / f"{need}.json"
        if not account.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._meter.restart()
            self._gather_columns() if need is Need.COLUMNS else self._gather_moments()
            account.write_text(json.dumps(self._meter.spent().as_dict()))
        return Spending(**json.loads(account.read_text()))

    def columns(self, gate: Gate) -> ColumnStatistics:
        """Moments of a gate's columns; COLUMNS have been prepared."""
        with safe_open(self._columns, framework="pt") as file:
            return ColumnStatistics(*file.get_tensor(gate.name).unbind())

    def moments(self, gate: Gate) -> Tensor:
        """The mean of x x' at a gate, [C, C] float32; MOMENTS have been prepared."""
        return SecondMoments(self._moments, self._device).of(gate)

    def mean_square(self, gate: Gate, need: Need) -> Tensor:
        """The mean of x^2 at a gate, [C] float64, from one or the other."""
        if need is Need.MOMENTS:
            return self.moments(gate).diagonal().double().cpu()
        return self.columns(gate).mean_square

    @property
    def _device(self) -> torch.device:
        return next(self._backbone.parameters()).device

    @property
    def _columns(self) -> Path:
        return self._folder / "columns.safetensors"

    @property
    def _moments(self) -> Path:
        return self._folder / "moments"

    def _gather_columns(self) -> None:
        found = column_statistics(self._backbone, self._gates, self._batch())
        stacked = {
            gate.name: torch.stack([s.mean, s.mean_absolute, s.mean_square])
            for gate, s in zip(self._gates, found, strict=True)
        }
        save_file(stacked, self._columns)

    def _gather_moments(self) -> None:
        states = Shelf(self._folder / "states", self._device)
        blocks = Blocks(self._backbone, self._layers, self._batch(), states)
        gather(blocks, self._gates, self._moments)
