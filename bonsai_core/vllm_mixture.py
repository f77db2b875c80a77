"""vLLM's backend for mixtures whose experts differ; imported by vLLM alone, which has its base.

vLLM fuses the experts of a layer into one tensor, as wide in every layer as the config says for
all, and never writes what a narrower expert leaves free: that memory would be computed with.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.functional import pad
from vllm.model_executor.models.transformers import TransformersMoEForCausalLM

_EXPERT = re.compile(r"layers\.(\d+)\.mlp\.experts\.\d+\.(gate|up|down)_proj\.weight$")


class PrunedMixtureForCausalLM(TransformersMoEForCausalLM):
    """Fused experts as wide as the widest of their layer; zeros where one is narrower."""

    def recursive_replace(self) -> None:
        """Replace modules; widths and numbers of chosen experts go to vLLM layer by layer."""
        config = self.text_config
        own: dict[str, Any] = config.__dict__
        kept = dict(own)
        layers = [layer.expert_widths for layer in config.per_layer_config]
        width = kept.get("moe_intermediate_size") or kept["intermediate_size"]
        chosen = kept["num_experts_per_tok"]
        self.widths = [max(widths or [width]) for widths in layers]
        # Past the config's own checks, which know of no lists.
        own.update(
            moe_intermediate_size=self.widths,
            num_experts_per_tok=[min(chosen, len(widths or range(chosen))) for widths in layers],
        )
        super().recursive_replace()
        own.clear()
        own.update(kept)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load, with zeros added to experts that are narrower than the widest of their layer."""
        return super().load_weights((name, self._filled(name, part)) for name, part in weights)

    def _filled(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        found = _EXPERT.search(name)
        if found is None:
            return weight
        across = found[2] == "down"
        missing = self.widths[int(found[1])] - weight.shape[1 if across else 0]
        return pad(weight, (0, missing) if across else (0, 0, 0, missing))
