"""What a client posts to create a job, and the checks that need no torch."""

import json
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, Field, JsonValue

from bonsai_core.config import CalibrationSource, ModelSource, PruneRequest
from bonsai_core.errors import InvalidCalibrationError, InvalidModelError
from bonsai_core.families import family_of, require_context
from bonsai_core.footprint import footprint
from bonsai_core.formats.block import require_exportable
from bonsai_core.recipes.names import require_known
from bonsai_core.target import Target as Target
from bonsai_core.target import require_reachable
from bonsai_core.utilities.remote import require_remote
from jobs.devices import DeviceNeeds
from jobs.errors import WrongOwnerError
from jobs.roles import Caller
from jobs.schedule import Schedule
from jobs.sources import Sources

Label = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._/-]+$")]
Owner = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$")]
DEFAULT_OWNER = "default"
LabelValue = Annotated[str, Field(max_length=255)]

MOST_METADATA = 16_384
"""Bytes of a job's metadata, as JSON."""


def _storable(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        size = len(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode())
    except ValueError as error:
        raise ValueError(f"holds what JSON cannot say: {error}") from error
    if size > MOST_METADATA:
        raise ValueError(f"has {size} bytes as JSON; {MOST_METADATA} are allowed")
    return metadata


Metadata = Annotated[dict[str, JsonValue], AfterValidator(_storable)]

_OF_CALIBRATION = {"nll", "perplexity", "kl"}
"""Utilities of the calibration text."""


class OwnedRequest(Protocol):
    """A request that may name an owner."""

    @property
    def owner(self) -> str:
        """The one named, or the default."""
        ...

    @property
    def model_fields_set(self) -> set[str]:
        """The fields that it names."""
        ...


class JobRequest(PruneRequest):
    """A prune with a name, an owner and a schedule: the body of POST /v1/jobs."""

    name: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """A name for people; need not be unique."""

    labels: Annotated[dict[Label, LabelValue], Field(max_length=64)] = Field(default_factory=dict)
    """Free key-value pairs to find jobs by."""

    metadata: Metadata = Field(default_factory=dict)
    """Anything as JSON, up to 16 KiB, that nobody here reads: links, commits, tickets."""

    owner: Owner = DEFAULT_OWNER
    """Whom the job counts for: between owners the devices are shared out fairly. Left out, the
    owner of the key that it is submitted with; viewers and submitters may name no other."""

    schedule: Schedule = Schedule()
    """When the job may run, and before which others."""

    device: DeviceNeeds = DeviceNeeds()
    """What it needs of the device that it runs on."""

    @property
    def tokens_per_mask(self) -> int | None:
        """Calibration tokens that each mask is judged on; None where a utility judges by others."""
        if any(part.name not in _OF_CALIBRATION for part in self.pruning.utilities):
            return None
        return self.trial_samples * self.trial_length


def check_inputs(request: JobRequest, sources: Sources) -> JobRequest:
    """Check what can be checked before any work starts: names, where the inputs come from, files,
    architecture, the target.

    Hub ids are checked by the worker, which is the process that may reach the hub.

    Returns:
        The request, with what it needs of a device written out if that can be estimated.

    Raises:
        PruneError: the subclass says what is wrong, with field, value and cure.
    """
    require_known(request.pruning.recipe)
    # Before any file is looked at: what is there outside is not told.
    sources.require_allowed(request)
    require_remote(request.pruning.utilities)
    needs = request.device
    config = model_config_of(request.model)
    if config is not None:
        family_of(config)
        pruning = request.pruning
        devices = pruning.tensor_parallel
        require_reachable(request.target, config, pruning.align, pruning.experts, devices)
        require_context(config, request.calibration.sequence_length)
        require_exportable(request.formats, config, pruning.layout)
        needs = _estimated(request, config)
    if request.calibration.is_file:
        _check_text(request.calibration)
    if request.report.text is not None:
        _check_report_text(request.report.text)
    return request.model_copy(update={"device": needs})


def owned(request: JobRequest, caller: Caller | None, field: str = "owner") -> JobRequest:
    """The request with its caller's owner where it names none; `field` is where it may name one.

    Raises:
        WrongOwnerError: it names one that the caller may not submit for.
    """
    return request.model_copy(update={"owner": owner_of(request, caller, field)})


def owner_of(request: OwnedRequest, caller: Caller | None, field: str = "owner") -> str:
    """Whom a request is for: the owner that it names, otherwise its caller's.

    Raises:
        WrongOwnerError: as `owned`.
    """
    named = request.owner if "owner" in request.model_fields_set else None
    return owner_for(named, caller, field)


def owner_for(named: str | None, caller: Caller | None, field: str = "owner") -> str:
    """As `owner_of`, for the owner that is named, if any is."""
    own = DEFAULT_OWNER if caller is None else caller.owner
    if named is None:
        return own
    if caller is not None and not caller.sees(named):
        raise WrongOwnerError(named, own, field)
    return named


def _estimated(request: JobRequest, config: dict[str, Any]) -> DeviceNeeds:
    """What the request says that it needs, and estimates for what it leaves open."""
    said = request.device
    if said.memory_bytes is not None:
        return said
    found = footprint(config, request.model.dtype, request.calibration.sequence_length)
    least = said.streamed_memory_bytes or found.streamed
    whole = max(found.whole, least)
    return said.model_copy(update={"memory_bytes": whole, "streamed_memory_bytes": least})


def model_config_of(model: ModelSource) -> dict[str, Any] | None:
    """The config of a model folder; None for what the worker reads: a hub's, a GGUF file's.

    Raises:
        InvalidModelError: the folder or its config is missing, or cannot be read.
    """
    if not model.is_folder:
        return None
    folder = Path(model.source)
    if not folder.is_absolute():
        raise InvalidModelError(
            "a folder must be given as an absolute path",
            field="model.source",
            value=model.source,
            cure=f"use {str(folder.expanduser().resolve())!r} if that is the folder meant",
        )
    if not folder.is_dir():
        raise InvalidModelError(
            "there is no such folder where the service runs",
            field="model.source",
            value=model.source,
            cure="give a folder that API and workers share, or a hub id such as 'owner/name'",
        )
    needed = model.gguf_file or "config.json"
    if not (folder / needed).is_file():
        raise InvalidModelError(
            f"the folder has no {needed}",
            field="model.gguf_file" if model.gguf_file else "model.source",
            value=model.source,
            allowed=", ".join(sorted(entry.name for entry in folder.iterdir())[:20]) or "nothing",
            cure="give a folder in Hugging Face format, or name its GGUF file in model.gguf_file",
        )
    if model.gguf_file:
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModelError(
            f"config.json cannot be read: {error}", field="model.source", value=model.source
        ) from error
    if not isinstance(config, dict):
        raise InvalidModelError(
            "config.json must hold an object", field="model.source", value=model.source
        )
    return config


def _check_report_text(text: str) -> None:
    path = Path(text)
    if not path.is_absolute() or not path.is_file():
        raise InvalidCalibrationError(
            "there is no such file where the service runs",
            field="report.text",
            value=text,
            allowed="the absolute path of a .txt or .jsonl file",
            cure="give a file that API and workers share, or leave it out",
        )


def _check_text(calibration: CalibrationSource) -> None:
    """A token is at least one byte: a file with fewer bytes than tokens asked is too short."""
    path = Path(calibration.source)
    if path.is_absolute() and path.is_dir():
        return  # a data set's folder, which the worker opens
    if not path.is_absolute() or not path.is_file():
        raise InvalidCalibrationError(
            "there is no such file where the service runs",
            field="calibration.source",
            value=calibration.source,
            allowed="the absolute path of a .txt or .jsonl file or of a data set's folder, or a "
            "hub data set id",
            cure="give a file that API and workers share",
        )
    if path.suffix not in {".txt", ".jsonl"}:
        raise InvalidCalibrationError(
            "the ending of the file does not say what it holds",
            field="calibration.source",
            value=calibration.source,
            allowed=".txt (plain text), .jsonl (one object per line with a text)",
        )
    size = path.stat().st_size
    if size < calibration.tokens:
        raise InvalidCalibrationError(
            f"the file has {size} bytes and cannot hold {calibration.samples} sequences of "
            f"{calibration.sequence_length} tokens",
            field="calibration.source",
            value=calibration.source,
            cure="give a longer text, or lower calibration.samples or sequence_length",
        )
