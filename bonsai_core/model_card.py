"""The model card: `README.md` beside the weights, in the form of the Hugging Face hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

CARD = "README.md"

_PAPER = "2402.05406"
_REPORT = """ `report.html` beside the weights has what both models do on other
text, their memory and speeds, what is left in each layer, and samples."""


def licence_of(folder: Path) -> str | None:
    """The licence that a folder's model card names, if it has one that names any."""
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        data = ModelCard.load(path, ignore_metadata_errors=True).data
    except (ValueError, OSError, yaml.YAMLError):
        return None
    return data.license if isinstance(data.license, str) else None


def model_card(manifest: Mapping[str, Any], licence: str | None) -> str:
    """The card of a result, from what its manifest says.

    Args:
        manifest: as `bonsai.json` has it.
        licence: of the dense model; it holds for what was made of it.
    """
    request = manifest["request"]
    source = request["model"]["source"]
    data = ModelCardData(
        # Only the hub's own names are links there.
        base_model=_on_the_hub(source),
        datasets=[text] if (text := _on_the_hub(request["calibration"]["source"])) else None,
        eval_results=[_perplexity(manifest["perplexity"])],
        metrics=["perplexity"],
        model_name=_name(manifest, source),
        library_name="transformers",
        license=licence,
        pipeline_tag="text-generation",
        tags=["pruned", "bonsai", f"arxiv:{_PAPER}"],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(manifest, source, licence)}"


def _on_the_hub(source: str) -> str | None:
    """The hub's name of a model or of a data set, without subset and split; None for others."""
    name, colon, _ = source.partition(":")
    local = source.startswith((".", "/", "~")) or source.endswith((".txt", ".jsonl"))
    return None if local or (colon and name == "dataset") else name


def _perplexity(perplexity: Mapping[str, Any]) -> EvalResult:
    protocol = perplexity["protocol"]
    return EvalResult(
        task_type="text-generation",
        dataset_type="text",
        dataset_name=protocol["text"],
        metric_type="perplexity",
        metric_name=f"perplexity, {protocol['windows']} windows of {protocol['window']} tokens",
        metric_value=round(perplexity["after"], 4),
    )


def _name(manifest: Mapping[str, Any], source: str) -> str:
    return f"{source.rstrip('/').rpartition('/')[2]}, pruned by {manifest['sparsity']:.1%}"


def _body(manifest: Mapping[str, Any], source: str, licence: str | None) -> str:
    request, perplexity = manifest["request"], manifest["perplexity"]
    before, after = (
        manifest["non_embedding_parameters_before"],
        manifest["non_embedding_parameters"],
    )
    protocol = perplexity["protocol"]
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return f"""# {_name(manifest, source)}

Made from `{source}` by structured pruning with forward passes only
([Bonsai](https://arxiv.org/abs/{_PAPER})): heads and channels were removed, nothing was trained.

| | before | after |
| --- | --- | --- |
| parameters outside the embeddings | {before:,} | {after:,} |
| perplexity on the calibration text | {perplexity["before"]:.3f} | {perplexity["after"]:.3f} |

Perplexity: {protocol["text"]}; {protocol["windows"]} windows of {protocol["window"]} tokens without
overlap, {protocol["dtype"]} on {protocol["device"]}. On other text it differs: measure it on yours
before you rely on the model.{_REPORT if request["report"]["enabled"] else ""}

## Use

{_use(manifest["architecture"])}

Licence of the model it was made from: {licence or "see there; its card names none"}.

## How it was made

`bonsai.json` has the units that were kept in each layer, each round's numbers, and digests of all
files; `bonsai verify` checks them. The same request gives the same model:

```json
{json.dumps(request, indent=1, sort_keys=True)}
```

With {versions}. The source's SHA-256 is `{manifest["source_sha256"]}`{_revision(manifest)}.
"""


def _revision(manifest: Mapping[str, Any]) -> str:
    revision = manifest["source_revision"]
    return f", its revision `{revision}`" if revision else ""


def _use(architecture: str) -> str:
    if not architecture.startswith("Bonsai"):
        return (
            f"A stock `{architecture}`: it loads as any other model of that class does.\n\n"
            "```python\nAutoModelForCausalLM.from_pretrained(folder)\n```"
        )
    return (
        "Its layers differ in width, so it brings its modelling file:\n\n"
        "```python\nAutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)\n```\n\n"
        "Where `bonsai-pruning` is installed, `vllm serve` needs no flag, and `bonsai export` "
        "writes it for llama.cpp and MLX."
    )
