"""How small the result shall be, in the terms that whoever asks has at hand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bonsai_core.errors import UnreachableTargetError
from bonsai_core.families import (
    ExpertUnits,
    embedding_parameters,
    fixed_parts,
    non_embedding_parameters,
    reachable_sparsity,
)


class StoredDType(StrEnum):
    """Number format that weights are counted in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @property
    def item_bytes(self) -> int:
        """Bytes of one weight."""
        return 4 if self is StoredDType.FLOAT32 else 2


MOST_STOPS = 16


@dataclass(frozen=True, slots=True)
class Size:
    """Parameters of a dense model; tied ones count once."""

    parameters: int
    """All."""
    non_embedding: int
    """Without the input embedding and the output head, which are never pruned."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """The size of the model of a config.

        Raises:
            InvalidModelError: a size that the config must say is missing or not positive.
            UnsupportedModelError: the architecture is not one of `bonsai_core.families`.
        """
        inside = non_embedding_parameters(config)
        return cls(inside + embedding_parameters(config), inside)


class Target(BaseModel):
    """How small the result shall be: one of `sparsity`, `parameters` and `memory_bytes`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sparsity: Annotated[float | None, Field(strict=True, gt=0, lt=1, examples=[0.5])] = None
    """Share of the non-embedding parameters to remove, between 0 and 1 (both excluded)."""

    parameters: Annotated[
        int | None, Field(strict=True, ge=1, lt=2**63, examples=[100_000_000])
    ] = None
    """The most parameters that the result may have, embeddings included, tied ones once."""

    memory_bytes: Annotated[
        int | None, Field(strict=True, ge=1, lt=2**63, examples=[200_000_000])
    ] = None
    """The most bytes that the weights of the result may take, stored in `dtype`."""

    dtype: StoredDType | None = None
    """Number format that `memory_bytes` is meant for, bfloat16 if none is given; the result keeps
    the format of `model.dtype`."""

    stops: Annotated[
        tuple[Annotated[float, Field(strict=True)], ...],
        Field(max_length=MOST_STOPS, examples=[[]]),
    ] = ()
    """Further results of the same run, larger than the last one, in the same term: `sparsity` 0.5
    with the stops 0.2 and 0.35 gives three models. Each is what a run of its own would give; what
    is measured for one is not measured again for another."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        said = self.model_dump(include={"sparsity", "parameters", "memory_bytes"})
        given = [name for name, value in said.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"got {', '.join(given) or 'none of them'}; say one of {', '.join(said)}"
            )
        if self.dtype is not None and self.memory_bytes is None:
            raise ValueError(f"dtype: {self.dtype} was given for {given[0]}; it is of memory_bytes")
        return self

    @model_validator(mode="after")
    def _stops_come_before(self) -> Self:
        said = [*self.stops, self.value]
        in_order = sorted(set(said), reverse=self.sparsity is None)
        if said != in_order or not all(stop > 0 for stop in self.stops):
            raise ValueError(
                f"stops: got {list(self.stops)} on the way to {self.value}; each must be a larger "
                "model than the next, the last one larger than the target"
            )
        if self.sparsity is None and any(stop != int(stop) for stop in self.stops):
            raise ValueError(f"stops: got {list(self.stops)}; say them in whole numbers")
        return self

    def each(self) -> list[Self]:
        """A target for each result, the largest model first; this one without stops is the last."""
        name = self.field.rpartition(".")[2]
        whole = float if self.sparsity is not None else int
        on_the_way = [{name: whole(stop)} for stop in self.stops]
        return [self.model_copy(update={**said, "stops": ()}) for said in (*on_the_way, {})]

    @property
    def folder(self) -> str:
        """Name of the folder of its result, where there are several."""
        return f"{self.field.rpartition('.')[2]}-{self.value}"

    @property
    def field(self) -> str:
        """Dotted path of what the target is said in."""
        if self.sparsity is not None:
            return "target.sparsity"
        return "target.parameters" if self.parameters is not None else "target.memory_bytes"

    @property
    def value(self) -> float | int:
        """What it says there."""
        said = (self.sparsity, self.parameters, self.memory_bytes)
        return next(value for value in said if value is not None)

    def share_to_remove(self, size: Size) -> float:
        """Share of the non-embedding parameters that has to go; none, or less, where the model is
        as small as that already."""
        if self.sparsity is not None:
            return self.sparsity
        return (size.parameters - self.value // self._unit) / size.non_embedding

    def allowed(self, least: int, most: int, size: Size) -> str:
        """What may be asked of a model from which `least` to `most` parameters can go, in words."""
        if self.sparsity is not None:
            above, up_to = least / size.non_embedding, most / size.non_embedding
            lower = f"from {math.ceil(above * 1e4) / 1e4}" if least else "above 0"
            return f"{lower}, up to {math.floor(up_to * 1e4) / 1e4} for this model"
        smallest, largest = ((size.parameters - gone) * self._unit for gone in (most, least))
        return f"from {smallest}, {'up to' if least else 'below'} {largest} for this model"

    @property
    def _unit(self) -> int:
        """What a parameter counts."""
        return 1 if self.memory_bytes is None else (self.dtype or StoredDType.BFLOAT16).item_bytes


def require_reachable(
    target: Target,
    config: Mapping[str, Any],
    align: int | None,
    experts: ExpertUnits = ExpertUnits.CHANNELS,
    devices: int = 1,
) -> None:
    """Refuse a target, or a stop on the way, that the dense model of a config meets already, or
    that no plan can meet.

    Args:
        target: what was asked.
        config: of the dense model.
        align: widths of MLPs are multiples of this, on each device; None: of what suits them.
        experts: what the units of a mixture are.
        devices: that share the units.

    Raises:
        UnreachableTargetError: the share to remove is not above 0, or more than can go; or the
            model is narrower than `align` and `devices` allow.
    """
    reachable = reachable_sparsity(config, align, experts, devices)
    for single in target.each():
        _require_one_reachable(single, config, reachable)


def _require_one_reachable(target: Target, config: Mapping[str, Any], reachable: float) -> None:
    size = Size.of(config)
    share = target.share_to_remove(size)
    if 0 < share <= reachable:
        return
    problem = "the model is no larger than that as it is"
    if share > 0:
        problem = (
            "more than can be removed while every layer keeps one attention group and one "
            f"aligned block of channels, or one expert, on each device{fixed_parts(config)}"
        )
    raise UnreachableTargetError(
        problem,
        field=target.field,
        value=target.value,
        allowed=target.allowed(0, math.floor(reachable * size.non_embedding), size),
        cure="remove less, or use a smaller pruning.align or pruning.tensor_parallel"
        if share > 0
        else "ask for less",
    )
