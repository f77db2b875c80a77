"""The tokenizer of a folder in a GGUF file, with its special tokens and chat template.

llama.cpp knows how text is split by a name, not by an expression. So the expression of the folder
is looked up; one that has no name is refused, rather than written with a wrong one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
from transformers import AutoTokenizer

from bonsai_core.errors import InvalidModelError, UnsupportedExportError

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_NAMES = {
    ("bytes",): "gpt-2",
    ("digits", "bytes"): "smollm",
    (rf"{_WORDS}\p{{N}}{_REST}",): "qwen2",
    (rf"{_WORDS}\p{{N}}{{1,3}}{_REST}",): "llama-bpe",
}
"""What llama.cpp calls each way to split text before merges."""

_NO_MERGE = "\t \t"
"""llama.cpp insists on merges; this one never applies, because bytes have printable names."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def copy_tokens(writer: Any, source: Path) -> None:
    """Take over the tokenizer of another GGUF file.

    Raises:
        InvalidModelError: the file cannot be read, or has no tokenizer.
    """
    try:
        fields = gguf.GGUFReader(source).fields
    except (OSError, ValueError) as error:
        raise InvalidModelError(
            f"it cannot be read as GGUF: {error}",
            field="tokenizer_from",
            value=str(source),
            allowed="a GGUF file of the dense model",
        ) from error
    tokens = {name: field for name, field in fields.items() if name.startswith("tokenizer.")}
    if "tokenizer.ggml.tokens" not in tokens:
        raise InvalidModelError(
            "it has no tokenizer",
            field="tokenizer_from",
            value=str(source),
            allowed="a GGUF file of the dense model",
        )
    for name, field in tokens.items():
        kind = field.types[0]
        element = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=element)


def add_tokens(writer: Any, folder: Path, vocabulary: int) -> None:
    """Write the tokenizer of a folder.

    Args:
        writer: a GGUFWriter.
        folder: with `tokenizer.json`.
        vocabulary: rows of the embedding; rows beyond the tokens get a name of their own.

    Raises:
        UnsupportedExportError: llama.cpp has no such tokenizer.
    """
    described, name = tokenizer_of(folder)
    model, tokenizer = described["model"], AutoTokenizer.from_pretrained(folder)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    texts, kinds = _tokens(described, tokenizer, vocabulary)
    if name is None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(texts, merges))
        writer.add_add_space_prefix(_prepends_space(described))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_merges(merges or [_NO_MERGE])
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    _add_special(writer, tokenizer)


def tokenizer_of(folder: Path) -> tuple[dict[str, Any], str | None]:
    """What `tokenizer.json` says, and llama.cpp's name for how it splits text; None for those that
    do not split it, and fall back to bytes.

    Raises:
        UnsupportedExportError: llama.cpp has no such tokenizer.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise _unsupported("the folder has no tokenizer.json", "none")
    described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = described["model"]
    if model["type"] != "BPE":
        raise _unsupported("llama.cpp is told of tokenizers with merges", model["type"])
    return described, None if model.get("byte_fallback") else _pre_tokenizer(described)


def _tokens(
    described: Mapping[str, Any], tokenizer: Any, vocabulary: int
) -> tuple[list[str], list[int]]:
    """Text and kind of each token; a row of the embedding without a token is unused."""
    texts = [f"[PAD{index}]" for index in range(vocabulary)]
    kinds = [int(gguf.TokenType.UNUSED)] * vocabulary
    unknown, by_bytes = tokenizer.unk_token_id, described["model"].get("byte_fallback")
    for text, index in described["model"]["vocab"].items():
        if index < vocabulary:
            kind = gguf.TokenType.NORMAL
            if by_bytes and _BYTE.fullmatch(text):
                kind = gguf.TokenType.BYTE
            elif by_bytes and index == unknown:
                kind = gguf.TokenType.UNKNOWN
            texts[index], kinds[index] = text, int(kind)
    for added in described.get("added_tokens", []):
        index = added["id"]
        if index < vocabulary and kinds[index] != gguf.TokenType.UNKNOWN:
            kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
            texts[index], kinds[index] = added["content"], int(kind)
    return texts, kinds


def _scores(texts: list[str], merges: list[str]) -> list[float]:
    """Pieces that merge earlier score higher, which is how llama.cpp orders their merges."""
    rank: dict[str, int] = {}
    for number, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", ""), number)
    return [-float(rank[text]) if text in rank else -1e6 for text in texts]


def _prepends_space(described: Mapping[str, Any]) -> bool:
    steps = [*_flat(described.get("normalizer")), *_flat(described.get("pre_tokenizer"))]
    return any(
        (step["type"] == "Prepend" and step["prepend"] == _SPACE)
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _pre_tokenizer(described: Mapping[str, Any]) -> str:
    """The name of the way in which text is split.

    Raises:
        UnsupportedExportError: it has none.
    """
    steps = list(_flat(described.get("pre_tokenizer")))
    normal = [step["type"] for step in _flat(described.get("normalizer"))]
    name = _NAMES.get(tuple(_splits(steps)))
    if name is None or set(normal) - {"NFC"}:
        raise _unsupported(
            "llama.cpp has no name for how it splits text that is known here",
            json.dumps({"normalizer": normal, "pre_tokenizer": steps}, ensure_ascii=False),
        )
    if described["model"].get("ignore_merges") and name != "llama-bpe":
        raise _unsupported("llama.cpp merges all that has this name", f"ignore_merges, {name}")
    return name


def _splits(steps: list[dict[str, Any]]) -> Iterator[str]:
    for step in steps:
        match step["type"]:
            case "Split":
                yield str(step["pattern"].get("Regex"))
            case "Digits":
                yield "digits" if step["individual_digits"] else "numbers"
            case "ByteLevel" if step.get("add_prefix_space"):
                yield "space"
            case "ByteLevel" if step.get("use_regex", True):
                yield "bytes"
            case "ByteLevel":
                pass
            case other:
                yield other


def _flat(step: Any) -> Iterator[dict[str, Any]]:
    """The steps of a sequence, or of one, or of none."""
    if not step:
        return
    if step["type"] != "Sequence":
        yield step
        return
    for part in step.get("pretokenizers") or step.get("normalizers") or ():
        yield from _flat(part)


def _add_special(writer: Any, tokenizer: Any) -> None:
    """Special tokens by their roles, whether each text begins or ends with them, the template."""
    for add, index in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if index is not None:
            add(index)
    # Asked of the tokenizer itself: several settings decide it.
    ids = tokenizer("a").input_ids
    writer.add_add_bos_token(ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(ids[-1] == tokenizer.eos_token_id)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if template:
        writer.add_chat_template(template)


def _unsupported(problem: str, value: str) -> UnsupportedExportError:
    return UnsupportedExportError(
        problem,
        field="tokenizer",
        value=value,
        allowed="the tokenizers of Llama 2 and 3, Mistral, Qwen2, SmolLM2 and GPT-2",
        cure="export the result with a GGUF file of the dense model (--tokenizer-from), whose "
        "tokenizer is then taken over",
    )
