"""What tests of the service share: settings over real servers, inputs of a job, a worker's part."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from jobs.artifacts import ArtifactStore
from jobs.connections import connect
from jobs.settings import Settings
from jobs.storage import artifact_store
from tests.fake_worker import FakeWorker

pytest_plugins = ["tests.servers", "tests.object_store"]

# Before torch is loaded, here and in every process that tests start: tiny matrices gain nothing
# from threads, and only sums in the same order are the same to the last bit.
os.environ["OMP_NUM_THREADS"] = "1"

# Sizes of a small model with grouped heads; no weights are needed to submit a job.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        data_dir=tmp_path / "data",
        log_level="warning",
    )


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Connections to a database without jobs."""
    engine = connect(settings, connections=5)
    with engine.begin() as connection:
        tables = "jobs, datasets, workers, idempotency_keys, webhooks, keys, audit_events"
        connection.execute(text(f"TRUNCATE {tables} CASCADE"))
    yield engine
    engine.dispose()


@pytest.fixture
def artifacts(settings: Settings) -> ArtifactStore:
    return artifact_store(settings)


@pytest.fixture
def worker(engine: Engine, artifacts: ArtifactStore, tmp_path: Path) -> FakeWorker:
    return FakeWorker(engine, artifacts, tmp_path / "scratch")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("A tree is best pruned in winter. " * 40)
    return file


@pytest.fixture
def body(model_folder: Path, text_file: Path) -> dict[str, Any]:
    """The least that a job must say."""
    return {
        "model": {"source": str(model_folder)},
        "calibration": {"source": str(text_file), "samples": 4, "sequence_length": 64},
        "target": {"sparsity": 0.3},
    }
