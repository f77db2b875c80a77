"""Tiny random models with a real tokenizer, and text for them: all of it made here, offline.

The weights are large enough that a mistake shows in the logits, and the same in every run.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bonsai_core.families import FAMILIES

# Every family, with settings that make it differ from the others on a short text.
SETTINGS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {},
    "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {},
    "Gemma2ForCausalLM": {"query_pre_attn_scalar": 12, "sliding_window": 8},
    "Gemma3ForCausalLM": {
        "query_pre_attn_scalar": 12,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
        "final_logit_softcapping": 20.0,
    },
    "Phi3ForCausalLM": {"sliding_window": 8, "rope_parameters": {"partial_rotary_factor": 0.5}},
    "Olmo2ForCausalLM": {},
    "GraniteForCausalLM": {
        "embedding_multiplier": 2.0,
        "logits_scaling": 0.5,
        "residual_multiplier": 0.8,
        "attention_multiplier": 0.3,
    },
    "StableLmForCausalLM": {},
    "GPT2LMHeadModel": {},
    "OPTForCausalLM": {},
    "GPTNeoXForCausalLM": {},
    "FalconForCausalLM": {},
    "BloomForCausalLM": {},
    "MixtralForCausalLM": {"num_local_experts": 3},
    "Qwen2MoeForCausalLM": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "shared_expert_intermediate_size": 24,
        "intermediate_size": 40,
    },
    "Qwen3MoeForCausalLM": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "intermediate_size": 40,
    },
}
ARCHITECTURES = tuple(SETTINGS)
# For whole runs: plain, with biases, with fused projections, and with caps, windows and norms.
REPRESENTATIVES = (
    "LlamaForCausalLM",
    "Qwen2ForCausalLM",
    "Phi3ForCausalLM",
    "Gemma3ForCausalLM",
)
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")
VOCABULARY = 256 + len(SPECIAL_TOKENS)
CONTEXT = 256


def tiny_model(
    folder: Path,
    architecture: str = "LlamaForCausalLM",
    *,
    groups: int = 2,
    heads: int = 4,
    layers: int = 2,
    hidden: int = 32,
    channels: int = 48,
    head_dim: int = 8,
    tied: bool = False,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Save a model and its tokenizer to `folder`; `settings` go to the config as they are.

    Sizes that no config of the family can say have no effect.
    """
    model_class = getattr(transformers, architecture)
    keys = FAMILIES[architecture].keys
    sizes = {
        keys.hidden: hidden,
        keys.channels: channels,
        keys.layers: layers,
        keys.heads: heads,
        keys.groups: groups,
        keys.head: head_dim,
    }
    config = model_class.config_class(
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=258,
        **{"vocab_size": VOCABULARY}
        | {names[0]: size for names, size in sizes.items() if names}
        | SETTINGS[architecture]
        | settings,
    )
    model = model_class(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norms stay near one; the rest is large beside the usual initialisation.
            is_norm = "norm" in name or "ln_" in name
            centre, spread = (1.0, 0.1) if is_norm else (0.0, 0.25)
            parameter.normal_(centre, spread, generator=generator)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: one token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: index for index, token in enumerate([*alphabet, *SPECIAL_TOKENS])}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[1],
        pad_token=SPECIAL_TOKENS[2],
        model_max_length=CONTEXT,
    )


def tiny_text(path: Path, characters: int = 20_000, seed: int = 0) -> Path:
    """Write random words in lines of ten; at least `characters` of them, all ASCII."""
    random = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwyp"))
    vocabulary = ["".join(random.choice(letters, size=random.integers(2, 9))) for _ in range(200)]
    lines: list[str] = []
    length = 0
    while length < characters:
        lines.append(" ".join(random.choice(vocabulary, size=10)) + ".\n")
        length += len(lines[-1])
    path.write_text("".join(lines))
    return path
