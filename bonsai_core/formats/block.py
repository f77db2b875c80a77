"""Which formats have a block that computes what the layers of a model compute. No torch.

Asked before a prune of what the dense model's config says, and again of what was written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bonsai_core.config import Layout
from bonsai_core.errors import UnsupportedExportError
from bonsai_core.formats.names import Format

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""By `model_type`: those whose block other formats have, too."""

_SERVE = "serve the folder itself, as docs/serving.md shows"


@dataclass(frozen=True, slots=True)
class Block:
    """What formats differ in.

    Attributes:
        field: where the wish for a format was said, for errors.
        value: what was said there.
        family: `model_type` of the family.
        uniform: whether all layers have the same widths.
        stock: whether it is a model of the family's own class, or of one that stands in for it.
        square: whether the query heads have as many rows as the hidden size.
        tied: whether the head is the embedding.
        biased: whether any projection has a bias.
        rope_type: kind of the rotary frequencies.
        window: tokens that attention looks back, if not all.
    """

    field: str
    value: object
    family: str
    uniform: bool
    stock: bool
    square: bool
    tied: bool
    biased: bool
    rope_type: str
    window: int | None

    def gguf_architecture(self) -> str:
        """The architecture of llama.cpp that computes this block.

        Raises:
            UnsupportedExportError: there is none.
        """
        found = self._gguf_block()
        if self.rope_type not in ("default", "linear") and (
            self.rope_type != "llama3" or found not in ROTATES_NEIGHBOURS
        ):
            raise self._refused(
                f"rotary frequencies of rope_type {self.rope_type!r} are not written to GGUF",
                "rope_type default, linear; llama3 for Llama, Mistral and Qwen2 blocks",
                _SERVE,
            )
        return found

    def _gguf_block(self) -> str:
        match self.family:
            case "llama" | "mistral":
                return "llama" if self.uniform else "deci"
            case "qwen2":
                # The architecture of this name takes as many query rows as hidden elements.
                return "qwen2" if self.uniform and self.square else "deci"
        if self.uniform and not self.biased:
            return "qwen3"
        if self.tied and not self.biased:
            return "openelm"
        what = "biases" if self.biased else "widths for each layer and a head of its own"
        raise self._refused(
            f"llama.cpp has no architecture with norms of queries and keys and {what}",
            "Qwen3 with tied embeddings, or with one width for all layers, without biases",
            "prune with layout 'uniform', or serve the folder itself",
        )

    def has_mlx_family(self) -> bool:
        """Whether mlx-lm's block of the family computes this one; else that of `openelm` does.

        Raises:
            UnsupportedExportError: neither does.
        """
        # That of Qwen2 takes the rows of a head to be the hidden size over the number of heads.
        if self.stock and (self.square or self.family != "qwen2"):
            return True
        if self.biased or self.rope_type != "default" or self.window:
            raise self._refused(
                "mlx-lm's block with widths for each layer does not compute this: "
                f"{'biases' if self.biased else 'no biases'}, rope_type {self.rope_type!r}, "
                f"sliding window {self.window}",
                "no biases, rope_type 'default', no sliding window",
                "prune with layout 'uniform', or take a gguf format, which Macs run too",
            )
        return False

    def _refused(self, problem: str, allowed: str, cure: str) -> UnsupportedExportError:
        return UnsupportedExportError(
            problem, field=self.field, value=self.value, allowed=allowed, cure=cure
        )


ROTATES_NEIGHBOURS = ("llama", "deci")
"""Architectures that rotate elements 2i and 2i + 1 of a head; others, like ours, i and i + half."""


def require_family(family: str, activation: object, *, field: str, value: object) -> None:
    """Refuse families that no other format has a block of.

    Args:
        family: `model_type`, without our prefix.
        activation: of its MLP.
        field: where the wish for a format was said.
        value: what was said there.

    Raises:
        UnsupportedExportError: the family or its activation is none of those.
    """
    problem, allowed = "", ""
    if family not in FAMILIES:
        problem = f"models of type {family!r} load in transformers and vLLM only"
        allowed = f"models of type {', '.join(FAMILIES)}"
    elif activation not in ("silu", "swish"):
        problem = f"other formats' blocks have one activation, and this model's is {activation!r}"
        allowed = "models whose activation is silu"
    if problem:
        raise UnsupportedExportError(
            problem, field=field, value=value, allowed=allowed, cure=_SERVE
        )


def require_exportable(
    formats: Iterable[Format], config: Mapping[str, Any], layout: Layout
) -> None:
    """Refuse formats that cannot say what a pruned model of this config will compute.

    Args:
        formats: the ones wished for.
        config: of the dense model.
        layout: of the result.

    Raises:
        UnsupportedExportError: one of them has no such block.
    """
    for kind in formats:
        block = _block(kind, config, layout)
        if kind is Format.MLX:
            block.has_mlx_family()
        else:
            block.gguf_architecture()


def _block(kind: Format, config: Mapping[str, Any], layout: Layout) -> Block:
    """What the block of a result will be, as far as the dense model's config tells."""
    family = str(config.get("model_type"))
    require_family(family, config.get("hidden_act", "silu"), field="formats", value=str(kind))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return Block(
        field="formats",
        value=str(kind),
        family=family,
        uniform=layout is Layout.UNIFORM,
        stock=layout is Layout.UNIFORM,
        square=False,  # unless no attention goes, which nobody knows yet
        # What transformers takes for granted is that they are tied.
        tied=config.get("tie_word_embeddings", True),
        biased=family == "qwen2"
        or bool(config.get("attention_bias"))
        or bool(config.get("mlp_bias")),
        rope_type=str(rope.get("rope_type", rope.get("type", "default"))),
        window=_window(family, config),
    )


def _window(family: str, config: Mapping[str, Any]) -> int | None:
    if family == "llama" or (family != "mistral" and not config.get("use_sliding_window")):
        return None
    found: int | None = config.get("sliding_window", 4096)
    return found
