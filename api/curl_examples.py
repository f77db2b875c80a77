"""A worked example of each operation, for the document: what one would type."""

import json
from typing import Any

_VALUES = {
    "job_id": "6884bb15-6f0c-4a6e-9d6e-0f3c5d1b7a21",
    "batch_id": "2b1f6a0e-41d7-4f0b-8a57-9a4f6c0f3e11",
    "webhook_id": "c0ffee00-8f3a-4f0e-9f51-5a6b7c8d9e0f",
    "delivery_id": "7d0a3c52-1e9b-4d5f-8c4e-2b6a9f8e7d6c",
    "dataset_id": "59f0c221-f0d9-5a96-aeab-8bf0eda07835",
    "key_id": "Bf8YMICfpbPF",
    "number": "1",
    "source": "/models/SmolLM2-135M",
}
_NAMES = {"drain_worker": "gpu-1"}
_FILE = "model.safetensors"
_OPTIONS = {
    "stream_events": "-N ",
    "download_artifact": "-O ",
    "download_dataset": "-o text.txt ",
    "download_archive": "-o job.tar ",
}
"""By operation, what a person adds."""


def curl_example(method: str, path: str, operation: dict[str, Any]) -> str:
    """A command for a shell in which `BONSAI_URL` and `BONSAI_API_KEY` are set."""
    name = operation["operationId"]
    for parameter in operation.get("parameters", ()):
        value = _VALUES.get(parameter["name"], _NAMES.get(name, _FILE))
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", value)
        elif parameter["in"] == "query" and parameter.get("required"):
            path += f"?{parameter['name']}={value}"
    verb = "" if method == "get" else f"-X {method.upper()} "
    lines = [f'curl -s {_OPTIONS.get(name, "")}{verb}"$BONSAI_URL{path}"']
    if operation.get("security"):
        lines.append('-H "Authorization: Bearer $BONSAI_API_KEY"')
    lines += _body(operation.get("requestBody", {}).get("content", {}))
    return " \\\n    ".join(lines)


def _body(content: dict[str, Any]) -> list[str]:
    if "text/plain" in content:
        return ["-H 'Content-Type: text/plain'", "--data-binary @text.txt"]
    said = content.get("application/json", {}).get("examples", {})
    if not said:
        return []
    shortest = min((each["value"] for each in said.values()), key=lambda value: len(str(value)))
    return ["-H 'Content-Type: application/json'", f"-d '{json.dumps(shortest)}'"]
