"""Lists of jobs and batches: filters, orders, and pages that fit together; what may be edited."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from psycopg.types.json import Jsonb
from sqlalchemy import Engine, select, text, update
from sqlalchemy.orm import Session

from jobs.listing import JobFilter, JobSort, in_order
from jobs.records import Job
from jobs.request import MOST_METADATA
from tests.api.conftest import Headers, Keyed
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker

Submit = Callable[..., str]


@pytest.fixture
def submit(client: TestClient, body: dict[str, Any]) -> Submit:
    def submit(**fields: Any) -> str:
        response = client.post("/v1/jobs", json={**body, **fields})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    return submit


def listed(client: TestClient, **parameters: Any) -> list[str]:
    response = client.get("/v1/jobs", params=parameters)
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["items"]]


def all_pages(client: TestClient, **parameters: Any) -> list[str]:
    found: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = client.get("/v1/jobs", params={"limit": 2, **parameters, **cursor}).json()
        found += [job["id"] for job in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_jobs_are_found_by_each_thing_said_of_them(
    client: TestClient, submit: Submit, body: dict[str, Any], worker: FakeWorker
) -> None:
    one = submit(name="a", labels={"team": "search", "run": "1"})
    two = submit(name="b", labels={"team": "search", "run": "2"}, owner="maps")
    hub = submit(model={"source": "owner/name"}, labels={"run": "=odd=&"})
    worker.fail(worker.claim())
    assert listed(client, name="a") == [one]
    assert listed(client, owner="maps") == [two]
    assert listed(client, label="team=search") == [two, one]
    assert listed(client, label=["team=search", "run=2"]) == [two]
    assert listed(client, label=["team=search", "run=3"]) == []
    assert listed(client, label="run==odd=&") == [hub]
    assert listed(client, model="owner/name") == [hub]
    assert listed(client, model=body["model"]["source"]) == [two, one]
    assert listed(client, state=["failed", "cancelled"]) == [one]
    assert listed(client, state=["failed", "queued"], owner="maps") == [two]
    assert listed(client, name="'; DROP TABLE jobs --") == []


def test_jobs_are_found_by_when_they_were_submitted(client: TestClient, submit: Submit) -> None:
    ids = [submit() for _ in range(3)]
    moments = [client.get(f"/v1/jobs/{each}").json()["created_at"] for each in ids]
    assert listed(client, created_after=moments[1]) == ids[:0:-1]
    assert listed(client, created_before=moments[1]) == ids[:1]
    assert listed(client, created_after=moments[1], created_before=moments[2]) == [ids[1]]
    # The same moment, in another zone.
    moved = (datetime.fromisoformat(moments[1]) + timedelta(hours=2)).replace(tzinfo=None)
    assert listed(client, created_after=f"{moved.isoformat()}+02:00") == ids[:0:-1]


def test_every_order_goes_on_over_pages(
    client: TestClient, submit: Submit, worker: FakeWorker, engine: Engine
) -> None:
    ids = [submit() for _ in range(7)]
    for _ in range(5):
        worker.fail(worker.claim())
    with Session(engine) as session, session.begin():
        # Two ended at the same moment.
        same = {"finished_at": session.get_one(Job, UUID(ids[0])).finished_at}
        session.execute(update(Job).where(Job.id == UUID(ids[3])).values(same))
    assert all_pages(client) == ids[::-1]
    assert all_pages(client, sort="created_at") == ids
    ended = all_pages(client, sort="finished_at")
    assert sorted(ended) == sorted(ids[:5])
    assert all_pages(client, sort="-finished_at") == ended[::-1]
    moments = [client.get(f"/v1/jobs/{each}").json()["finished_at"] for each in ended]
    assert all(one <= other for one, other in pairwise(moments))
    assert all_pages(client, state="queued", sort="created_at") == ids[5:]


def test_a_cursor_of_another_order_is_refused(client: TestClient, submit: Submit) -> None:
    for _ in range(3):
        submit()
    cursor = client.get("/v1/jobs?limit=1").json()["next_cursor"]
    response = client.get("/v1/jobs", params={"cursor": cursor, "sort": "created_at"})
    assert "-created_at" in require_problem(response, 422, "invalid_cursor")["detail"]


MANY = """
INSERT INTO jobs (id, name, labels, request, state, attempts, crashes, progress, last_event, owner,
                  priority, window_finish, created_at, finished_at)
SELECT gen_random_uuid(), 'job-' || n, jsonb_build_object('run', (n % 1000)::text),
       jsonb_build_object('model', jsonb_build_object('source', '/models/' || n % 1000)),
       'succeeded', 0, 0, '{}', 1, 'owner-' || n % 100, 2, false,
       now() - n * interval '1 minute', now() - n * interval '1 second'
FROM generate_series(1, 20000) AS n
"""


@pytest.mark.parametrize(
    ("wanted", "sort"),
    [
        (JobFilter(name="job-7"), JobSort.NEWEST),
        (JobFilter(owner="owner-7"), JobSort.NEWEST),
        (JobFilter(labels={"run": "7"}), JobSort.NEWEST),
        (JobFilter(model="/models/7"), JobSort.NEWEST),
        (JobFilter(created_after=datetime.now(UTC) - timedelta(hours=1)), JobSort.OLDEST),
        (JobFilter(), JobSort.LAST_ENDED),
        (JobFilter(), JobSort.FIRST_ENDED),
    ],
    ids=["name", "owner", "label", "model", "time", "last ended", "first ended"],
)
def test_what_is_asked_for_is_found_by_an_index(
    engine: Engine, wanted: JobFilter, sort: JobSort
) -> None:
    query = in_order(wanted.of(select(Job)), sort, None).limit(51)
    compiled = query.compile(engine, compile_kwargs={"render_postcompile": True})
    with engine.connect() as connection:
        # Taken back at the end.
        connection.execute(text(MANY))
        connection.execute(text("ANALYZE jobs"))
        cursor = connection.connection.cursor()
        said = {
            name: Jsonb(value) if isinstance(value, dict) else value
            for name, value in compiled.params.items()
        }
        plan = cursor.execute(f"EXPLAIN {compiled}", said).fetchall()
        assert "Seq Scan" not in "\n".join(row[0] for row in plan)


def test_batches_are_listed_with_their_jobs_by_state(
    client: TestClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    made = [
        client.post("/v1/batches", json={"name": f"night {n}", "template": body}).json()["id"]
        for n in range(3)
    ]
    worker.fail(worker.claim())
    page = client.get("/v1/batches?limit=2").json()
    rest = client.get(f"/v1/batches?cursor={page['next_cursor']}").json()
    items = page["items"] + rest["items"]
    assert [each["id"] for each in items] == made[::-1]
    assert [each["counts"] for each in items] == [{"queued": 1}, {"queued": 1}, {"failed": 1}]
    assert [each["finished"] for each in items] == [False, False, True]
    assert client.get(items[2]["links"]["self"]).json()["name"] == "night 0"


def test_batches_of_others_are_not_listed(
    guarded: TestClient, keyed: Keyed, body: dict[str, Any]
) -> None:
    search, maps = keyed("submitter", "search"), keyed("submitter", "maps")
    guarded.post("/v1/batches", json={"template": body}, headers=search)
    assert guarded.get("/v1/batches", headers=maps).json()["items"] == []
    assert len(guarded.get("/v1/batches", headers=search).json()["items"]) == 1


def test_metadata_is_kept_as_it_is(client: TestClient, submit: Submit) -> None:
    said = {"ticket": "https://x/1", "commit": None, "n": [1, 2.5, {"deep": True}], "🌳": ""}
    job = client.get(f"/v1/jobs/{submit(metadata=said)}").json()
    assert job["metadata"] == said
    assert client.get(f"/v1/jobs/{submit()}").json()["metadata"] == {}


@pytest.mark.parametrize(
    ("metadata", "pointer"),
    [
        ("text", "/metadata"),
        (["a"], "/metadata"),
        ({"a": "x" * MOST_METADATA}, "/metadata"),
        ({"a": {"b": "\0"}}, "/metadata/a/b"),
        ({"a\0": 1}, "/metadata/a\0"),
    ],
    ids=["text", "list", "long", "NUL", "NUL in a key"],
)
def test_metadata_that_cannot_be_kept_is_refused(
    client: TestClient, body: dict[str, Any], metadata: Any, pointer: str
) -> None:
    for response in (
        client.post("/v1/jobs", json={**body, "metadata": metadata}),
        client.patch(f"/v1/jobs/{uuid4()}", json={"metadata": metadata}),
    ):
        error = only_error(require_problem(response, 422, "invalid_request"))
        assert error["pointer"] == pointer


@pytest.mark.parametrize("raw", ['{"a": Infinity}', '{"a": "\\ud800"}', '{"\\udfff": 1}'])
def test_metadata_that_json_cannot_say_is_refused(
    client: TestClient, body: dict[str, Any], raw: str
) -> None:
    content = json.dumps(body)[:-1] + f', "metadata": {raw}}}'
    response = client.post(
        "/v1/jobs", content=content, headers={"Content-Type": "application/json"}
    )
    require_problem(response, 422, "invalid_request")


def test_what_is_said_of_a_job_is_edited(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    job_id = submit(name="one", labels={"a": "1"}, metadata={"b": 2})
    path = f"/v1/jobs/{job_id}"
    edited = client.patch(path, json={"labels": {"c": "3"}, "name": None}).json()
    assert (edited["name"], edited["labels"], edited["metadata"]) == ("one", {"c": "3"}, {"b": 2})
    assert listed(client, label="c=3") == [job_id]
    assert listed(client, label="a=1") == []
    worker.fail(worker.claim())
    edited = client.patch(path, json={"name": "two", "metadata": {}}).json()
    assert (edited["state"], edited["name"], edited["metadata"]) == ("failed", "two", {})
    events = client.get(f"{path}/events").json()["items"]
    told = [event["data"] for event in events if event["type"] == "edited"]
    assert told == [{"changed": ["labels"]}, {"changed": ["metadata", "name"]}]
    # Nothing new, nothing told.
    client.patch(path, json={"name": "two"})
    client.patch(path, json={})
    assert len(client.get(f"{path}/events").json()["items"]) == len(events)
    again = client.post(f"{path}/retry").json()
    assert (again["name"], again["labels"], again["metadata"]) == ("two", {"c": "3"}, {})


def test_a_job_that_waits_is_given_another_priority(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    first, second = submit(), submit()
    edited = client.patch(f"/v1/jobs/{second}", json={"priority": "high"}).json()
    assert (edited["priority"], edited["position"]) == ("high", 1)
    assert edited["request"]["schedule"]["priority"] == "normal"
    assert str(worker.claim().job_id) == second
    response = client.patch(f"/v1/jobs/{second}", json={"priority": "low", "name": "x"})
    assert "running" in require_problem(response, 409, "job_not_waiting")["detail"]
    assert client.get(f"/v1/jobs/{second}").json()["name"] is None
    assert client.get(f"/v1/jobs/{first}").json()["position"] == 1


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"state": "cancelled"}, "/state"),
        ({"priority": "urgent"}, "/priority"),
        ({"name": ""}, "/name"),
        ({"labels": {"a b": "c"}}, "/labels/a b"),
        ({"labels": {"a": 1}}, "/labels/a"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(
    client: TestClient, submit: Submit, change: dict[str, Any], pointer: str
) -> None:
    response = client.patch(f"/v1/jobs/{submit()}", json=change)
    assert only_error(require_problem(response, 422, "invalid_request"))["pointer"] == pointer


def test_only_its_owner_edits_a_job(
    guarded: TestClient, keyed: Keyed, body: dict[str, Any], admin: Headers
) -> None:
    search, maps = keyed("submitter", "search"), keyed("submitter", "maps")
    path = guarded.post("/v1/jobs", json=body, headers=search).json()["links"]["self"]
    response = guarded.patch(path, json={"name": "theirs"}, headers=maps)
    require_problem(response, 404, "job_not_found")
    assert guarded.patch(path, json={"name": "ours"}, headers=search).json()["name"] == "ours"
    newest = guarded.get("/v1/audit", headers=admin).json()["items"][0]
    assert (newest["action"], newest["details"]["changed"]) == ("edit", ["name"])


def test_rounds_tell_what_each_did(
    client: TestClient, submit: Submit, worker: FakeWorker, engine: Engine
) -> None:
    path = f"/v1/jobs/{submit()}"
    assert client.get(f"{path}/rounds").json()["items"] == []
    claim = worker.claim()
    worker.begin_round(claim, 1)
    worker.report(claim, "round_started", {"round": 1, "masks": 4})
    worker.evaluate(claim, number=1, trials=3)
    (begun,) = client.get(f"{path}/rounds").json()["items"]
    assert (begun["number"], begun["masks"], begun["masks_evaluated"]) == (1, 4, 3)
    assert begun["mask_seconds"] == pytest.approx(0.3)
    assert (begun["finished_at"], begun["sparsity"], begun["removed"]) == (None, None, None)
    removed = {"layers.0.mlp": [1, 5, 9], "layers.1.mlp": []}
    record = {"sparsity": 0.1, "perplexity": 12.5, "cut": True, "removed": removed}
    worker.finish_round(claim, 1, record)
    worker.report(claim, "round_finished", {"round": 1, "seconds": 7.5})
    (ended,) = client.get(f"{path}/rounds").json()["items"]
    assert (ended["sparsity"], ended["perplexity"], ended["cut"]) == (0.1, 12.5, True)
    assert (ended["seconds"], ended["removed"]) == (7.5, {"layers.0.mlp": 3, "layers.1.mlp": 0})
    require_problem(client.get(f"/v1/jobs/{uuid4()}/rounds"), 404, "job_not_found")


def test_the_queue_tells_what_runs_and_what_waits_in_its_order(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    running, second = submit(), submit(name="second")
    worker.claim()
    urgent = submit(schedule={"priority": "high"})
    later = submit(schedule={"not_before": "2999-01-01T00:00:00Z"})
    queue = client.get("/v1/queue").json()
    assert [(job["id"], job["worker"]) for job in queue["running"]] == [(running, "fake")]
    order = [(job["id"], job["position"], job["waiting_reason"]) for job in queue["waiting"]]
    assert order == [(urgent, 1, None), (second, 2, None), (later, None, "not_before")]
    assert (queue["ready"], queue["held"]) == (2, {"not_before": 1})
    assert [job["id"] for job in client.get("/v1/queue?limit=1").json()["waiting"]] == [urgent]


def test_of_the_queue_an_owner_sees_its_own_jobs_and_its_place_among_all(
    guarded: TestClient, keyed: Keyed, body: dict[str, Any]
) -> None:
    search, maps = keyed("submitter", "search"), keyed("submitter", "maps")
    theirs = {**body, "schedule": {"priority": "high"}}
    guarded.post("/v1/jobs", json=theirs, headers=maps)
    own = guarded.post("/v1/jobs", json=body, headers=search).json()["id"]
    queue = guarded.get("/v1/queue", headers=search).json()
    assert [(job["id"], job["position"]) for job in queue["waiting"]] == [(own, 2)]
    assert (queue["running"], queue["ready"]) == ([], 2)
    everything = guarded.get("/v1/queue", headers=keyed("operator", "ops")).json()
    assert len(everything["waiting"]) == 2
