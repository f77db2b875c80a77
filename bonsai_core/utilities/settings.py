"""What a request may say about utilities: a name, or a mix of them with weights. No torch here."""

from collections import Counter
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    field_validator,
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NoSettings(_Frozen):
    """Of a utility that has nothing to set."""


class KlSettings(_Frozen):
    """Of `kl`."""

    top: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 512
    """Tokens per position whose probability is compared one by one: the parent's likeliest."""


class Score(StrEnum):
    """What counts of a question."""

    MARGIN = "margin"
    ACCURACY = "accuracy"


class Likelihood(StrEnum):
    """How the log-likelihoods of a choice's tokens become one number."""

    MEAN = "mean"
    SUM = "sum"


class ChoiceSettings(_Frozen):
    """Of `choice`."""

    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"\.jsonl$")]
    """A `.jsonl` file: one object per line with `context`, `choices` and the `answer`'s index."""

    score: Score = Score.MARGIN
    """`margin`: nats by which the answer leads the best other. `accuracy`: share of leads."""

    likelihood: Likelihood = Likelihood.MEAN
    """`mean` over a choice's tokens, so that length does not count, or their `sum`."""

    questions: Annotated[int | None, Field(strict=True, ge=1, le=1_000_000)] = None
    """Questions taken from the beginning of the file; null: all of them."""


class FunctionSettings(_Frozen):
    """Of `function`."""

    path: Annotated[str, Field(max_length=400, pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$")]
    """What to call, as `package.module:function`."""


_SETTINGS: dict[str, type[_Frozen]] = {
    "nll": NoSettings,
    "perplexity": NoSettings,
    "kl": KlSettings,
    "choice": ChoiceSettings,
    "function": FunctionSettings,
}

UtilityName = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", examples=["nll"])
]


class WeightedUtility(_Frozen):
    """One part of a mix: the mix is worth the sum of weight times utility."""

    name: UtilityName
    """nll, perplexity, kl, choice, or a plug-in's; `function` in library and command line only."""

    weight: Annotated[float, Field(strict=True, gt=0, le=1_000_000, allow_inf_nan=False)] = 1.0
    """Factor of this part; parts in nats per token can be compared, others differ in scale."""

    settings: Annotated[dict[str, JsonValue], Field(max_length=64, validate_default=True)] = Field(
        default_factory=dict
    )
    """Of the utility itself; docs/add-a-utility.md lists those of the built-in ones."""

    label: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    """What the report calls it; null: its name. Needed where a name occurs twice."""

    @field_validator("settings")
    @classmethod
    def _settings_of_built_in_ones_are_whole(
        cls, value: dict[str, JsonValue], info: ValidationInfo
    ) -> dict[str, JsonValue]:
        kind = _SETTINGS.get(info.data.get("name", ""))
        return kind.model_validate(value).model_dump(mode="json") if kind else value

    @property
    def title(self) -> str:
        """What the report calls it."""
        return self.label or self.name


def _titles_differ(parts: tuple[WeightedUtility, ...]) -> tuple[WeightedUtility, ...]:
    for title, times in Counter(part.title for part in parts).items():
        if times > 1:
            raise ValueError(
                f"{title!r} stands for {times} of the utilities; give each a label of its own"
            )
    return parts


_Mix = Annotated[
    tuple[WeightedUtility, ...], Field(min_length=1, max_length=16), AfterValidator(_titles_differ)
]
_NAME: TypeAdapter[str] = TypeAdapter(UtilityName)
_MIX: TypeAdapter[tuple[WeightedUtility, ...]] = TypeAdapter(_Mix)


def _by_shape(value: Any, _handler: object) -> str | tuple[WeightedUtility, ...]:
    """Errors then name a path that the request has, where a union would name its own branches."""
    if isinstance(value, str):
        return _that_needs_no_settings(_NAME.validate_python(value))
    if isinstance(value, list | tuple):
        return _MIX.validate_python(value)
    raise ValueError("give the name of a utility, or a list of objects with name and weight")


def _that_needs_no_settings(name: str) -> str:
    try:
        WeightedUtility(name=name)
    except ValidationError as error:
        missing = ", ".join(str(fault["loc"][-1]) for fault in error.errors())
        raise ValueError(
            f"{name!r} needs settings ({missing}); give a list instead of the name: "
            f'[{{"name": "{name}", "settings": {{...}}}}]'
        ) from error
    return name


UtilityChoice = Annotated[UtilityName | _Mix, WrapValidator(_by_shape)]
"""The type of `pruning.utility`."""


def parts_of(choice: str | tuple[WeightedUtility, ...]) -> tuple[WeightedUtility, ...]:
    """The mix that a choice means; a name alone is a mix of one."""
    return (WeightedUtility(name=choice),) if isinstance(choice, str) else choice
