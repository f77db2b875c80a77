"""Models that jobs may name, as they go over the wire."""

from dataclasses import asdict
from typing import Self

from api.wire import Wire
from jobs import models


class Units(Wire):
    """What of a dense model can be pruned."""

    parameters: int
    """All of the model; tied ones count once."""

    non_embedding_parameters: int
    """Without the input embedding and the output head, which are never pruned."""

    layers: int
    hidden_size: int
    attention_groups: int
    """Key-value groups in each layer; one goes or stays with its query heads."""

    heads_per_group: int
    mlp_channels: int
    """Intermediate channels of an MLP, or of one expert."""

    experts: int
    """In a layer; 0: the model has none."""

    reachable_sparsity: float
    """The largest share of the non-embedding parameters that can go, in either layout, with
    the default `align`."""

    context: int | None
    """Tokens of the longest sequence that it was made for; null: its config does not say."""


class Model(Wire):
    """A model that a job may name."""

    source: str
    """What a job says as `model.source`."""

    weights_bytes: int | None
    """Of its files; null: it is on a hub."""

    gguf_files: list[str]
    """One of which a job may name as `model.gguf_file`."""

    architecture: str | None
    dtype: str | None
    """That its weights are stored in."""

    prunable: bool | None
    """null: only a worker can tell; `reason` says why."""

    reason: str | None
    units: Units | None
    """null: it cannot be pruned, or that is not known here."""

    @classmethod
    def of(cls, model: models.Model) -> Self:
        """The model as it was found."""
        unknown = model.units is None and model.architecture is None
        units = model.units
        return cls(
            source=model.source,
            weights_bytes=model.weights_bytes,
            gguf_files=list(model.gguf_files),
            architecture=model.architecture,
            dtype=model.dtype,
            prunable=None if unknown else units is not None,
            reason=model.reason,
            units=units
            and Units(
                parameters=units.size.parameters,
                non_embedding_parameters=units.size.non_embedding,
                **{name: it for name, it in asdict(units).items() if name != "size"},
            ),
        )


class ModelPage(Wire):
    """The models in the folders that the operator has named (`BONSAI_SOURCE_FOLDERS`)."""

    items: list[Model]
    folders: list[str] | None
    """That were looked into; null: the operator has named none, so that jobs may name any folder
    of this machine, and none is listed."""

    complete: bool
    """Whether all folders below them were looked into; in very many, some are left out."""

    next_cursor: None = None
    """The list is whole."""

    @classmethod
    def of(cls, found: models.Found) -> Self:
        """The page of what was found."""
        return cls(
            items=[Model.of(model) for model in found.models],
            folders=None if found.folders is None else [str(each) for each in found.folders],
            complete=found.complete,
        )
