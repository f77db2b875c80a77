"""A worker's ordinary day: success, failure, cancel, stop, and a doorbell that nobody heard."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from bonsai_core.formats.names import Format
from jobs.devices import DeviceNeeds
from jobs.request import JobRequest, Target
from jobs.schedule import Schedule, WaitingReason
from jobs.states import JobState, Wish
from tests.worker.conftest import Service, children_of


def test_a_job_runs_from_the_doorbell_to_published_files(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    service.start_worker()
    job = service.wait_final(service.submit(request_for(layout="uniform")))
    assert job.state == JobState.SUCCEEDED, job.error
    assert job.result is not None
    assert job.result["sparsity"] >= 0.3
    assert job.result["utilities"]["perplexity"] < job.result["utilities_before"]["perplexity"] < 0
    assert job.progress["stage"] == "done"
    names = service.digests(job.id)
    assert {"model.safetensors", "config.json", "bonsai.json", "tokenizer.json"} <= set(names)
    reports = {file.name: file for file in service.store.artifacts(job.id)}.keys() - names.keys()
    assert reports == {"report.html", "report.json", "lineage.json"}
    lineage = json.loads(service.content(job.id, "lineage.json"))
    assert lineage["job"] == {"id": str(job.id), "name": job.name, "attempt": 1}
    assert lineage["manifest_sha256"] == names["bonsai.json"]
    assert job.result["lineage"] == lineage
    report = json.loads(service.content(job.id, "report.json"))
    assert report["dense"]["measurement"]["parameters"] == job.result["parameters_before"]
    assert report["results"][0]["measurement"]["parameters"] == job.result["parameters"]
    assert report["title"] in service.content(job.id, "report.html")
    types = service.event_types(job.id)
    assert types[:3] == ["submitted", "running", "model_loaded"]
    assert types.count("round_finished") == job.result["rounds"]
    assert types[-1] == "succeeded"
    (sample,) = service.store.rehearse([request_for()])[0].samples
    assert sample.model == request_for().model.source
    assert (sample.device, sample.parameters) == (
        "cpu",
        job.result["non_embedding_parameters_before"],
    )
    # At most three rounds of 100 trials of 8 sequences, and what is beside.
    assert 3 * 100 * 8 * 64 < sample.forward_tokens < 4 * 100 * 8 * 64


def test_the_default_preset_shows_its_plans_as_progress(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    service.start_worker()
    job = service.wait_final(service.submit(request_for(preset="best")))
    assert job.state == JobState.SUCCEEDED, job.error
    assert job.result is not None
    assert (job.progress["round"], job.progress["rounds"], job.result["rounds"]) == (5, 5, 5)
    assert job.progress["sparsity"] == pytest.approx(job.result["sparsity"])
    assert list(job.result["utilities"]) == ["kl"]
    events = service.store.events(job.id, limit=1000).items
    rounds = [event.data for event in events if event.type == "round_finished"]
    assert [data["round"] for data in rounds] == [1, 2, 3, 4, 5]
    assert all(data["sparsity"] >= 0.3 for data in rounds)


def test_a_target_with_stops_publishes_a_model_for_each(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    service.start_worker()
    target = Target(sparsity=0.3, stops=(0.1, 0.2))
    request = request_for(preset="statistics").model_copy(update={"target": target})
    job = service.wait_final(service.submit(request))
    assert job.state == JobState.SUCCEEDED, job.error
    assert job.result is not None
    folders = [f"sparsity-{sparsity}" for sparsity in (0.1, 0.2, 0.3)]
    assert list(job.result["sizes"]) == folders
    assert job.result["parameters"] == job.result["sizes"]["sparsity-0.3"]["parameters"]
    names = {artifact.name for artifact in service.store.artifacts(job.id)}
    assert {f"{folder}/model.safetensors" for folder in folders} <= names
    above = {name for name in names if name.partition("/")[0] not in folders}
    assert above == {"report.html", "report.json"}
    assert (job.progress["round"], job.progress["rounds"]) == (3, 3)


def test_a_result_is_published_in_each_format_that_was_wished_for(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    service.start_worker()
    request = request_for(preset="statistics").model_copy(
        update={"formats": (Format.GGUF_Q8_0, Format.MLX)}
    )
    job = service.wait_final(service.submit(request))
    assert job.state == JobState.SUCCEEDED, job.error
    names = {artifact.name for artifact in service.store.artifacts(job.id)}
    assert {"model.safetensors", "gguf/model-q8_0.gguf", "mlx/config.json"} <= names


def test_a_source_that_has_come_to_lead_outside_is_not_read(
    service: Service,
    request_for: Callable[..., JobRequest],
    inputs: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    """It was inside when the job was submitted; then its folder became a link."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "model").symlink_to(inputs[0])
    folders = f"{allowed},{inputs[1].parent / 'text.txt'}"
    service.start_worker(source_folders=folders)
    job = service.wait_final(service.submit(request_for(source=str(allowed / "model"))))
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["field"]) == ("source_not_allowed", "model.source")
    assert service.evaluated(job.id) == 0


def test_what_the_core_refuses_becomes_the_jobs_error(
    service: Service, request_for: Callable[..., JobRequest], tmp_path: Path
) -> None:
    folder = tmp_path / "unsupported"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}'
    )
    service.start_worker()
    job = service.wait_final(service.submit(request_for(source=str(folder))))
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error["code"] in {"unsupported_model", "invalid_model"}
    assert job.error["field"] == "model.source"
    assert job.crashes == 0


def test_cancel_of_a_running_job_is_seen_between_two_masks(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    worker = service.start_worker()
    job_id = service.submit(request_for(masks_per_round=20_000))
    service.wait_evaluated(job_id, 4)
    service.store.ask(job_id, Wish.CANCEL)
    job = service.wait_final(job_id)
    assert job.state == JobState.CANCELLED
    assert job.fencing_token is None
    assert service.event_types(job_id)[-2:] == ["cancelling", "cancelled"]
    assert children_of(worker.pid) == []


def test_a_paused_job_frees_its_worker_and_goes_on_where_it_was(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    worker = service.start_worker()
    undisturbed = service.submit(request_for())
    assert service.wait_final(undisturbed).state == JobState.SUCCEEDED
    job_id = service.submit(request_for())
    service.wait_evaluated(job_id, 4)
    service.store.ask(job_id, Wish.PAUSE)
    service.wait(job_id, lambda job: job.state == JobState.PAUSED)
    done = service.evaluated(job_id)
    assert 0 < done < service.evaluated(undisturbed)
    while children_of(worker.pid):
        time.sleep(0.01)
    # The worker takes the next job meanwhile.
    other = service.submit(request_for(sparsity=0.1))
    assert service.wait_final(other).state == JobState.SUCCEEDED
    assert service.evaluated(job_id) == done
    service.store.ask(job_id, Wish.RESUME)
    assert service.wait_final(job_id).state == JobState.SUCCEEDED
    assert service.digests(job_id) == service.digests(undisturbed)
    first, second = service.store.attempts(job_id)
    assert (first.attempt.outcome, second.attempt.outcome) == ("paused", "succeeded")
    assert first.attempt.masks_evaluated == done
    assert first.attempt.masks_evaluated + second.attempt.masks_evaluated == service.evaluated(
        undisturbed
    )


def test_a_closing_window_frees_the_worker_until_it_opens(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    hour = datetime.now(UTC).hour
    hours = f"{(hour - 1) % 24:02}:00-{(hour + 2) % 24:02}:00"
    schedule = Schedule.model_validate({"window": {"hours": hours}})
    worker = service.start_worker()
    job_id = service.submit(request_for().model_copy(update={"schedule": schedule}))
    service.wait_evaluated(job_id, 4)
    service.change(job_id, window_days=[])
    service.wait(job_id, lambda job: job.state == JobState.QUEUED)
    event = service.store.events(job_id, limit=100).items[-1]
    assert (event.type, event.data["reason"]) == ("released", "window_closed")
    while children_of(worker.pid):
        time.sleep(0.01)
    service.doorbell.ring(job_id)
    time.sleep(1.5)  # three sweeps
    assert service.store.show(job_id).attempts == 1
    service.change(job_id, window_days=list(range(1, 8)))
    assert service.wait_final(job_id).state == JobState.SUCCEEDED


def test_a_deadline_that_passes_fails_the_running_job_and_keeps_its_masks(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    service.start_worker()
    job_id = service.submit(request_for(masks_per_round=20_000))
    service.wait_evaluated(job_id, 4)
    service.change(job_id, deadline=datetime.now(UTC))
    job = service.wait_final(job_id)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "deadline_passed")
    assert service.evaluated(job_id) >= 4


def test_a_retry_evaluates_only_what_is_missing(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    service.start_worker()
    undisturbed = service.submit(request_for())
    assert service.wait_final(undisturbed).state == JobState.SUCCEEDED
    cancelled = service.submit(request_for())
    service.wait_evaluated(cancelled, 150)
    service.store.ask(cancelled, Wish.CANCEL)
    assert service.wait_final(cancelled).state == JobState.CANCELLED
    done = service.evaluated(cancelled)
    again = service.store.retry(cancelled).id
    service.doorbell.ring(again)
    assert service.wait_final(again).state == JobState.SUCCEEDED
    assert service.digests(again) == service.digests(undisturbed)
    (attempt,) = service.store.attempts(again)
    assert attempt.attempt.masks_evaluated == service.evaluated(undisturbed) - done


@pytest.mark.parametrize(
    ("file", "damage"), [("prior", "truncate"), ("weights", "flip"), ("weights", "remove")]
)
def test_a_checkpoint_that_is_not_what_was_stored_is_computed_again(
    service: Service, request_for: Callable[..., JobRequest], file: str, damage: str
) -> None:
    request = request_for(refit=True)
    worker = service.start_worker()
    undisturbed = service.submit(request)
    assert service.wait_final(undisturbed).state == JobState.SUCCEEDED
    job_id = service.submit(request)
    service.wait_evaluated(job_id, 150)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    spoil(service.newest_checkpoint(job_id, file), damage)
    service.start_worker()
    assert service.wait_final(job_id).state == JobState.SUCCEEDED
    assert service.digests(job_id) == service.digests(undisturbed)
    assert "checkpoint_corrupt" in service.event_types(job_id)
    attempts = service.store.attempts(job_id)
    assert sum(a.attempt.masks_evaluated for a in attempts) == service.evaluated(undisturbed)


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()


def test_sigterm_gives_the_job_back_within_seconds_and_another_worker_goes_on(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    worker = service.start_worker()
    job_id = service.submit(request_for())
    service.wait_evaluated(job_id, 4)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    job = service.store.show(job_id)
    assert job.state == JobState.QUEUED
    assert service.event_types(job_id)[-1] == "released"
    done = service.evaluated(job_id)
    service.start_worker()
    assert service.wait_final(job_id).state == JobState.SUCCEEDED
    assert 0 < done < service.evaluated(job_id)


def test_a_job_whose_bell_was_lost_is_started_all_the_same(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    job_id = service.submit(request_for(sparsity=0.1))
    redis.Redis.from_url(service.settings.redis_url).flushdb()
    service.start_worker()
    assert service.wait_final(job_id).state == JobState.SUCCEEDED


def test_a_thousand_bells_for_one_job_start_it_once(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    job_id = service.submit(request_for(sparsity=0.1))
    for _ in range(200):
        service.doorbell.ring(job_id)
    service.start_worker()
    job = service.wait_final(job_id)
    assert job.state == JobState.SUCCEEDED
    assert job.attempts == 1


def test_a_job_whose_process_always_crashes_fails_and_the_queue_goes_on(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    worker = service.start_worker()
    poisoned = service.submit(request_for())
    for attempt in range(1, 4):
        service.wait_attempt(poisoned, attempt)
        while not (children := children_of(worker.pid)):
            time.sleep(0.01)
        os.kill(children[0], signal.SIGSEGV)
        service.wait_attempt_end(poisoned, attempt)
    job = service.wait_final(poisoned)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "poisoned"
    healthy = service.submit(request_for(sparsity=0.1))
    assert service.wait_final(healthy).state == JobState.SUCCEEDED


def test_a_child_that_hangs_is_killed_and_the_job_goes_on(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    # Frozen within a transaction, the child keeps the job's row for five seconds, in which no lease
    # is renewed: the lease has to outlast that, as the usual one does.
    worker = service.start_worker(stall_seconds="6", lease_seconds="12")
    job_id = service.submit(request_for())
    service.wait_evaluated(job_id, 4)
    (child,) = children_of(worker.pid)
    os.kill(child, signal.SIGSTOP)
    service.wait(job_id, lambda job: job.attempts == 2)
    assert not Path(f"/proc/{child}").exists()
    job = service.wait_final(job_id)
    assert (job.state, job.crashes) == (JobState.SUCCEEDED, 0)
    assert "stalled" in service.event_types(job_id)
    assert service.store.attempts(job_id)[0].attempt.outcome == "stalled"


def test_a_job_without_room_on_the_disk_waits_and_goes_on_when_there_is(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    worker = service.start_worker(largest_file=20_000, hold_seconds="0.5", log_level="error")
    job_id = service.submit(request_for())
    service.wait(job_id, lambda job: job.hold_reason == "disk_full" and job.attempts >= 2)
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    job = service.store.show(job_id)
    assert (job.crashes, job.error) == (0, None)
    service.start_worker()
    assert service.wait_final(job_id).state == JobState.SUCCEEDED
    assert service.store.attempts(job_id)[0].attempt.outcome == "disk_full"


def test_a_job_that_fits_no_device_says_so_and_runs_where_there_is_room(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    needs = DeviceNeeds(memory_bytes=2_000_000)
    service.start_worker(worker_name="small", device_memory="1000000")
    job_id = service.submit(request_for(sparsity=0.1).model_copy(update={"device": needs}))
    smaller = service.submit(request_for(sparsity=0.1))
    assert service.wait_final(smaller).state == JobState.SUCCEEDED
    job = service.store.show(job_id)
    place = service.store.places([job])[job_id]
    assert (job.attempts, place.reason) == (0, WaitingReason.NO_FITTING_DEVICE)
    service.start_worker(worker_name="large")
    assert service.wait_final(job_id).state == JobState.SUCCEEDED
    assert service.store.attempts(job_id)[0].attempt.worker == "large"


@pytest.mark.parametrize("module", ["worker.app", "worker.supervisor", "worker.sweeper"])
def test_the_celery_process_loads_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
