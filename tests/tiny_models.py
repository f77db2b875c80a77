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

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
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
    """Save a model and its tokenizer to `folder`; `settings` go to the config as they are."""
    model_class = getattr(transformers, architecture)
    config = model_class.config_class(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=channels,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head_dim,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=258,
        **settings,
    )
    model = model_class(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norms stay near one; the rest is large beside the usual initialisation.
            centre, spread = (1.0, 0.1) if "norm" in name else (0.0, 0.25)
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
