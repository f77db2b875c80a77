"""Tells an MLflow server of a finished model: a run with what was asked and measured, and a version
of a registered model that points to where the files are. No weights go over the wire.

Doing it twice is doing it once: what a first try has left is found by the job's id.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from jobs.records import Job
from jobs.registrations import FinishedModel

JOB_TAG = "bonsai.job_id"

_LONGEST_VALUE = 500
"""Characters of a parameter; older servers refuse more."""

_ROUND_METRICS = ("sparsity", "perplexity", "trials")


class MlflowRegistry:
    """One MLflow server.

    Args:
        uri: of the server, as MLflow spells it.
        experiment: the runs' experiment, made if it is not there.
        files: URI of the artifact store's root.
    """

    def __init__(self, uri: str, experiment: str, files: str) -> None:
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._experiment = experiment
        self._files = files.rstrip("/")

    def register(self, model: FinishedModel) -> dict[str, Any]:
        """Tell of a model; where it stands now: run, name and version."""
        run = self._run_of(model.job)
        self._describe(run, model)
        name = registered_name(model.job)
        number = self._version_of(run, name) or self._new_version(run, name, model)
        self._client.set_terminated(run.info.run_id, "FINISHED", _milliseconds(model.job))
        return {"run_id": run.info.run_id, "name": name, "version": number}

    def _run_of(self, job: Job) -> Run:
        experiment = self._experiment_id()
        found = self._client.search_runs([experiment], f"tags.`{JOB_TAG}` = '{job.id}'")
        if found:
            return found[0]
        tags = {JOB_TAG: str(job.id)}
        return self._client.create_run(experiment, tags=tags, run_name=job.name or str(job.id))

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self._experiment))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            return self._experiment_id()

    def _describe(self, run: Run, model: FinishedModel) -> None:
        at = _milliseconds(model.job)
        metrics = [Metric(key, value, at, 0) for key, value in _measured(model)]
        for record in model.rounds:
            metrics += [
                Metric(f"round_{key}", float(record[key]), at, record["number"])
                for key in _ROUND_METRICS
                if record.get(key) is not None
            ]
        self._client.log_batch(
            run.info.run_id,
            metrics,
            [Param(key, value[:_LONGEST_VALUE]) for key, value in _asked(model.job.request)],
            [RunTag(key, value) for key, value in _tags(model.job).items()],
        )

    def _version_of(self, run: Run, name: str) -> str | None:
        found = self._client.search_model_versions(f"run_id = '{run.info.run_id}'")
        return next((str(item.version) for item in found if item.name == name), None)

    def _new_version(self, run: Run, name: str, model: FinishedModel) -> str:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        made = self._client.create_model_version(
            name,
            source=f"{self._files}/{model.folder}",
            run_id=run.info.run_id,
            tags={JOB_TAG: str(model.job.id)},
        )
        return str(made.version)


def registered_name(job: Job) -> str:
    """The registered model of all that are made of the same model; MLflow allows no `/` and `:`."""
    source = str(job.request["model"]["source"]).rstrip("/").rpartition("/")[2]
    return f"{source.replace(':', '-')}-bonsai"


def _asked(request: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """What was asked, as dotted names and values; labels are tags."""
    for key, value in request.items():
        if isinstance(value, Mapping) and key != "labels":
            yield from _asked(value, f"{prefix}{key}.")
        elif key not in {"labels", "name"} and value is not None:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _measured(model: FinishedModel) -> Iterator[tuple[str, float]]:
    for key, value in (model.job.result or {}).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)
    yield "artifacts_bytes", float(model.size_bytes)


def _tags(job: Job) -> dict[str, str]:
    labels = {f"bonsai.label.{key}": value for key, value in job.labels.items()}
    return {JOB_TAG: str(job.id), "bonsai.owner": job.owner, **labels, **_lineage(job)}


def _lineage(job: Job) -> dict[str, str]:
    """What the model was made from and with."""
    lineage = (job.result or {}).get("lineage")
    if lineage is None:  # of a result from before there were lineages
        return {}
    found = {
        "bonsai.base_revision": lineage["base"]["revision"],
        "bonsai.base_sha256": lineage["base"]["sha256"],
        "bonsai.manifest_sha256": lineage["manifest_sha256"],
        "bonsai.version": lineage["code"]["bonsai-pruning"],
    }
    return {key: value for key, value in found.items() if value is not None}


def _milliseconds(job: Job) -> int:
    assert job.finished_at is not None
    return int(job.finished_at.timestamp() * 1000)
