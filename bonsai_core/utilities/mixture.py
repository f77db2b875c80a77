"""What a prune follows: one utility, or several with weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from bonsai_core.errors import InvalidUtilityError
from bonsai_core.events import GoOn, regardless
from bonsai_core.utilities.registry import factory_named
from bonsai_core.utilities.settings import WeightedUtility
from bonsai_core.utilities.tokens import Forward, TokenUtility, measure_tokens
from bonsai_core.utilities.utility import Factory, LiveModel, Utility, require_finite


@dataclass(frozen=True, slots=True)
class Part:
    """A utility of a mixture."""

    title: str
    weight: float
    utility: Utility


class Mixture:
    """The sum of weight times utility. Token utilities of its sequences share one forward pass."""

    name = "mixture"

    def __init__(self, live: LiveModel, sequences: Tensor, parts: Sequence[Part]) -> None:
        self._live = live
        self._sequences = sequences
        self._parts = tuple(parts)

    def measure(self, go_on: GoOn = regardless, *, forward: Forward | None = None) -> float:
        """What the model is worth now; see `measure_each`."""
        return self.total(self.measure_each(go_on, forward=forward))

    def measure_each(
        self, go_on: GoOn = regardless, *, forward: Forward | None = None
    ) -> dict[str, float]:
        """Each utility of the model as it is now, by title, before its weight.

        Args:
            go_on: called before each forward pass.
            forward: what gives the hidden states of the mixture's sequences; None: the model.
                Utilities that are none of their tokens run the model themselves.

        Raises:
            BrokenNumericsError: one of them is not finite.
        """
        shared = [part.utility for part in self._parts if self._shares(part.utility)]
        values = self._together(shared, forward, go_on)
        for part in self._parts:
            if id(part.utility) not in values:
                value = require_finite(float(part.utility.measure(go_on)), part.title)
                values[id(part.utility)] = value
        return {part.title: values[id(part.utility)] for part in self._parts}

    def total(self, values: Mapping[str, float]) -> float:
        """The mixture of what `measure_each` gave."""
        return sum(part.weight * values[part.title] for part in self._parts)

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of the files that utilities read, by title; empty where none reads any."""
        digests = {part.title: getattr(part.utility, "digest", "") for part in self._parts}
        return {title: str(digest) for title, digest in digests.items() if digest}

    def _shares(self, utility: Utility) -> bool:
        return isinstance(utility, TokenUtility) and utility.sequences is self._sequences

    def _together(
        self, utilities: Sequence[Utility], forward: Forward | None, go_on: GoOn
    ) -> dict[int, float]:
        """Values of token utilities by identity, from one pass."""
        tokens = [utility for utility in utilities if isinstance(utility, TokenUtility)]
        if not tokens:
            return {}
        found = measure_tokens(self._live, tokens, self._sequences, forward=forward, go_on=go_on)
        return {id(utility): value for utility, value in zip(tokens, found, strict=True)}


def mixture_of(
    live: LiveModel,
    sequences: Tensor,
    parts: Sequence[WeightedUtility],
    given: Mapping[str, Factory] | None = None,
) -> Mixture:
    """The mixture that a request asks for, made while the model is dense.

    Args:
        live: the model.
        sequences: [N, S] int64, what every trial is measured on, on the model's device.
        parts: of the request: `pruning.utilities`.
        given: further factories by name, from a caller of the library.

    Raises:
        InvalidUtilityError: a name is unknown, a plug-in does not load, or a factory refuses.
    """
    made = []
    for part in parts:
        factory = factory_named(part.name, given)
        utility = factory(live, sequences, part.settings)
        _require_utility(utility, part.name)
        made.append(Part(part.title, part.weight, utility))
    return Mixture(live, sequences, made)


def _require_utility(made: object, name: str) -> None:
    if not callable(getattr(made, "measure", None)):
        raise InvalidUtilityError(
            f"its factory gave {type(made).__name__}, which cannot measure anything",
            field="pruning.utility",
            value=name,
            allowed="an object with a method measure(go_on)",
        )
