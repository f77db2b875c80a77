"""Whether a result is what its manifest says: digests, counts, and one number measured again."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bonsai_core.config import ModelSource
from bonsai_core.errors import InvalidModelError
from bonsai_core.manifest import Check, checked_files, manifest_of
from bonsai_core.models import device_named, load_saved, non_embedding_parameters, parameters
from bonsai_core.probe import probe

_TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 3e-2}
"""Of the probe, relative: kernels of other devices and versions round in another order."""


def verify(folder: Path, device: str = "auto") -> list[Check]:
    """Check a result against its manifest, `bonsai.json`.

    The digests say that no file changed, the counts that it is as small as said, the probe that it
    computes what was measured. A file that is changed on purpose makes the manifest false.

    Args:
        folder: of a result.
        device: where the probe runs: auto, cpu, cuda or cuda:N.

    Raises:
        InvalidModelError: it has no manifest with digests.
        UnavailableDeviceError: there is no such device.
    """
    place = device_named(device)
    manifest = manifest_of(folder)
    checks = list(checked_files(folder, manifest))
    if all(check.holds for check in checks):  # what was changed would say nothing more
        checks += _model(folder, place, manifest)
    return checks


def _model(folder: Path, place: torch.device, manifest: dict[str, Any]) -> Iterator[Check]:
    """What the reloaded model is, beside what is said of it."""
    try:
        live = load_saved(ModelSource(source=str(folder)), place)
    except InvalidModelError as error:
        yield Check("loads", True, error.problem, False)
        return
    yield Check("loads", True, True, True)
    rest, before = non_embedding_parameters(live.model), manifest["non_embedding_parameters_before"]
    for name, found in (
        ("parameters", parameters(live.model)),
        ("non_embedding_parameters", rest),
        ("sparsity", (before - rest) / before),
    ):
        yield Check(name, manifest[name], found, found == manifest[name])
    said, measured = manifest["probe"], probe(live.model, live.family, place)
    near = math.isclose(measured, said["mean_nll"], rel_tol=_TOLERANCE.get(said["dtype"], 1e-3))
    yield Check("probe.mean_nll", said["mean_nll"], measured, near)
