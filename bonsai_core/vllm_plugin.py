"""Makes vLLM serve pruned folders as it serves any other: its entry point, run in each process.

vLLM sizes attention layer by layer, from `per_layer_config`, in its backend for models that
transformers computes; from version 0.28 on.
"""

from bonsai_core.modeling_bonsai import FAMILIES
from bonsai_core.registration import register

_BACKEND = "vllm.model_executor.models.transformers:TransformersForCausalLM"
_MIXTURE_BACKEND = "bonsai_core.vllm_mixture:PrunedMixtureForCausalLM"


def register_with_vllm() -> None:
    """Register the pruned families with transformers and with vLLM; harmless when repeated."""
    # Only vLLM calls this, from an environment of its own.
    from vllm import ModelRegistry  # noqa: PLC0415

    register()
    for family in FAMILIES.values():
        backend = _MIXTURE_BACKEND if family.experts else _BACKEND
        ModelRegistry.register_model(family.class_names["AutoModelForCausalLM"], backend)
