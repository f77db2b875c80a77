"""Models that jobs may name: which there are, and what may go of one, from their configs."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bonsai_core.config import ModelSource
from bonsai_core.errors import PruneError
from bonsai_core.families import context_of, family_of, reachable_sparsity, widths_of
from bonsai_core.target import Size
from jobs.estimate import HUB
from jobs.request import model_config_of
from jobs.sources import Sources

MOST_FOLDERS = 2_000
"""That are looked into for a list."""

DEEPEST = 6
"""Folders below one that the operator has named."""

_WEIGHTS = (".safetensors", ".bin", ".gguf")


@dataclass(frozen=True, slots=True)
class Units:
    """What of a dense model can be pruned.

    Attributes:
        reachable_sparsity: the largest share of the non-embedding parameters that can go where no
            alignment is asked for.
        context: tokens of the longest sequence, where its config says so.
    """

    size: Size
    layers: int
    hidden_size: int
    attention_groups: int
    heads_per_group: int
    mlp_channels: int
    experts: int
    reachable_sparsity: float
    context: int | None


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a job may name.

    Attributes:
        weights_bytes: of its files; None for one that is not a folder.
        gguf_files: names of those, one of which a job names with the folder.
        dtype: that its weights are stored in, where its config says so.
        units: None where it cannot be pruned, or that is not known here.
        reason: why not, in words.
    """

    source: str
    weights_bytes: int | None = None
    gguf_files: tuple[str, ...] = ()
    architecture: str | None = None
    dtype: str | None = None
    units: Units | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The models of a list.

    Attributes:
        folders: that were looked into, with those below them; None: the operator has named none.
        complete: whether there were no more of them than are looked into.
    """

    models: tuple[Model, ...]
    folders: tuple[Path, ...] | None
    complete: bool


def inspect(source: str, sources: Sources) -> Model:
    """A model, and what may go of it.

    Raises:
        ForbiddenSourceError: no job may name it.
        InvalidModelError: there is none.
    """
    wish = ModelSource(source=source)
    sources.require_model(wish)
    return _looked_at(wish) if wish.is_folder else Model(source, reason=HUB)


def _looked_at(wish: ModelSource) -> Model:
    source = wish.source
    files = _gguf_files(Path(source))
    if files and not Path(source, "config.json").is_file():
        weights = _weights(Path(source))
        return Model(source, weights, files, reason=f"{HUB}: name one of its GGUF files")
    config = model_config_of(wish)
    assert config is not None
    return _of(source, config, files)


def found(sources: Sources) -> Found:
    """The models in the folders that the operator has named, by path."""
    if sources.folders is None:
        return Found((), None, complete=True)
    models: list[Model] = []
    looked = 0
    for folder in _folders(sources.folders):
        if looked == MOST_FOLDERS:
            return Found(tuple(models), sources.folders, complete=False)
        looked += 1
        if Path(folder, "config.json").is_file() or _gguf_files(folder):
            if not sources.lets_list(folder):
                continue
            try:
                models.append(_looked_at(ModelSource(source=str(folder))))
            except (PruneError, OSError):
                continue  # it is no model's config
    return Found(tuple(models), sources.folders, complete=True)


def _folders(roots: tuple[Path, ...]) -> Iterator[Path]:
    """They and what is below them, without following links."""
    for root in roots:
        for name, inner, _ in os.walk(root):
            folder = Path(name)
            deep = len(folder.relative_to(root).parts) >= DEEPEST
            inner[:] = [] if deep else sorted(each for each in inner if not each.startswith("."))
            yield folder


def _of(source: str, config: Mapping[str, Any], files: tuple[str, ...]) -> Model:
    said = config.get("dtype") or config.get("torch_dtype")
    named = config.get("architectures")
    known = Model(
        source=source,
        weights_bytes=_weights(Path(source)),
        gguf_files=files,
        architecture=str(named[0]) if isinstance(named, list) and named else None,
        dtype=said if isinstance(said, str) else None,
    )
    try:
        family_of(config)
        return replace(known, units=_units(config))
    except PruneError as error:
        reason = f"{error.problem}; {error.cure}" if error.cure else str(error)
        return replace(known, reason=reason)


def _units(config: Mapping[str, Any]) -> Units:
    widths = widths_of(config)
    return Units(
        size=Size.of(config),
        layers=widths.layers,
        hidden_size=widths.hidden,
        attention_groups=widths.groups,
        heads_per_group=widths.heads_per_group,
        mlp_channels=widths.channels,
        experts=widths.experts,
        reachable_sparsity=reachable_sparsity(config, align=None),
        context=context_of(config),
    )


def _gguf_files(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(path.name for path in folder.glob("*.gguf")))
    except OSError:
        return ()


def _weights(folder: Path) -> int:
    files = (path for path in folder.iterdir() if path.suffix in _WEIGHTS and path.is_file())
    return sum(path.stat().st_size for path in files)
