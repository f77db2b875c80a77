"""Teams: each sees its own jobs, and nothing of the others'."""

from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import Headers, Keyed
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker

Body = dict[str, Any]


@pytest.fixture
def search(keyed: Keyed) -> Headers:
    return keyed("submitter", "search")


@pytest.fixture
def maps(keyed: Keyed) -> Headers:
    return keyed("submitter", "maps")


@pytest.fixture
def theirs(guarded: TestClient, search: Headers, body: Body, worker: FakeWorker) -> Body:
    """A job of search's that has run."""
    response = guarded.post("/v1/jobs", json=body, headers=search)
    assert response.status_code == 201, response.text
    worker.succeed(worker.claim(), {"config.json": b"{}"})
    return response.json()


def test_a_job_gets_the_owner_of_its_key(
    guarded: TestClient, search: Headers, keyed: Keyed, body: Body
) -> None:
    for headers, owner in ((search, "search"), (keyed("operator", "ops"), "ops")):
        job = guarded.post("/v1/jobs", json=body, headers=headers).json()
        assert (job["owner"], job["request"]["owner"]) == (owner, owner)
        batch = guarded.post("/v1/batches", json={"jobs": [body]}, headers=headers).json()
        (made,) = batch["jobs"]
        assert guarded.get(made["links"]["self"], headers=headers).json()["owner"] == owner


def test_naming_another_owner_is_refused_but_to_operators(
    guarded: TestClient, search: Headers, keyed: Keyed, body: Body
) -> None:
    named = {**body, "owner": "maps"}
    problem = require_problem(
        guarded.post("/v1/jobs", json=named, headers=search), 403, "wrong_owner"
    )
    error = only_error(problem)
    assert (error["pointer"], error["value"]) == ("/owner", "maps")
    assert "'search'" in problem["detail"]
    assert guarded.post("/v1/jobs", json={**body, "owner": "search"}, headers=search).is_success
    for role in ("operator", "admin"):
        job = guarded.post("/v1/jobs", json=named, headers=keyed(role, "ops")).json()
        assert job["owner"] == "maps"


@pytest.mark.parametrize(
    ("batch", "pointer"), [("jobs", "/jobs/1/owner"), ("template", "/template/owner")]
)
def test_naming_another_owner_in_a_batch_is_refused_by_its_place(
    guarded: TestClient, search: Headers, body: Body, batch: str, pointer: str
) -> None:
    named = {**body, "owner": "maps"}
    said = {"jobs": [body, named]} if batch == "jobs" else {"template": named}
    response = guarded.post("/v1/batches", json=said, headers=search)
    assert only_error(require_problem(response, 403, "wrong_owner"))["pointer"] == pointer
    assert guarded.get("/v1/jobs", headers=search).json()["items"] == []


def test_a_job_of_another_owner_is_as_if_there_were_none(
    guarded: TestClient, theirs: Body, maps: Headers, search: Headers
) -> None:
    nobody, links = str(uuid4()), theirs["links"]
    paths = [("GET", links[name]) for name in ("self", "events", "attempts", "artifacts")]
    paths += [("GET", f"{links['artifacts']}/config.json"), ("GET", f"{links['self']}/rounds")]
    paths += [
        ("POST", links[name]) for name in ("pause", "resume", "cancel", "retry", "pin", "unpin")
    ]
    for method, path in paths:
        problem = require_problem(guarded.request(method, path, headers=maps), 404, "job_not_found")
        nowhere = guarded.request(method, path.replace(theirs["id"], nobody), headers=maps).json()
        assert problem["detail"].replace(theirs["id"], nobody) == nowhere["detail"]
    # Nothing has happened to it.
    job = guarded.get(links["self"], headers=search).json()
    assert (job["state"], job["pinned"]) == ("succeeded", False)
    assert guarded.get(f"{links['artifacts']}/config.json", headers=search).content == b"{}"


def test_lists_hold_the_own_jobs(
    guarded: TestClient, theirs: Body, maps: Headers, keyed: Keyed, body: Body
) -> None:
    own = [guarded.post("/v1/jobs", json=body, headers=maps).json()["id"] for _ in range(3)]
    page = guarded.get("/v1/jobs?limit=2", headers=maps).json()
    rest = guarded.get(f"/v1/jobs?cursor={page['next_cursor']}", headers=maps).json()
    assert [job["id"] for job in page["items"] + rest["items"]] == own[::-1]
    everything = guarded.get("/v1/jobs", headers=keyed("operator", "ops")).json()["items"]
    assert {job["id"] for job in everything} == {theirs["id"], *own}
    assert guarded.get("/v1/jobs", headers=keyed("viewer", "nobody")).json()["items"] == []


def test_of_a_batch_an_owner_sees_its_own_jobs(
    guarded: TestClient, search: Headers, maps: Headers, keyed: Keyed, body: Body
) -> None:
    operator = keyed("operator", "ops")
    jobs = [{**body, "owner": owner} for owner in ("search", "maps", "maps")]
    links = guarded.post("/v1/batches", json={"jobs": jobs}, headers=operator).json()["links"]
    for headers, count in ((search, 1), (maps, 2), (operator, 3)):
        assert guarded.get(links["self"], headers=headers).json()["counts"] == {"queued": count}
    for method, path in (("GET", links["self"]), ("POST", links["cancel"])):
        response = guarded.request(method, path, headers=keyed("submitter", "nobody"))
        require_problem(response, 404, "batch_not_found")
    assert guarded.post(links["cancel"], headers=search).json()["counts"] == {"cancelled": 1}
    counts = guarded.get(links["self"], headers=operator).json()["counts"]
    assert counts == {"queued": 2, "cancelled": 1}


def test_submission_keys_are_each_owners_own(
    guarded: TestClient, search: Headers, maps: Headers, body: Body
) -> None:
    made = {}
    for name, headers in (("search", search), ("maps", maps)):
        for said in (body, {"jobs": [body]}):
            path = "/v1/batches" if "jobs" in said else "/v1/jobs"
            tries = [
                guarded.post(path, json=said, headers={**headers, "Idempotency-Key": "nightly"})
                for _ in range(2)
            ]
            assert [response.status_code for response in tries] == [201, 201]
            assert tries[1].headers["idempotency-replayed"] == "true"
            made[name, path] = {response.json()["id"] for response in tries}
    assert all(len(ids) == 1 for ids in made.values())
    assert made["search", "/v1/jobs"] != made["maps", "/v1/jobs"]
    # Another request with the key of another owner tells nothing of that one.
    other = {**body, "name": "other"}
    refused = guarded.post("/v1/jobs", json=other, headers={**maps, "Idempotency-Key": "nightly"})
    problem = require_problem(refused, 422, "idempotency_key_reused")
    assert next(iter(made["search", "/v1/jobs"])) not in problem["detail"]


def test_a_job_of_another_owner_cannot_be_waited_for(
    guarded: TestClient, search: Headers, maps: Headers, body: Body
) -> None:
    first = guarded.post("/v1/jobs", json=body, headers=search).json()["id"]
    after = {**body, "schedule": {"after": first}}
    problem = require_problem(
        guarded.post("/v1/jobs", json=after, headers=maps), 422, "unknown_dependency"
    )
    assert "does not exist" in problem["detail"]
    assert guarded.post("/v1/jobs", json=after, headers=search).status_code == 201


def test_which_job_a_worker_has_is_told_to_its_owner(
    guarded: TestClient, search: Headers, maps: Headers, body: Body, worker: FakeWorker
) -> None:
    job = guarded.post("/v1/jobs", json=body, headers=search).json()
    worker.arrive()
    worker.claim()
    for headers, shown in ((search, job["id"]), (maps, None)):
        (found,) = guarded.get("/v1/workers", headers=headers).json()["items"]
        assert (found["presence"], found["job_id"]) == ("busy", shown)
