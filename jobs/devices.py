"""Devices: what a worker has, and what a job needs. No driver and no database here."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DeviceKind(StrEnum):
    """What models run on."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class Device:
    """A worker's device, as it was when it was looked at.

    Attributes:
        kind: see `DeviceKind`.
        name: what it is, for people.
        memory_bytes: that a job may take of it when it has nothing else to do; None: not known.
        free_bytes: that a job may take of it now; None: not known.
        compute_capability: of a CUDA device, such as 9.0.
        failed: whether it did not compute when it was last asked.
    """

    kind: DeviceKind
    name: str
    memory_bytes: int | None = None
    free_bytes: int | None = None
    compute_capability: str | None = None
    failed: bool = False


class DeviceNeeds(BaseModel):
    """What a device must have for a job to run there."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: DeviceKind | None = None
    """`cuda` or `cpu`; null: any."""

    memory_bytes: Annotated[int | None, Field(strict=True, ge=1, lt=2**63)] = None
    """Bytes that must be free for the whole model to be there; null: estimated from the config in
    the model's folder, and not asked for where there is none."""

    streamed_memory_bytes: Annotated[int | None, Field(strict=True, ge=1, lt=2**63)] = None
    """Bytes that are enough on a CUDA device where no worker has one for the whole model: its
    layers come one by one. Null: estimated, or `memory_bytes` if that was given."""

    @model_validator(mode="after")
    def _streamed_is_less(self) -> "DeviceNeeds":
        whole, streamed = self.memory_bytes, self.streamed_memory_bytes
        if whole is not None and streamed is not None and streamed > whole:
            raise ValueError("streamed_memory_bytes must not be more than memory_bytes")
        return self
