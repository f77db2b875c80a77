"""llama.cpp splits text into the tokens of the folder's own tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.llama_cpp import llama_cpp
from bonsai_core.errors import InvalidModelError, UnsupportedExportError
from bonsai_core.formats.gguf_file import write_gguf
from bonsai_core.formats.gguf_tokens import _NAMES, _SPACE
from tests.tiny_models import VOCABULARY, tiny_model

CORPUS = [
    "The trees are pruned in winter; 12 of 345 branches, it's said, shall go.",
    "the other winter theirs\n\n  and\tthen: they're pruning 2026 trees!",
    "Überall wächst grünes Gras, naïve façade, 東京の木",
]
TEXT = "The tree's other branch: 20267 trees,\n\n  theirs wächst\t東京 they'll  go!"
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"


def trained(tokenizer: Tokenizer, **settings: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY + 60, show_progress=False, **settings)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


def by_bytes(*splits: pre_tokenizers.PreTokenizer, use_regex: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return trained(tokenizer, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])


def split_by(name: str) -> pre_tokenizers.PreTokenizer:
    (expression,) = next(steps for steps, known in _NAMES.items() if known == name)
    return pre_tokenizers.Split(Regex(expression), "isolated")


def by_pieces() -> Tokenizer:
    """As Llama 2's: spaces become part of pieces, what has no piece is spelt in bytes."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    )
    trained(tokenizer, special_tokens=names, limit_alphabet=40)
    described = json.loads(tokenizer.to_str())
    # Only three of them are special; the trainer makes all of them so.
    described["added_tokens"] = described["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


TOKENIZERS = {
    "gpt-2": lambda: by_bytes(use_regex=True),
    "smollm": lambda: by_bytes(pre_tokenizers.Digits(individual_digits=True), use_regex=True),
    "qwen2": lambda: by_bytes(split_by("qwen2"), use_regex=False),
    "llama-bpe": lambda: by_bytes(split_by("llama-bpe"), use_regex=False),
    "llama": by_pieces,
}


def model_with(folder: Path, tokenizer: Tokenizer, **settings: Any) -> Path:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **settings
    )
    tiny_model(folder, vocab_size=len(fast))
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_is_split_into_the_same_tokens(name: str, tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", TOKENIZERS[name]())
    write_gguf(folder, tmp_path / "model.gguf")
    ours = AutoTokenizer.from_pretrained(folder)
    with llama_cpp(tmp_path / "model.gguf") as runtime:
        for text in (TEXT, *CORPUS):
            assert runtime.tokenize(text) == ours.encode(text, add_special_tokens=False)


def test_tokens_that_were_added_are_found_in_text(tmp_path: Path) -> None:
    tokenizer = by_bytes(use_regex=True)
    tokenizer.add_tokens([AddedToken("<call>", special=False)])
    folder = model_with(tmp_path / "model", tokenizer)
    write_gguf(folder, tmp_path / "model.gguf")
    ours = AutoTokenizer.from_pretrained(folder)
    with llama_cpp(tmp_path / "model.gguf") as runtime:
        assert runtime.tokenize("tree <call> tree") == ours.encode("tree <call> tree")


def test_chat_template_and_first_token_are_carried_over(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", by_bytes(use_regex=True), chat_template=TEMPLATE)
    write_gguf(folder, tmp_path / "model.gguf")
    with llama_cpp(tmp_path / "model.gguf") as runtime:
        assert runtime.chat_prompt("Which tree?") == "<user>Which tree?"
        assert runtime.tokenize("tree", special=True) == runtime.tokenize("tree")


def test_unknown_ways_to_split_text_are_refused(tmp_path: Path) -> None:
    tokenizer = by_bytes(pre_tokenizers.Split(Regex("[aeiou]"), "isolated"), use_regex=False)
    folder = model_with(tmp_path / "model", tokenizer)
    with pytest.raises(UnsupportedExportError, match="aeiou"):
        write_gguf(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_the_tokenizer_of_another_file_is_taken_over(tmp_path: Path) -> None:
    known = model_with(tmp_path / "known", by_bytes(use_regex=True), chat_template=TEMPLATE)
    write_gguf(known, tmp_path / "dense.gguf")
    tokenizer = by_bytes(pre_tokenizers.Split(Regex("[aeiou]"), "isolated"), use_regex=False)
    folder = model_with(tmp_path / "model", tokenizer)
    write_gguf(folder, tmp_path / "model.gguf", tokenizer_from=tmp_path / "dense.gguf")
    ours = AutoTokenizer.from_pretrained(known)
    with llama_cpp(tmp_path / "model.gguf") as runtime:
        assert runtime.tokenize(TEXT) == ours.encode(TEXT)
        assert runtime.chat_prompt("Which tree?") == "<user>Which tree?"


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    (tmp_path / "broken.gguf").write_bytes(b"GGUX" + bytes(100))
    with pytest.raises(InvalidModelError, match="tokenizer_from"):
        write_gguf(folder, tmp_path / "model.gguf", tokenizer_from=tmp_path / "broken.gguf")
