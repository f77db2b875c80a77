"""What each role may do, and that no route has been forgotten."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from api.access import PUBLIC, Needs
from api.app import create_app
from jobs.roles import Role
from jobs.settings import Settings
from tests.api.conftest import Keyed
from tests.api.problems import require_problem

JOB = f"/v1/jobs/{uuid4()}"
BATCH = f"/v1/batches/{uuid4()}"
ARTIFACT = f"{JOB}/artifacts/config.json"
DATASET = f"/v1/datasets/{uuid4()}"
WEBHOOK = f"/v1/webhooks/{uuid4()}"
DELIVERY = f"{WEBHOOK}/deliveries/{uuid4()}"
DRAIN = "/v1/workers/nobody/drain"

LEAST_ROLE = {
    ("GET", "/v1/me"): Role.VIEWER,
    ("PATCH", JOB): Role.SUBMITTER,
    ("GET", f"{JOB}/rounds"): Role.VIEWER,
    ("GET", "/v1/batches"): Role.VIEWER,
    ("GET", "/v1/queue"): Role.VIEWER,
    ("GET", "/v1/models"): Role.VIEWER,
    ("GET", "/v1/models/inspect?source=x"): Role.VIEWER,
    ("GET", "/v1/datasets"): Role.VIEWER,
    ("POST", "/v1/datasets"): Role.SUBMITTER,
    ("GET", DATASET): Role.VIEWER,
    ("GET", f"{DATASET}/content"): Role.VIEWER,
    ("HEAD", f"{DATASET}/content"): Role.VIEWER,
    ("DELETE", DATASET): Role.SUBMITTER,
    ("GET", "/v1/jobs"): Role.VIEWER,
    ("GET", JOB): Role.VIEWER,
    ("GET", f"{JOB}/events"): Role.VIEWER,
    ("GET", f"{JOB}/events/stream"): Role.VIEWER,
    ("GET", f"{JOB}/attempts"): Role.VIEWER,
    ("GET", f"{JOB}/attempts/1/logs"): Role.VIEWER,
    ("GET", f"{JOB}/archive"): Role.VIEWER,
    ("HEAD", f"{JOB}/archive"): Role.VIEWER,
    ("GET", f"{JOB}/artifacts"): Role.VIEWER,
    ("GET", ARTIFACT): Role.VIEWER,
    ("HEAD", ARTIFACT): Role.VIEWER,
    ("GET", f"{ARTIFACT}/link"): Role.VIEWER,
    ("GET", BATCH): Role.VIEWER,
    ("GET", "/v1/webhooks"): Role.VIEWER,
    ("GET", WEBHOOK): Role.VIEWER,
    ("GET", f"{WEBHOOK}/deliveries"): Role.VIEWER,
    ("GET", DELIVERY): Role.VIEWER,
    ("GET", "/v1/workers"): Role.VIEWER,
    ("POST", "/v1/jobs"): Role.SUBMITTER,
    ("POST", "/v1/batches"): Role.SUBMITTER,
    ("POST", f"{JOB}/pause"): Role.SUBMITTER,
    ("POST", f"{JOB}/resume"): Role.SUBMITTER,
    ("POST", f"{JOB}/cancel"): Role.SUBMITTER,
    ("POST", f"{JOB}/retry"): Role.SUBMITTER,
    ("POST", f"{JOB}/pin"): Role.SUBMITTER,
    ("POST", f"{JOB}/unpin"): Role.SUBMITTER,
    ("POST", f"{BATCH}/cancel"): Role.SUBMITTER,
    ("POST", "/v1/webhooks"): Role.SUBMITTER,
    ("PATCH", WEBHOOK): Role.SUBMITTER,
    ("DELETE", WEBHOOK): Role.SUBMITTER,
    ("POST", f"{WEBHOOK}/test"): Role.SUBMITTER,
    ("POST", f"{WEBHOOK}/rotate-secret"): Role.SUBMITTER,
    ("POST", f"{DELIVERY}/replay"): Role.SUBMITTER,
    ("GET", "/metrics"): Role.OPERATOR,
    ("POST", DRAIN): Role.OPERATOR,
    ("POST", "/v1/gc"): Role.OPERATOR,
    ("GET", "/v1/keys"): Role.ADMIN,
    ("POST", "/v1/keys"): Role.ADMIN,
    ("GET", "/v1/keys/nothing"): Role.ADMIN,
    ("POST", "/v1/keys/nothing/rotate"): Role.ADMIN,
    ("POST", "/v1/keys/nothing/revoke"): Role.ADMIN,
    ("GET", "/v1/audit"): Role.ADMIN,
}


def needed(dependant: Dependant) -> Iterator[Role]:
    """The roles that a route asks for, however deep."""
    if isinstance(dependant.call, Needs):
        yield dependant.call.role
    for inner in dependant.dependencies:
        yield from needed(inner)


def test_every_route_needs_a_role_or_is_public() -> None:
    forgotten, seen = [], 0
    for route in iter_route_contexts(create_app(Settings()).routes):
        seen += 1
        dependant = getattr(route, "dependant", None)
        roles = list(needed(dependant)) if dependant is not None else []
        if bool(roles) == (route.path in PUBLIC):
            forgotten.append(f"{route.methods} {route.path}")
    assert not forgotten, "give them a role, as api.access tells"
    assert seen > len(LEAST_ROLE)


def test_the_walk_finds_a_route_without_a_role() -> None:
    app = create_app(Settings())
    app.get("/v1/forgotten")(lambda: None)
    (found,) = [it for it in iter_route_contexts(app.routes) if it.path == "/v1/forgotten"]
    assert list(needed(found.dependant)) == []


@pytest.mark.parametrize("role", Role)
def test_a_role_may_do_what_it_includes_and_no_more(
    guarded: TestClient, keyed: Keyed, role: Role
) -> None:
    headers = keyed(role)
    for (method, path), least in LEAST_ROLE.items():
        response = guarded.request(method, path, headers=headers)
        if role.includes(least):
            assert response.status_code not in (401, 403), (method, path, response.text)
        elif method == "HEAD":
            assert response.status_code == 403
        else:
            problem = require_problem(response, 403, "not_allowed")
            assert f"role {least}" in problem["detail"]
            assert f"is a {role}'s" in problem["detail"]


def test_the_table_has_every_route() -> None:
    asked = {(method, path.split("?")[0]) for method, path in LEAST_ROLE}
    app = create_app(Settings())
    for route in iter_route_contexts(app.routes):
        if route.path in PUBLIC:
            continue
        names = {
            "{batch_id}": BATCH.split("/")[-1],
            "{job_id}": JOB.split("/")[-1],
            "{dataset_id}": DATASET.split("/")[-1],
            "{webhook_id}": WEBHOOK.split("/")[-1],
            "{delivery_id}": DELIVERY.split("/")[-1],
            "{number}": "1",
        }
        path = route.path
        for name, value in names.items():
            path = path.replace(name, value)
        for name, value in (
            ("artifacts/{name:path}", "artifacts/config.json"),
            ("{name}", "nobody"),
        ):
            path = path.replace(name, value)
        path = path.replace("{key_id}", "nothing")
        assert {(method, path) for method in route.methods} & asked, (route.methods, path)


def test_roles_include_those_before_them() -> None:
    assert [[role.includes(other) for other in Role] for role in Role] == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [True, True, True, True],
    ]
