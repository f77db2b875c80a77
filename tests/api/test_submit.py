"""POST /v1/jobs: what is taken, what is refused and how it is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from api.app import create_app
from api.routes.jobs import EXAMPLE
from jobs.doorbell import QUEUE
from jobs.records import Job
from jobs.request import JobRequest
from jobs.settings import Settings
from tests.api.problems import only_error, require_problem


def change(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a body with one field set."""
    changed = json.loads(json.dumps(body))
    *parents, last = path.split(".")
    inner = changed
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = value
    return changed


def a_mix(**settings: Any) -> list[dict[str, Any]]:
    """Two utilities, of which the second has these settings."""
    return [{"name": "kl"}, {"name": "nll", **settings}]


def test_a_submitted_job_is_answered_whole(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/v1/jobs", json={**body, "name": "small", "labels": {"team": "search"}})
    assert response.status_code == 201
    job = response.json()
    path = f"/v1/jobs/{job['id']}"
    assert response.headers["location"] == path
    assert client.get(path).json() == job
    wishes = ("pause", "resume", "cancel", "retry", "pin", "unpin")
    assert job["links"] == {
        "self": path,
        **{name: f"{path}/{name}" for name in ("events", "attempts", "artifacts", *wishes)},
    }
    assert (job["name"], job["labels"], job["state"]) == ("small", {"team": "search"}, "queued")
    assert (job["started_at"], job["finished_at"], job["attempts"]) == (None, None, 0)
    assert (job["retry_of"], job["error"], job["result"]) == (None, None, None)
    needs = job["request"].pop("device")
    assert 0 < needs["streamed_memory_bytes"] <= needs["memory_bytes"]
    asked = JobRequest.model_validate({**body, "name": "small", "labels": {"team": "search"}})
    assert job["request"] == asked.model_dump(mode="json", exclude={"device"})
    assert job["progress"]["stage"] == "waiting"
    assert job["progress"]["seconds_left"] is None
    assert set(job) == {
        *("id", "name", "labels", "state", "created_at", "started_at", "finished_at"),
        *(
            "metadata",
            "priority",
            "owner",
            "position",
            "waiting_reason",
            "batch_id",
            "retry_of",
            "attempts",
        ),
        *("pinned", "expires_at", "expired_at"),
        *("request", "progress", "error", "result", "links"),
    }


def test_the_documented_example_is_taken_as_it_says() -> None:
    taken = JobRequest.model_validate(EXAMPLE)
    assert taken.model_dump(mode="json", exclude_unset=True) == EXAMPLE


def test_the_doorbell_rings_with_the_id_of_the_job(
    client: TestClient, body: dict[str, Any], redis_url: str
) -> None:
    connection = redis.Redis.from_url(redis_url)
    connection.delete(QUEUE)
    job = client.post("/v1/jobs", json=body).json()
    messages = connection.lrange(QUEUE, 0, -1)
    connection.close()
    assert len(messages) == 1
    assert job["id"] in json.loads(messages[0])["headers"]["argsrepr"]


@pytest.mark.parametrize(
    ("path", "value", "pointer", "allowed"),
    [
        ("target.sparsity", 1.5, "/target/sparsity", "below 1"),
        ("target.sparsity", 0, "/target/sparsity", "above 0"),
        ("target.sparsity", "half", "/target/sparsity", "a number"),
        ("target", {}, "/target", "the fields sparsity, parameters, memory_bytes, dtype"),
        ("target", {"sparsity": 0.5, "parameters": 9}, "/target", "the fields sparsity"),
        ("target", {"memory_bytes": 9, "dtype": "int4"}, "/target/dtype", "float32, bfloat16"),
        (
            "pruning.prior",
            "guess",
            "/pruning/prior",
            "wanda, activation, fluctuation, elimination, random",
        ),
        ("pruning.preset", "cheap", "/pruning/preset", "best, paper, statistics"),
        ("pruning.recipe", "a b", "/pruning/recipe", "matching ^["),
        ("pruning.utility", "N L L", "/pruning/utility", "or a list, each of them an object"),
        ("pruning.utility", a_mix(weight=0), "/pruning/utility/1/weight", "above 0"),
        ("pruning.utility", a_mix(speed=9), "/pruning/utility/1/speed", "the fields name, weight"),
        ("pruning.utility", a_mix(label="nul\0"), "/pruning/utility/1/label", "at most 64"),
        ("pruning.masks_per_round", 7, "/pruning/masks_per_round", "at least 4"),
        ("pruning.masks_per_round", "200", "/pruning/masks_per_round", "a whole number"),
        ("pruning.seed", False, "/pruning/seed", "a whole number"),
        ("pruning.damping", True, "/pruning/damping", "a number"),
        ("pruning.refit", "yes", "/pruning/refit", "true or false"),
        ("target", {"sparsity": 0.5, "stops": ["0.2"]}, "/target/stops/0", "a number"),
        ("schedule", {"not_before": 1764547200}, "/schedule/not_before", "a string"),
        ("schedule", {"deadline": "1764547200"}, "/schedule/deadline", "a string"),
        ("device", {"memory_bytes": True}, "/device/memory_bytes", "a whole number"),
        ("pruning.speed", 9, "/pruning/speed", "the fields preset, recipe, prior, utility"),
        ("model.gguf_file", "a/b.gguf", "/model/gguf_file", "or null"),
        ("labels.a b", "c", "/labels/a b", "at most 63 characters"),
        ("labels.a/b~c d", "e", "/labels/a~1b~0c d", "matching ^["),
        ("labels.a", "x" * 300, "/labels/a", "at most 255 characters"),
        ("labels.a", "nul\0", "/labels/a", "at most 255 characters"),
        ("name", "nul\0", "/name", "at most 200 characters"),
        ("colour", "red", "/colour", "the fields model, calibration"),
    ],
)
def test_a_bad_field_is_named(
    client: TestClient, body: dict[str, Any], path: str, value: Any, pointer: str, allowed: str
) -> None:
    response = client.post("/v1/jobs", json=change(body, path, value))
    error = only_error(require_problem(response, 422, "invalid_request"))
    assert error["pointer"] == pointer
    assert error["message"]
    assert allowed in error["allowed"]


def test_a_bad_field_is_repeated_but_not_endlessly(
    client: TestClient, body: dict[str, Any]
) -> None:
    response = client.post("/v1/jobs", json=change(body, "target.sparsity", "x" * 10_000))
    error = only_error(require_problem(response, 422, "invalid_request"))
    assert error["value"] == "x" * 300 + "..."


def test_every_bad_field_is_named_at_once(client: TestClient, body: dict[str, Any]) -> None:
    del body["target"]
    body["pruning"] = {"align": 0, "seed": -1}
    problem = require_problem(client.post("/v1/jobs", json=body), 422, "invalid_request")
    assert {(error["pointer"], error["value"]) for error in problem["errors"]} == {
        ("/target", None),
        ("/pruning/align", 0),
        ("/pruning/seed", -1),
    }


@pytest.mark.parametrize("content", [b"{", b"", b"[" * 100_000, b'{"a": \xff}'])
def test_a_body_that_is_not_json_is_refused(client: TestClient, content: bytes) -> None:
    response = client.post(
        "/v1/jobs", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code in {400, 422}
    require_problem(
        response,
        response.status_code,
        "malformed_request" if response.status_code == 400 else "invalid_request",
    )


@pytest.mark.parametrize(
    "content", [b'{"target": {"sparsity": NaN}}', b'{"\\ud800": "\\udfff"}', b'{"name": Infinity}']
)
def test_values_that_json_cannot_repeat_do_no_harm(client: TestClient, content: bytes) -> None:
    response = client.post(
        "/v1/jobs", content=content, headers={"Content-Type": "application/json"}
    )
    require_problem(response, 422, "invalid_request")


def test_a_form_of_a_web_page_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    """A page of another origin may send text/plain unasked, JSON only if it is allowed to."""
    response = client.post(
        "/v1/jobs", content=json.dumps(body), headers={"Content-Type": "text/plain"}
    )
    require_problem(response, 415, "unsupported_media_type")


def test_a_preset_is_answered_with_all_that_it_stands_for(
    client: TestClient, body: dict[str, Any]
) -> None:
    body["pruning"] = {"preset": "paper", "prior": "random"}
    pruning = client.post("/v1/jobs", json=body).json()["request"]["pruning"]
    assert (pruning["preset"], pruning["recipe"]) == ("paper", "random_masks")
    assert (pruning["prior"], pruning["utility"], pruning["refit"]) == (
        "random",
        "perplexity",
        False,
    )


def test_an_unknown_recipe_is_refused_by_name(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/v1/jobs", json=change(body, "pruning.recipe", "elegance"))
    error = only_error(require_problem(response, 422, "invalid_recipe"))
    assert (error["pointer"], error["value"]) == ("/pruning/recipe", "elegance")
    assert error["allowed"] == "measured_damage, random_masks, statistics"


@pytest.mark.parametrize(
    ("utility", "value", "allowed"),
    [
        ("elegance", "elegance", "nll, perplexity, kl, choice"),
        (
            [{"name": "function", "settings": {"path": "os:getpid"}}],
            "function",
            "nll, perplexity, kl, choice",
        ),
        (
            [{"name": "kl"}, {"name": "choice", "settings": {"path": "/nowhere/q.jsonl"}}],
            "/nowhere/q.jsonl",
            "absolute path of a .jsonl file",
        ),
    ],
)
def test_a_utility_that_the_service_does_not_offer_is_refused(
    client: TestClient, body: dict[str, Any], utility: Any, value: str, allowed: str
) -> None:
    response = client.post("/v1/jobs", json=change(body, "pruning.utility", utility))
    error = only_error(require_problem(response, 422, "invalid_utility"))
    assert (error["pointer"], error["value"]) == ("/pruning/utility", value)
    assert allowed in error["allowed"]


def test_a_mix_of_utilities_is_kept_as_it_was_asked_for(
    client: TestClient, body: dict[str, Any], tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"context": "a", "choices": ["b", "c"], "answer": 0}\n')
    mix = [
        {"name": "kl", "weight": 1.0, "settings": {"top": 64}, "label": None},
        {"name": "choice", "weight": 0.2, "settings": {"path": str(questions)}, "label": "easy"},
    ]
    response = client.post("/v1/jobs", json=change(body, "pruning.utility", mix))
    assert response.status_code == 201, response.text
    kept = client.get(response.headers["location"]).json()["request"]["pruning"]["utility"]
    assert kept[0] == mix[0]
    assert (kept[1]["label"], kept[1]["settings"]["path"]) == ("easy", str(questions))


def test_questions_that_no_system_allows_are_refused_at_their_place(
    client: TestClient, body: dict[str, Any]
) -> None:
    mix = [{"name": "choice", "settings": {"path": f"/{'x' * 1000}.jsonl"}}]
    response = client.post("/v1/jobs", json=change(body, "pruning.utility", mix))
    error = only_error(require_problem(response, 422, "unreadable_input"))
    assert error["pointer"] == "/pruning/utility/0/settings/path"


def test_a_missing_folder_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/v1/jobs", json=change(body, "model.source", "/nowhere/model"))
    error = only_error(require_problem(response, 422, "invalid_model"))
    assert (error["pointer"], error["value"]) == ("/model/source", "/nowhere/model")
    assert "share" in error["message"]


@pytest.mark.parametrize(
    ("path", "pointer"),
    [("model.source", "/model/source"), ("calibration.source", "/calibration/source")],
)
def test_a_path_that_no_system_allows_is_refused(
    client: TestClient, body: dict[str, Any], path: str, pointer: str
) -> None:
    response = client.post("/v1/jobs", json=change(body, path, f"/{'x' * 1000}.txt"))
    problem = require_problem(response, 422, response.json()["code"])
    assert only_error(problem)["pointer"] == pointer


def test_an_unknown_architecture_is_refused(
    client: TestClient, body: dict[str, Any], model_folder: Path
) -> None:
    (model_folder / "config.json").write_text(json.dumps({"architectures": ["FooForCausalLM"]}))
    problem = require_problem(client.post("/v1/jobs", json=body), 422, "unsupported_model")
    error = only_error(problem)
    assert (error["pointer"], error["value"]) == ("/model/source", "FooForCausalLM")
    assert "LlamaForCausalLM" in error["allowed"]


def test_an_unreachable_sparsity_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/v1/jobs", json=change(body, "target.sparsity", 0.99))
    error = only_error(require_problem(response, 422, "unreachable_target"))
    assert (error["pointer"], error["value"]) == ("/target/sparsity", 0.99)
    assert error["allowed"].startswith("above 0, up to 0.")


def test_a_format_that_cannot_say_the_result_is_refused(
    client: TestClient, body: dict[str, Any], model_folder: Path
) -> None:
    wish = {**body, "formats": ["mlx", "gguf-f16"]}
    assert client.post("/v1/jobs", json=wish).status_code == 201
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_bias": True}))
    error = only_error(
        require_problem(client.post("/v1/jobs", json=wish), 422, "unsupported_export")
    )
    assert (error["pointer"], error["value"]) == ("/formats", "mlx")
    assert "layout 'uniform'" in error["message"]
    problem = require_problem(
        client.post("/v1/jobs", json={**body, "formats": ["exe"]}), 422, "invalid_request"
    )
    assert "gguf-q8_0" in str(only_error(problem))


def test_the_text_of_a_report_must_be_there(
    client: TestClient, body: dict[str, Any], tmp_path: Path
) -> None:
    for path in (tmp_path / "gone.txt", Path("relative.txt")):
        wish = {**body, "report": {"text": str(path)}}
        error = only_error(
            require_problem(client.post("/v1/jobs", json=wish), 422, "invalid_calibration")
        )
        assert (error["pointer"], error["value"]) == ("/report/text", str(path))
    (tmp_path / "there.jsonl").write_text('{"text": "a"}\n')
    wish = {**body, "report": {"text": str(tmp_path / "there.jsonl"), "prompts": ["A tree"]}}
    assert client.post("/v1/jobs", json=wish).status_code == 201
    unknown = {**body, "report": {"text": str(tmp_path / "there.exe")}}
    require_problem(client.post("/v1/jobs", json=unknown), 422, "invalid_request")


def test_more_devices_than_the_model_has_groups_are_refused(
    client: TestClient, body: dict[str, Any]
) -> None:
    wish = change(body, "pruning", {"tensor_parallel": 8})
    error = only_error(
        require_problem(client.post("/v1/jobs", json=wish), 422, "unreachable_target")
    )
    assert (error["pointer"], error["value"]) == ("/pruning/tensor_parallel", 8)
    assert error["allowed"].startswith("1 to ")


def test_a_size_that_the_model_has_already_is_refused(
    client: TestClient, body: dict[str, Any]
) -> None:
    response = client.post("/v1/jobs", json=change(body, "target", {"parameters": 10**9}))
    error = only_error(require_problem(response, 422, "unreachable_target"))
    assert (error["pointer"], error["value"]) == ("/target/parameters", 10**9)
    _, smallest, _, largest, *_ = error["allowed"].replace(",", "").split()
    for most in (int(smallest), int(largest) - 1):
        response = client.post("/v1/jobs", json=change(body, "target", {"parameters": most}))
        assert response.status_code == 201, response.text
        assert response.json()["request"]["target"]["parameters"] == most


def test_sequences_longer_than_the_models_context_are_refused(
    client: TestClient, body: dict[str, Any], model_folder: Path
) -> None:
    config = model_folder / "config.json"
    short = json.loads(config.read_text()) | {"max_position_embeddings": 32}
    config.write_text(json.dumps(short))
    problem = require_problem(client.post("/v1/jobs", json=body), 422, "invalid_calibration")
    assert only_error(problem)["pointer"] == "/calibration/sequence_length"


def test_a_text_that_is_too_short_is_refused(
    client: TestClient, body: dict[str, Any], text_file: Path
) -> None:
    text_file.write_text("too short")
    problem = require_problem(client.post("/v1/jobs", json=body), 422, "invalid_calibration")
    assert only_error(problem)["pointer"] == "/calibration/source"


def test_a_refused_job_leaves_no_row(
    client: TestClient, body: dict[str, Any], engine: Engine
) -> None:
    client.post("/v1/jobs", json=change(body, "target.sparsity", 0.99))
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_inputs_come_from_the_folders_and_repositories_that_are_allowed(
    settings: Settings, engine: Engine, body: dict[str, Any], text_file: Path, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    changes = {"source_folders": (allowed,), "hub_repositories": ("meta-llama/*",)}
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        for said, pointer in (
            (body, "/model/source"),
            ({**body, "model": {"source": "evil/model"}}, "/model/source"),
            ({**body, "model": {"source": "meta-llama/x"}}, "/calibration/source"),
        ):
            problem = require_problem(client.post("/v1/jobs", json=said), 422, "source_not_allowed")
            assert only_error(problem)["pointer"] == pointer
            batch = client.post("/v1/batches", json={"jobs": [said]})
            problem = require_problem(batch, 422, "source_not_allowed")
            assert only_error(problem)["pointer"] == f"/jobs/0{pointer}"
        text_file.rename(allowed / "text.txt")
        body["calibration"]["source"] = str(allowed / "text.txt")
        said = {**body, "model": {"source": "meta-llama/x"}}
        answer = client.post("/v1/jobs", json=said)
        assert answer.status_code == 201, answer.text
        (tmp_path / "outside.txt").touch()
        outside = {**said, "report": {"text": str(tmp_path / "outside.txt")}}
        problem = require_problem(client.post("/v1/jobs", json=outside), 422, "source_not_allowed")
        assert only_error(problem)["pointer"] == "/report/text"


@pytest.mark.parametrize("place", ["", "model", "pruning", "calibration"])
def test_no_request_may_ask_for_code_of_a_repository(
    client: TestClient, body: dict[str, Any], place: str
) -> None:
    """What runs code that came with a model is the operator's to allow, and nothing does."""
    asked = {"trust_remote_code": True}
    said = {**body, place: {**body.get(place, {}), **asked}} if place else {**body, **asked}
    problem = require_problem(client.post("/v1/jobs", json=said), 422, "invalid_request")
    pointer = "/".join(["", place, "trust_remote_code"] if place else ["", "trust_remote_code"])
    assert only_error(problem)["pointer"] == pointer
