"""`bonsai evaluate`: a model's perplexity and speed, in this process."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bonsai_core.config import ModelSource
from bonsai_core.errors import PruneError
from bonsai_core.evaluation import Evaluation, evaluate_folder
from client.console import print_json, results
from client.errors import ClientError
from client.tables import duration


def run_evaluate(
    model: Mapping[str, Any],
    text: Path,
    *,
    window: int,
    windows: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Evaluate and print; `windows` None means the whole text."""
    try:
        source = ModelSource.model_validate(model)
        evaluation = evaluate_folder(
            source, text.expanduser().resolve(), window=window, windows=windows, device=device
        )
    except ValidationError as error:
        faults = [f"model.{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()]
        raise ClientError("\n".join(faults)) from error
    except PruneError as error:
        raise ClientError(str(error)) from error
    if as_json:
        print_json(asdict(evaluation))
    else:
        results().print(summary(evaluation), soft_wrap=True)


def summary(evaluation: Evaluation) -> str:
    """The measurement with the protocol that makes it comparable."""
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    return "\n".join(
        [
            f"perplexity   {evaluation.perplexity:.4f} (mean negative log-likelihood "
            f"{evaluation.mean_nll:.5f})",
            f"protocol     {evaluation.windows} windows of {evaluation.window} tokens, "
            f"{evaluation.tokens:,} predicted, text SHA-256 {evaluation.text_sha256}",
            f"parameters   {evaluation.parameters:,}, {evaluation.non_embedding_parameters:,} "
            "outside the embeddings",
            f"speed        {evaluation.forward_tokens_per_second:,.0f} tokens per second forward, "
            f"{duration(evaluation.seconds)} in all",
            f"on           {evaluation.device}, {evaluation.dtype}; {versions}",
        ]
    )
