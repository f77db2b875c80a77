"""Who has done what, over HTTP."""

from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine

from jobs.workers import WorkerStore
from tests.api.conftest import ADMIN_KEY, Headers, Keyed
from tests.api.problems import require_problem
from tests.devices import HOST

Body = dict[str, Any]


def audit(client: TestClient, headers: Headers) -> list[Body]:
    items: list[Body] = client.get("/v1/audit?limit=200", headers=headers).json()["items"]
    return items


def test_each_change_is_written_down_once(
    guarded: TestClient, admin: Headers, keyed: Keyed, body: Body, engine: Engine
) -> None:
    submitter, operator = keyed("submitter", "search"), keyed("operator", "ops")
    job = guarded.post("/v1/jobs", json=body, headers=submitter).json()
    links = job["links"]
    # Twice each: the second time nothing changes.
    for wish in ("pause", "resume", "pin", "unpin", "cancel", "retry"):
        for _ in range(2):
            assert guarded.post(links[wish], headers=submitter).is_success, wish
    batch = guarded.post("/v1/batches", json={"jobs": [body]}, headers=submitter).json()
    for _ in range(2):
        guarded.post(batch["links"]["cancel"], headers=submitter)
    WorkerStore(engine).arrive("gpu-1", HOST, 600)
    assert guarded.post("/v1/workers/gpu-1/drain", headers=operator).is_success
    assert guarded.post("/v1/workers/nobody/drain", headers=operator).status_code == 404
    assert guarded.post("/v1/gc?dry_run=true", headers=operator).is_success
    assert guarded.post("/v1/gc", headers=operator).is_success
    key_id = guarded.get("/v1/me", headers=submitter).json()["key_id"]
    guarded.post(f"/v1/keys/{key_id}/rotate", headers=admin)
    for _ in range(2):
        guarded.post(f"/v1/keys/{key_id}/revoke", headers=admin)
    found = [(event["action"], event["target"]) for event in reversed(audit(guarded, admin))]
    of_job, of_batch = f"jobs/{job['id']}", f"batches/{batch['id']}"
    assert found[2:] == [
        ("submit", of_job),
        *((wish, of_job) for wish in ("pause", "resume", "pin", "unpin", "cancel", "retry")),
        ("submit", of_batch),
        ("cancel", of_batch),
        ("drain", "workers/gpu-1"),
        ("gc", None),
        ("rotate_key", f"keys/{key_id}"),
        ("revoke_key", f"keys/{key_id}"),
    ]
    assert [action for action, _ in found[:2]] == ["create_key", "create_key"]


def test_an_event_tells_who_with_which_request(
    guarded: TestClient, admin: Headers, keyed: Keyed, body: Body
) -> None:
    submitter = keyed("submitter", "search")
    response = guarded.post("/v1/jobs", json=body, headers=submitter)
    event, made = audit(guarded, admin)
    me = guarded.get("/v1/me", headers=submitter).json()
    assert (event["key_id"], event["key_name"], event["owner"]) == (
        me["key_id"],
        "submitter of search",
        "search",
    )
    assert event["request_id"] == response.headers["x-request-id"]
    assert event["details"] == {"owner": "search"}
    assert (made["key_id"], made["key_name"]) == (ADMIN_KEY.id, "BONSAI_ADMIN_KEY")
    assert made["details"]["role"] == "submitter"


def test_what_was_refused_is_not_written_down(
    guarded: TestClient, admin: Headers, keyed: Keyed, body: Body
) -> None:
    submitter = keyed("submitter", "search")
    guarded.post("/v1/jobs", json={**body, "owner": "maps"}, headers=submitter)
    guarded.post("/v1/jobs", json={}, headers=submitter)
    assert [event["action"] for event in audit(guarded, admin)] == ["create_key"]


def test_peers_of_this_machine_are_written_down_without_a_key(
    client: TestClient, job: Body
) -> None:
    (event,) = audit(client, {})
    assert (event["key_id"], event["key_name"]) == (None, None)
    assert event["target"] == f"jobs/{job['id']}"


def test_pages_go_back_in_time(guarded: TestClient, admin: Headers, keyed: Keyed) -> None:
    for number in range(5):
        keyed("viewer", f"team-{number}")
    found, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = guarded.get("/v1/audit", params=query, headers=admin).json()
        found += [event["details"]["owner"] for event in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [f"team-{number}" for number in (4, 3, 2, 1, 0)]
    for bad in ("nonsense", "WyIyMDIwIl0"):
        response = guarded.get("/v1/audit", params={"cursor": bad}, headers=admin)
        require_problem(response, 422, "invalid_cursor")
