"""The versions that a result depends on."""

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Versions of Python, this project and the libraries that compute, by name."""
    found = {"python": platform.python_version()}
    for package in ("bonsai-pruning", "torch", "transformers", "tokenizers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
