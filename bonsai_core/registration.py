"""Makes transformers' Auto classes know the pruned families, without remote code."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from bonsai_core.modeling_bonsai import FAMILIES, classes_of


def register() -> None:
    """Register the pruned families with transformers in this process; harmless when repeated.

    Afterwards a pruned folder loads through the Auto classes without `trust_remote_code`, and with
    it too: the classes of this package are then taken before those beside the weights.
    """
    for model_type in FAMILIES:
        classes = classes_of(model_type)
        AutoConfig.register(model_type, classes.AutoConfig, exist_ok=True)
        AutoModel.register(classes.AutoConfig, classes.AutoModel, exist_ok=True)
        AutoModelForCausalLM.register(
            classes.AutoConfig, classes.AutoModelForCausalLM, exist_ok=True
        )
