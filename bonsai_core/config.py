"""What a prune may be asked to do: the one definition, used by API, worker, client and library.

Frozen, closed to unknown keys, with ranges and units in the JSON schema. No torch here.
"""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bonsai_core.families import ExpertUnits
from bonsai_core.formats.names import Format
from bonsai_core.target import Target
from bonsai_core.utilities.settings import UtilityChoice, WeightedUtility, parts_of


class Prior(StrEnum):
    """How units are scored before any mask is tried; all from one statistics pass."""

    WANDA = "wanda"
    ACTIVATION = "activation"
    FLUCTUATION = "fluctuation"
    ELIMINATION = "elimination"
    RANDOM = "random"


class Preset(StrEnum):
    """Settings that belong together; what a request says itself comes before them."""

    BEST = "best"
    PAPER = "paper"
    STATISTICS = "statistics"


PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.BEST: {
        "recipe": "measured_damage",
        "prior": Prior.ELIMINATION,
        "utility": "kl",
        "refit": True,
    },
    Preset.PAPER: {
        "recipe": "random_masks",
        "prior": Prior.WANDA,
        "utility": "perplexity",
        "own_text": 0.0,
        "refit": False,
    },
    Preset.STATISTICS: {
        "recipe": "statistics",
        "prior": Prior.ELIMINATION,
        "utility": "nll",
        "refit": True,
    },
}


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


_TRIAL_SAMPLES = 4
_TRIAL_LENGTH = 256


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

    samples: Annotated[int, Field(strict=True, ge=1, le=4096)] = 32
    """Number of token sequences in the calibration batch."""

    sequence_length: Annotated[int, Field(strict=True, ge=8, le=131072)] = 1024
    """Tokens per sequence."""

    @property
    def is_file(self) -> bool:
        """Whether `source` names a file rather than a hub data set."""
        return self.source.startswith(("/", ".", "~")) or self.source.endswith((".txt", ".jsonl"))

    @property
    def tokens(self) -> int:
        """Tokens in the calibration batch."""
        return self.samples * self.sequence_length


class Pruning(_Frozen):
    """How to prune. A preset fills in what is not said."""

    preset: Preset = Preset.BEST
    """`best`: widths by measured damage, units by elimination, repair by least squares. `paper`:
    random masks and a regression, as in arXiv 2402.05406, section 4. `statistics`: no trials."""

    recipe: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][\w.-]*$")] = (
        "measured_damage"
    )
    """What decides: `measured_damage`, `random_masks`, `statistics`, or a plug-in's name."""

    prior: Prior = Prior.ELIMINATION
    """How units are scored before anything is tried."""

    utility: UtilityChoice = "kl"
    """What a trial is worth, higher being better: a name, or a weighted mix of several."""

    masks_per_round: Annotated[int, Field(strict=True, ge=4, le=100_000)] = 200
    """`random_masks`: sub-models of a round; even, since each mask comes with its complement."""

    sparsity_per_round: Annotated[float, Field(strict=True, ge=0.005, le=0.5)] = 0.05
    """`random_masks`: share of the original non-embedding parameters removed in each round."""

    improvements: Annotated[int, Field(strict=True, ge=0, le=100)] = 2
    """`measured_damage`: rounds that move width from layers that need it less to others."""

    own_text: Annotated[float, Field(strict=True, ge=0, le=0.9)] = 0.125
    """Sequences that the dense model writes itself, to be listened to beside the given ones, as a
    share of those, so that the result holds up on more than the given text; `paper`: none."""

    samples_per_mask: Annotated[int | None, Field(strict=True, ge=1, le=4096)] = None
    """Sequences of the calibration batch that trials are measured on; the statistics are taken
    from the others, if there are any. null: all for `random_masks`, else 4, a quarter at most.
    `random_masks` takes them whole, other recipes the first 256 tokens of each."""

    layout: Layout = Layout.PER_LAYER
    """`per_layer`: free widths in each layer. `uniform`: the same in all, a stock model."""

    experts: ExpertUnits = ExpertUnits.CHANNELS
    """Units of a mixture of experts, besides attention: `channels` of each expert, or `whole`
    experts, the router sharing out among those left. Without meaning for other models."""

    align: Annotated[int | None, Field(strict=True, ge=1, le=4096)] = None
    """MLP widths of the result are multiples of this. null: of the largest of 128, 64, 32, 16
    and 8 that divides the model's own width into 32 parts or more, so that programs run it fast."""

    tensor_parallel: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    """Devices that the result will be served on together, each with the same share of every layer:
    attention groups come in multiples of this, MLP widths in multiples of this times `align`."""

    refit: Annotated[bool, Field(strict=True)] = True
    """Refit the kept columns of the output projections by least squares on the calibration, and
    the weight of the last norm by one factor, so that the result is as sure as it should be."""

    damping: Annotated[float, Field(strict=True, ge=1e-6, le=10)] = 1e-3
    """Of the refit: ridge towards the old weights, as a share of the mean second moment.
    `measured_damage` tries others for the result."""

    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Seed of every random choice of the run."""

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        try:
            preset = Preset(value.get("preset", Preset.BEST))
        except ValueError:
            return value  # the field's own check says what is allowed
        return PRESETS[preset] | value

    @property
    def utilities(self) -> tuple[WeightedUtility, ...]:
        """The parts of the utility; a name alone is a mix of one."""
        return parts_of(self.utility)

    @field_validator("masks_per_round")
    @classmethod
    def _masks_come_in_pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError(
                f"masks_per_round: got {value}; each mask is evaluated with its complement, "
                f"so the number must be even; use {value + 1}"
            )
        return value


class ReportWish(_Frozen):
    """Of `report.html` and `report.json` beside the result."""

    enabled: Annotated[bool, Field(strict=True)] = True
    """Whether the dense model and each result are measured, and a report is written."""

    text: Annotated[str | None, Field(min_length=1, max_length=4096, pattern=r"\.(txt|jsonl)$")] = (
        None
    )
    """A `.txt` or `.jsonl` file, unlike the calibration text, for perplexity and questions."""

    prompts: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=2000)], ...], Field(max_length=8)
    ] = ()
    """Beginnings that each model is to go on with; if there are none, some of the calibration
    text."""


class PruneRequest(_Frozen):
    """One prune: a model, a calibration text, a target, and how to get there."""

    model: ModelSource
    calibration: CalibrationSource
    target: Target
    pruning: Pruning = Pruning()

    formats: Annotated[tuple[Format, ...], Field(max_length=len(Format))] = ()
    """What the result is written in besides its own folder, in folders inside it: GGUF files for
    llama.cpp, with their type of weights, and `mlx` for mlx-lm."""

    report: ReportWish = ReportWish()
    """What is measured for the report beside the result."""

    @field_validator("formats")
    @classmethod
    def _each_format_once(cls, value: tuple[Format, ...]) -> tuple[Format, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"formats: got {', '.join(value)}; name each once")
        return value

    @model_validator(mode="after")
    def _masks_use_the_calibration_batch(self) -> "PruneRequest":
        samples = self.pruning.samples_per_mask
        if samples is not None and samples > self.calibration.samples:
            raise ValueError(
                f"pruning.samples_per_mask: got {samples}, more than calibration.samples "
                f"({self.calibration.samples}); leave it out to use all of them"
            )
        return self

    def each(self) -> list[Self]:
        """A request for each result, the largest model first; without stops, this one alone."""
        return [self.model_copy(update={"target": target}) for target in self.target.each()]

    @property
    def own_samples(self) -> int:
        """Sequences of the calibration batch that the model writes itself."""
        return round(self.pruning.own_text * self.calibration.samples)

    @property
    def batch_samples(self) -> int:
        """Sequences of the calibration batch: of the given text, and the model's own."""
        return self.calibration.samples + self.own_samples

    @property
    def trial_samples(self) -> int:
        """Sequences of the calibration batch that trials are measured on."""
        asked = self.pruning.samples_per_mask
        if asked is not None:
            return asked
        if self.pruning.recipe == "random_masks":
            return self.batch_samples
        return max(1, min(_TRIAL_SAMPLES, self.calibration.samples // 4))

    @property
    def trial_length(self) -> int:
        """Tokens of each of them: many texts tell more than long ones."""
        length = self.calibration.sequence_length
        return length if self.pruning.recipe == "random_masks" else min(_TRIAL_LENGTH, length)

    @property
    def trial_own_samples(self) -> int:
        """Those of them that the model writes itself."""
        share = round(self.trial_samples * self.own_samples / self.batch_samples)
        needed = self.trial_samples - self.calibration.samples
        return min(max(share, needed), self.trial_samples - 1)

    @property
    def trial_given_samples(self) -> int:
        """Those of them that are of the given text."""
        return self.trial_samples - self.trial_own_samples
