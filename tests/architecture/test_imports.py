"""What an import drags along, seen in a fresh process; the import table is import-linter's."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy")


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "api.app",
        "bonsai_core",
        "bonsai_core.config",
        "bonsai_core.families",
        "bonsai_core.recipes.names",
        "bonsai_core.utilities.remote",
    ],
)
def test_importing_it_loads_no_torch(module: str) -> None:
    assert not loaded_by(module).intersection(HEAVY)


def test_importing_the_api_loads_no_worker() -> None:
    assert not {name for name in loaded_by("api.app") if name.split(".")[0] == "worker"}


def test_importing_the_client_and_its_command_line_loads_no_service() -> None:
    loaded = loaded_by("client.cli")
    assert not loaded.intersection({*HEAVY, "sqlalchemy", "celery", "fastapi", "jobs", "worker"})
