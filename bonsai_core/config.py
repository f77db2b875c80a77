"""What a prune may be asked to do: the one definition, used by API, worker, client and library.

Frozen, closed to unknown keys, with ranges and units in the JSON schema. No torch here.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Prior(StrEnum):
    """How units are scored before any mask is tried; all from one statistics pass."""

    WANDA = "wanda"
    ACTIVATION = "activation"
    FLUCTUATION = "fluctuation"
    RANDOM = "random"


class Utility(StrEnum):
    """What a masked model is worth on the calibration batch; higher is better."""

    NLL = "nll"
    PERPLEXITY = "perplexity"


class Layout(StrEnum):
    """Which shapes the pruned model may have."""

    PER_LAYER = "per_layer"
    UNIFORM = "uniform"


class DType(StrEnum):
    """Number format the weights are loaded in; `auto` keeps the format they are stored in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelSource(_Frozen):
    """Where the model to prune comes from."""

    source: Annotated[str, Field(min_length=1, max_length=4096, examples=["/models/SmolLM2-135M"])]
    """A folder in Hugging Face format (absolute path), or a hub id such as `owner/name`."""

    revision: Annotated[str | None, Field(max_length=200)] = None
    """Branch, tag or commit of a hub id; refused for folders."""

    gguf_file: Annotated[str | None, Field(max_length=255, pattern=r"^[^/\\]+\.gguf$")] = None
    """Name of a GGUF file inside the folder or hub repository, read instead of safetensors."""

    dtype: DType = DType.AUTO
    """Number format of the weights while pruning and in the result."""

    @model_validator(mode="after")
    def _revision_needs_a_hub_id(self) -> "ModelSource":
        if self.revision is not None and self.is_folder:
            raise ValueError(
                f"revision: {self.revision!r} was given for the folder {self.source!r}; "
                "a revision belongs to a hub id such as 'owner/name'; leave it out"
            )
        return self

    @property
    def is_folder(self) -> bool:
        """Whether `source` names a folder rather than a hub id."""
        return self.source.startswith(("/", ".", "~"))


class CalibrationSource(_Frozen):
    """The text whose tokens the forward passes run on."""

    source: Annotated[str, Field(min_length=1, max_length=4096, examples=["/data/text.txt"])]
    """A `.txt` file, a `.jsonl` file (one object per line, its `text`), or a hub data set id."""

    samples: Annotated[int, Field(ge=1, le=4096)] = 32
    """Number of token sequences in the calibration batch."""

    sequence_length: Annotated[int, Field(ge=8, le=131072)] = 1024
    """Tokens per sequence."""

    @property
    def is_file(self) -> bool:
        """Whether `source` names a file rather than a hub data set."""
        return self.source.startswith(("/", ".", "~")) or self.source.endswith((".txt", ".jsonl"))

    @property
    def tokens(self) -> int:
        """Tokens in the calibration batch."""
        return self.samples * self.sequence_length


class Target(_Frozen):
    """How small the result shall be."""

    sparsity: Annotated[float, Field(gt=0, lt=1, examples=[0.5])]
    """Share of the non-embedding parameters to remove, between 0 and 1 (both excluded)."""


class Pruning(_Frozen):
    """How to prune. The defaults are the paper's settings (arXiv 2402.05406, section 4)."""

    prior: Prior = Prior.WANDA
    """How units are scored before any mask is tried."""

    utility: Utility = Utility.NLL
    """What a masked model is worth: minus the mean negative log-likelihood, or perplexity."""

    masks_per_round: Annotated[int, Field(ge=4, le=100_000)] = 200
    """Sub-models evaluated in each round; even, since each mask comes with its complement."""

    samples_per_mask: Annotated[int | None, Field(ge=1, le=4096)] = None
    """Sequences of the calibration batch that each mask is evaluated on; null: all of them."""

    sparsity_per_round: Annotated[float, Field(ge=0.005, le=0.5)] = 0.05
    """Share of the original non-embedding parameters removed in each round."""

    layout: Layout = Layout.PER_LAYER
    """`per_layer`: free widths in each layer. `uniform`: the same in all, a stock model."""

    align: Annotated[int, Field(ge=1, le=4096)] = 1
    """MLP widths of the result are multiples of this."""

    refit: bool = True
    """Refit the kept columns of the output projections by least squares on the calibration."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of every random choice of the run."""

    @field_validator("masks_per_round")
    @classmethod
    def _masks_come_in_pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError(
                f"masks_per_round: got {value}; each mask is evaluated with its complement, "
                f"so the number must be even; use {value + 1}"
            )
        return value


class PruneRequest(_Frozen):
    """One prune: a model, a calibration text, a target, and how to get there."""

    model: ModelSource
    calibration: CalibrationSource
    target: Target
    pruning: Pruning = Pruning()

    @model_validator(mode="after")
    def _masks_use_the_calibration_batch(self) -> "PruneRequest":
        samples = self.pruning.samples_per_mask
        if samples is not None and samples > self.calibration.samples:
            raise ValueError(
                f"pruning.samples_per_mask: got {samples}, more than calibration.samples "
                f"({self.calibration.samples}); leave it out to use all of them"
            )
        return self
