"""Uploaded texts: what is kept of them, and what is refused and leaves nothing behind."""

import base64
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from api.app import create_app
from jobs.artifacts import ArtifactStore
from jobs.collector import Collector
from jobs.dataset_text import LONGEST_LINE
from jobs.records import Dataset
from jobs.retention import Retention
from jobs.settings import Settings
from tests.api.conftest import Headers, Keyed
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker
from tests.served import served

TEXT = "Ein Baum wächst im Winter nicht. 🌳\n" * 100
PLAIN = {"Content-Type": "text/plain"}
JSONL = {"Content-Type": "application/jsonl"}
ROWS = "".join(json.dumps({"text": f"tree {n}", "id": n}) + "\n" for n in range(50))


def upload(client: TestClient, content: str | bytes = TEXT, **more: Any) -> dict[str, Any]:
    headers = {**PLAIN, **more.pop("headers", {})}
    response = client.post("/v1/datasets", content=content, headers=headers, **more)
    assert response.status_code in {200, 201}, response.text
    return response.json()


def files_of(settings: Settings) -> list[Path]:
    """All that lies in the data folder, uploads on their way among it."""
    return [path for path in settings.data_dir.rglob("*") if path.is_file()]


def require_nothing(settings: Settings, engine: Engine) -> None:
    assert files_of(settings) == []
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0


def test_a_text_is_kept_and_read_back(client: TestClient) -> None:
    made = client.post("/v1/datasets?name=trees", content=TEXT, headers=PLAIN)
    assert made.status_code == 201
    found = made.json()
    sha256 = hashlib.sha256(TEXT.encode()).hexdigest()
    assert (found["sha256"], found["size_bytes"]) == (sha256, len(TEXT.encode()))
    assert (found["lines"], found["media_type"], found["name"]) == (100, "text/plain", "trees")
    assert found["source"] == f"dataset:{found['id']}"
    assert client.get(made.headers["location"]).json() == found
    assert client.get("/v1/datasets").json()["items"] == [found]
    content = client.get(found["links"]["content"])
    assert content.text == TEXT
    assert content.headers["etag"] == f'"{sha256}"'
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    assert content.headers["repr-digest"] == f"sha-256=:{digest}:"
    part = client.get(found["links"]["content"], headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.text) == (206, "Baum")


@pytest.mark.parametrize("kind", ["application/jsonl", "application/x-ndjson; charset=UTF-8"])
def test_rows_of_json_are_checked_and_counted(client: TestClient, kind: str) -> None:
    found = upload(client, ROWS.rstrip("\n"), headers={"Content-Type": kind})
    assert (found["media_type"], found["lines"]) == ("application/jsonl", 50)


def test_the_same_content_is_the_same_data_set(client: TestClient, settings: Settings) -> None:
    one = upload(client, params={"name": "one"})
    again = client.post("/v1/datasets?name=two", content=TEXT, headers=PLAIN)
    assert (again.status_code, again.json()) == (200, one)
    assert len(files_of(settings)) == 1
    assert upload(client, ROWS)["id"] != upload(client, ROWS, headers=JSONL)["id"]
    assert client.delete(one["links"]["self"]).status_code == 204
    require_problem(client.get(one["links"]["self"]), 404, "dataset_not_found")
    assert upload(client)["id"] == one["id"]


def test_a_list_goes_on_over_pages(client: TestClient) -> None:
    made = [upload(client, f"text {n}")["id"] for n in range(5)]
    first = client.get("/v1/datasets?limit=3").json()
    rest = client.get(f"/v1/datasets?limit=3&cursor={first['next_cursor']}").json()
    assert [each["id"] for each in first["items"] + rest["items"]] == made[::-1]
    assert rest["next_cursor"] is None


HOSTILE: dict[str, tuple[str | bytes, Headers, int, str, str]] = {
    "nothing": (b"", PLAIN, 422, "invalid_dataset", "empty"),
    "blanks": (b" \n\t\n", PLAIN, 422, "invalid_dataset", "empty"),
    "no UTF-8": (b"good\nbad \xff\n", PLAIN, 422, "invalid_dataset", "line 2"),
    "cut in a character": ("Baum 🌳".encode()[:-1], PLAIN, 422, "invalid_dataset", "line 1"),
    "far down": (b"x\n" * 200_000 + b"\xc3(", PLAIN, 422, "invalid_dataset", "line 200001"),
    "UTF-16": ("Baum".encode("utf-16"), PLAIN, 422, "invalid_dataset", "line 1"),
    "no JSON": (b'{"text": "a"}\n{"text": ', JSONL, 422, "invalid_dataset", "line 2"),
    "no object": (b'{"text": "a"}\n\n["b"]\n', JSONL, 422, "invalid_dataset", "line 3"),
    "no text": (b'{"prompt": "a"}', JSONL, 422, "invalid_dataset", '{"text": "..."}'),
    "a number": (b'{"text": 3}', JSONL, 422, "invalid_dataset", "line 1"),
    "empty texts": (b'{"text": ""}\n{"text": " "}', JSONL, 422, "invalid_dataset", "empty"),
    "nested deep": (b"[" * 100_000, JSONL, 422, "invalid_dataset", "line 1"),
    "a long line": (b" " * (LONGEST_LINE + 1), JSONL, 422, "invalid_dataset", "line 1"),
    "no type": (b"text", {"Content-Type": ""}, 415, "unsupported_media_type", "text/plain"),
    "JSON": (b'"text"', {"Content-Type": "application/json"}, 415, "unsupported_media_type", ""),
    "a form": (
        b"--x--",
        {"Content-Type": "multipart/form-data; boundary=x"},
        415,
        "unsupported_media_type",
        "text/plain",
    ),
    "compressed": (
        b"\x1f\x8b\x08",
        {**PLAIN, "Content-Encoding": "gzip"},
        415,
        "unsupported_media_type",
        "gzip",
    ),
    "another charset": (
        b"text",
        {"Content-Type": "text/plain; charset=latin-1"},
        415,
        "unsupported_media_type",
        "UTF-8",
    ),
    "another digest": (
        b"text",
        {**PLAIN, "Content-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"},
        422,
        "digest_mismatch",
        "announced",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_text_is_refused_and_leaves_nothing(
    client: TestClient, settings: Settings, engine: Engine, what: str
) -> None:
    content, headers, status, code, told = HOSTILE[what]
    response = client.post("/v1/datasets", content=content, headers=headers)
    assert told in require_problem(response, status, code)["detail"]
    require_nothing(settings, engine)


def test_a_digest_that_fits_is_taken(client: TestClient) -> None:
    digest = base64.b64encode(hashlib.sha256(TEXT.encode()).digest()).decode()
    upload(client, headers={"Content-Digest": f"md5=:AAAA:, sha-256=:{digest}:"})
    upload(client, "other", headers={"Repr-Digest": "sha-512=:AAAA:"})


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", "a\\b", "Bäume 🌳", "con", "a" * 200]
)
def test_a_name_is_for_people_alone(client: TestClient, settings: Settings, name: str) -> None:
    assert upload(client, params={"name": name})["name"] == name
    (file,) = files_of(settings)
    assert file.is_relative_to(settings.artifacts_dir / "datasets")
    assert file.name == "text.txt"


@pytest.mark.parametrize("name", ["", "a" * 201, "a\0b"])
def test_a_name_that_no_row_can_have_is_refused(
    client: TestClient, settings: Settings, engine: Engine, name: str
) -> None:
    response = client.post("/v1/datasets", params={"name": name}, content=TEXT, headers=PLAIN)
    require_problem(response, 422, "invalid_request")
    require_nothing(settings, engine)


@pytest.mark.parametrize("dataset_id", ["x", "..%2F..", "%00", str(UUID(int=0)) + "x"])
def test_an_id_that_is_none_leads_nowhere(client: TestClient, dataset_id: str) -> None:
    assert client.get(f"/v1/datasets/{dataset_id}/content").status_code in {404, 422}


@pytest.mark.parametrize("announced", [True, False])
def test_a_text_may_not_be_too_long(settings: Settings, engine: Engine, announced: bool) -> None:
    few = settings.model_copy(update={"largest_dataset": 1000})

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"a line of some length\n"

    content = b"".join(pieces()) if announced else pieces()
    with TestClient(create_app(few)) as client:
        response = client.post("/v1/datasets", content=content, headers=PLAIN)
        assert "1000 bytes" in require_problem(response, 413, "content_too_large")["detail"]
        require_nothing(settings, engine)
        upload(client, "x" * 1000)


def test_an_upload_that_is_cut_leaves_nothing(settings: Settings, engine: Engine) -> None:
    with served(create_app(settings)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(
                b"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
                b"Content-Length: 1000000\r\n\r\n" + b"x" * 300_000
            )
            end = time.monotonic() + 10
            while not files_of(settings) and time.monotonic() < end:
                time.sleep(0.01)
            assert files_of(settings)
        while files_of(settings) and time.monotonic() < end:
            time.sleep(0.01)
        require_nothing(settings, engine)


def test_what_a_killed_service_had_half_is_gone_a_day_later(
    settings: Settings, engine: Engine
) -> None:
    old, new = (settings.scratch_dir / f"upload-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "text").write_text("half a te")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    with TestClient(create_app(settings)):
        assert (old.exists(), new.exists()) == (False, True)


def test_what_a_dead_upload_has_left_is_collected(
    client: TestClient, settings: Settings, engine: Engine, artifacts: ArtifactStore
) -> None:
    old, new = upload(client, "one that died"), upload(client, "one on its way")
    collector = Collector(engine, artifacts, Retention(None, None, 1))

    def files() -> int:
        collector.collect()
        return len(files_of(settings))

    with Session(engine) as session, session.begin():
        session.execute(update(Dataset).values(stored_at=None))
    assert client.get("/v1/datasets").json()["items"] == []
    require_problem(client.get(old["links"]["self"]), 404, "dataset_not_found")
    assert files() == 2
    with Session(engine) as session, session.begin():
        long_ago = func.now() - func.make_interval(0, 0, 0, 2)
        session.execute(
            update(Dataset).where(Dataset.id == UUID(old["id"])).values(created_at=long_ago)
        )
    assert files() == 1
    # Who goes on with an upload that has not come through makes it whole.
    assert upload(client, "one on its way")["id"] == new["id"]


def test_a_job_calibrates_on_it(client: TestClient, body: dict[str, Any]) -> None:
    found = upload(client)
    body["calibration"]["source"] = found["source"]
    dry = client.post("/v1/jobs?validate_only=true", json=body)
    assert dry.status_code == 200, dry.text
    job = client.post("/v1/jobs", json=body).json()
    assert job["request"]["calibration"]["source"] == found["source"]
    batch = client.post("/v1/batches", json={"template": body, "sparsities": [0.2, 0.3]})
    assert batch.status_code == 201


def test_it_stays_while_a_job_needs_it(
    client: TestClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    found = upload(client)
    body["calibration"]["source"] = found["source"]
    job = client.post("/v1/jobs", json=body).json()
    problem = require_problem(client.delete(found["links"]["self"]), 409, "dataset_in_use")
    assert job["id"] in problem["detail"]
    worker.fail(worker.claim())
    assert client.delete(found["links"]["self"]).status_code == 204
    assert client.get(job["links"]["self"]).json()["request"]["calibration"] is not None
    # The job is over, and would have nothing to go on with.
    retried = client.post(job["links"]["retry"])
    assert "no such data set" in require_problem(retried, 422, "invalid_calibration")["detail"]
    upload(client)
    assert client.post(job["links"]["retry"]).status_code == 201


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (f"dataset:{uuid4()}", "invalid_calibration"),
        ("dataset:", "source_not_allowed"),
        ("dataset:../../etc/passwd", "source_not_allowed"),
        ("dataset:trees.txt", "source_not_allowed"),
    ],
    ids=["unknown", "empty", "a path", "a name"],
)
def test_a_job_with_another_one_is_refused_by_its_field(
    client: TestClient, body: dict[str, Any], source: str, code: str
) -> None:
    body["calibration"]["source"] = source
    for path, said, pointer in (
        ("/v1/jobs", body, "/calibration/source"),
        ("/v1/jobs?validate_only=true", body, "/calibration/source"),
        ("/v1/batches", {"jobs": [body]}, "/jobs/0/calibration/source"),
    ):
        error = only_error(require_problem(client.post(path, json=said), 422, code))
        assert (error["pointer"], error["value"]) == (pointer, source)


@pytest.mark.parametrize("source", ["owner/my-dataset:plain:train", "dataset:plain"])
def test_a_hub_data_set_may_be_called_so(
    client: TestClient, body: dict[str, Any], source: str
) -> None:
    body["calibration"]["source"] = source
    status = client.post("/v1/jobs", json=body).status_code
    # What begins with it names an uploaded text, and nothing else does.
    assert status == (422 if source.startswith("dataset:") else 201)


def test_a_text_that_is_too_short_for_a_job_is_refused(
    client: TestClient, body: dict[str, Any]
) -> None:
    body["calibration"]["source"] = upload(client, "short")["source"]
    problem = require_problem(client.post("/v1/jobs", json=body), 422, "invalid_calibration")
    assert "5 bytes" in problem["detail"]


def test_owners_do_not_see_each_others(
    guarded: TestClient, keyed: Keyed, body: dict[str, Any], settings: Settings
) -> None:
    search, maps, ops = keyed("submitter", "search"), keyed("submitter", "maps"), keyed("operator")
    one, other = upload(guarded, headers=search), upload(guarded, headers=maps)
    assert one["id"] != other["id"]
    assert (one["owner"], other["owner"]) == ("search", "maps")
    assert len(files_of(settings)) == 2
    assert guarded.get("/v1/datasets", headers=maps).json()["items"] == [other]
    for method in ("GET", "DELETE"):
        response = guarded.request(method, one["links"]["self"], headers=maps)
        require_problem(response, 404, "dataset_not_found")
    require_problem(guarded.get(one["links"]["content"], headers=maps), 404, "dataset_not_found")
    body["calibration"]["source"] = one["source"]
    response = guarded.post("/v1/jobs", json=body, headers=maps)
    require_problem(response, 422, "invalid_calibration")
    assert guarded.post("/v1/jobs", json=body, headers=search).status_code == 201
    response = guarded.post("/v1/datasets?owner=search", content="x", headers={**PLAIN, **maps})
    require_problem(response, 403, "wrong_owner")
    named = upload(guarded, "x", params={"owner": "search"}, headers=ops)
    assert named["owner"] == "search"
    assert {each["id"] for each in guarded.get("/v1/datasets", headers=ops).json()["items"]} == {
        one["id"],
        other["id"],
        named["id"],
    }


def test_uploads_count_for_the_owners_disk(settings: Settings, engine: Engine) -> None:
    few = settings.model_copy(update={"disk_per_owner": 1000})
    with TestClient(create_app(few)) as client:
        upload(client, "x" * 1200)
        response = client.post("/v1/datasets", content="more", headers=PLAIN)
        assert "1200 bytes" in require_problem(response, 409, "quota_exceeded")["detail"]
        assert len(files_of(settings)) == 1


def test_it_is_written_down_who_has_uploaded_and_removed(
    guarded: TestClient, keyed: Keyed, admin: Headers
) -> None:
    key = keyed("submitter", "search")
    found = upload(guarded, headers=key)
    guarded.delete(found["links"]["self"], headers=key)
    done = guarded.get("/v1/audit", headers=admin).json()["items"][:2]
    assert [each["action"] for each in done] == ["delete_dataset", "upload_dataset"]
    assert {each["target"] for each in done} == {f"datasets/{found['id']}"}
