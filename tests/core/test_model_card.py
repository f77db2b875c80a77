"""The card beside the weights: metadata that the hub reads, and the licence carried over."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from bonsai_core.model_card import licence_of, model_card
from tests.core.pruned import Pruned, RequestFor
from tests.tiny_models import tiny_model

DENSE_CARD = "---\nlicense: apache-2.0\nlanguage: [en]\n---\n\n# A dense model\n"


@pytest.mark.parametrize("uniform", [True, False])
def test_the_card_says_what_was_made_of_what(
    request_for: RequestFor, tmp_path: Path, uniform: bool
) -> None:
    folder = tiny_model(tmp_path / "dense")
    (folder / "README.md").write_text(DENSE_CARD)
    pruned = Pruned(folder, request_for(folder)).cut(
        lambda i: 1 if uniform else 1 + i, lambda _: 16
    )
    saved = pruned.save(tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.base_model is None  # a folder is no model of the hub
    assert {"pruned", "arxiv:2402.05406"} <= set(card.data.tags)
    assert f"pruned by {saved.sparsity:.1%}" in card.text
    assert f"{saved.non_embedding_parameters:,}" in card.text
    assert ("trust_remote_code=True" in card.text) is not uniform
    assert '"sparsity": 0.4' in card.text  # of the request


def test_a_model_of_the_hub_is_named_as_the_base(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    folder = saved_model()
    request = request_for(folder).model_dump(mode="json")
    request["model"]["source"] = "owner/name"
    request["calibration"]["source"] = "owner/texts:subset:train"
    manifest = {
        "request": request,
        "architecture": "LlamaForCausalLM",
        "sparsity": 0.4,
        "non_embedding_parameters_before": 10_000,
        "non_embedding_parameters": 6_000,
        "perplexity": {
            "before": 10.0,
            "after": 12.0,
            "protocol": {
                "text": "a text",
                "windows": 2,
                "window": 32,
                "dtype": "float32",
                "device": "cpu",
            },
        },
        "versions": {"torch": "2.13.0"},
        "source_revision": "1" * 40,
        "source_sha256": "0" * 64,
    }
    (tmp_path / "README.md").write_text(model_card(manifest, None))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "owner/name"
    assert card.data.license is None
    assert "# name, pruned by 40.0%" in card.text
    assert card.data.datasets == ["owner/texts"]
    [result] = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("perplexity", 12.0)
    assert "report.html" in card.text
    assert f"revision `{'1' * 40}`" in card.text
    request["calibration"]["source"] = "dataset:1234"
    request["report"] = {"enabled": False}
    (tmp_path / "README.md").write_text(model_card(manifest, None))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.datasets is None
    assert "report.html" not in card.text


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (DENSE_CARD, "apache-2.0"),
        ("# no metadata", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ("---\nlicense: {\n---\n", None),
        (None, None),
    ],
)
def test_licences_are_read_where_they_are_named(
    card: str | None, licence: str | None, tmp_path: Path
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == licence
