"""Measures the models of a prune, and writes its report beside the result."""

import gc
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from bonsai_core import memory
from bonsai_core.config import ModelSource, PruneRequest
from bonsai_core.errors import PruneError, Stopped
from bonsai_core.events import Stop
from bonsai_core.exam import Exam, exam_for
from bonsai_core.measurement import Measurement, measure
from bonsai_core.models import device_named, load_saved
from bonsai_core.report.contents import Measured, contents
from bonsai_core.report.page import page

CONTENTS = "report.json"
PAGE = "report.html"


def write_report(
    request: PruneRequest,
    folder: Path,
    *,
    device: str = "auto",
    device_memory: int | None = None,
    stop: Stop = lambda: False,
    calibration_file: Path | None = None,
) -> None:
    """Write `report.json` and `report.html`, unless the request wants none.

    The dense model and each result are loaded one after the other, as their users will load them,
    and put to the same exam. What cannot be measured is said in the report and fails nothing, for
    the result is there.

    Args:
        request: of the prune.
        folder: that the prune wrote.
        device: auto, cpu, cuda or cuda:N.
        device_memory: bytes of the device that weights may take; see `prune`.
        stop: asked between two forward passes.
        calibration_file: text to read in place of `calibration.source`.

    Raises:
        Stopped: `stop` said so.
        UnavailableDeviceError: there is no such device.
    """
    if not request.report.enabled:
        return
    examiner = _Examiner(request, device_named(device), device_memory, stop, calibration_file)
    dense = examiner.ask(request.model)
    targets = request.target.each()
    places = [folder / target.folder for target in targets] if len(targets) > 1 else [folder]
    results = [examiner.ask(ModelSource(source=str(place.resolve()))) for place in places]
    of_results = dict(zip(places, results, strict=True))
    report = contents(request, folder, examiner.exam, dense, of_results)
    (folder / CONTENTS).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(report), encoding="utf-8")


@dataclass
class _Examiner:
    """Puts one exam to models, the dense one first, which helps to make it."""

    request: PruneRequest
    place: torch.device
    device_memory: int | None
    stop: Stop
    calibration_file: Path | None
    exam: Exam | None = None
    problem: str | None = None

    def ask(self, source: ModelSource) -> Measured:
        """What a model answers, or why it could not be asked."""
        if self.problem is not None:
            return Measured(problem=f"there is nothing to compare it with: {self.problem}")
        # The model before it goes before it comes: the prune's, or the one asked last.
        gc.collect()
        memory.give_back(self.place)
        try:
            return Measured(self._measure(source))
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the result is there
            problem = self._told(error)
            if self.exam is None:
                self.problem = problem
            return Measured(problem=problem)

    def _told(self, error: Exception) -> str:
        known = memory.shortage(error, self.place) or error
        return str(known) if isinstance(known, PruneError) else f"{type(known).__name__}: {known}"

    def _measure(self, source: ModelSource) -> Measurement:
        live = load_saved(source, self.place, self.device_memory)
        if self.exam is None:
            file = self.calibration_file
            self.exam = exam_for(live, self.request, text_file=file, go_on=self._go_on)
        return measure(source, live, self.exam, self._go_on)

    def _go_on(self) -> None:
        if self.stop():
            raise Stopped("stopped while the report was measured; the ledger is whole")
