"""Builds a request from what a command line says; what is left out, the service decides."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.errors import ClientError


def prune_request(
    *,
    model: str,
    calibration: str,
    target: Mapping[str, Any],
    model_options: Mapping[str, Any],
    calibration_options: Mapping[str, Any],
    pruning: Mapping[str, Any],
    formats: list[str] | None,
    report: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a prune; options that are None are left out."""
    wish = given(report)
    return {
        "model": {**model_source(model), **given(model_options)},
        "calibration": {"source": absolute(calibration), **given(calibration_options)},
        "target": dict(target),
        "pruning": given(pruning),
        **({"formats": formats} if formats else {}),
        **({"report": wish} if wish else {}),
    }


def report_wish(
    enabled: bool | None, text: str | None, prompts: list[str] | None
) -> dict[str, Any]:
    """What the report shall have."""
    return {"enabled": enabled, "text": text and absolute(text), "prompts": prompts or None}


def target(
    sparsity: float | None,
    parameters: int | None,
    gib: float | None,
    dtype: str | None,
    stops: list[float] | None,
) -> dict[str, Any]:
    """How small the result shall be; the service says which of these go together."""
    memory_bytes = None if gib is None else _bytes(gib)
    if stops and gib is not None:
        stops = [_bytes(stop) for stop in stops]
    said = given(
        {
            "sparsity": sparsity,
            "parameters": parameters,
            "memory_bytes": memory_bytes,
            "dtype": dtype,
            "stops": stops or None,
        }
    )
    if not said:
        raise ClientError("say how small: --sparsity, --parameters or --weights")
    return said


def _bytes(gib: float) -> int:
    return int(gib * 2**30)


def model_source(model: str) -> dict[str, str]:
    """Where a model is; the path of a GGUF file is its folder and its name."""
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return {"source": absolute(str(path.parent)), "gguf_file": path.name}
    return {"source": absolute(model)}


def absolute(source: str) -> str:
    """A local path that exists, made absolute; anything else, such as a hub id, unchanged."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def parse_labels(labels: list[str]) -> dict[str, str]:
    """Labels given as `key=value`."""
    parsed = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not key:
            raise ClientError(f"--label: {label!r} is not of the form key=value")
        parsed[key] = value
    return parsed


def parse_metadata(metadata: str | None) -> dict[str, Any] | None:
    """An object, from its JSON."""
    if metadata is None:
        return None
    try:
        parsed = json.loads(metadata)
    except ValueError as error:
        raise ClientError(f"--metadata: {metadata!r} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ClientError(f"--metadata: {metadata!r} is not a JSON object, such as {{}}")
    return parsed


def parse_utility(utility: str | None) -> Any:
    """A name as it is; a mix from its JSON."""
    if utility is None or not utility.lstrip().startswith(("[", "{")):
        return utility
    try:
        return json.loads(utility)
    except ValueError as error:
        raise ClientError(f"--utility: {utility!r} is not JSON: {error}") from error


def parse_window(window: str | None) -> dict[str, str] | None:
    """Hours, and after a space the zone."""
    if window is None:
        return None
    hours, _, zone = window.strip().partition(" ")
    return {"hours": hours, **({"zone": zone.strip()} if zone else {})}


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """What was said."""
    return {name: value for name, value in options.items() if value is not None}
