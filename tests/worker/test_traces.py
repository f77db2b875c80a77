"""Spans of a job's life, as a collector gets them, and a collector that is away."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from api.app import create_app
from jobs.request import JobRequest
from jobs.states import JobState
from jobs.traces import trace_id_of, traces_of
from tests.worker.conftest import Service

CALLER = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Collector(ThreadingHTTPServer):
    """Takes spans over OTLP/HTTP and keeps them, with the service that each is of."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, Span]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> list[Span]:
        return [span for _, span in list(self.spans) if span.name == name]

    def wait(self, name: str) -> Span:
        end = time.monotonic() + 60
        while not (found := self.named(name)):
            assert time.monotonic() < end, [span.name for _, span in self.spans]
            time.sleep(0.05)
        return found[0]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {item.key: item.value.string_value for item in group.resource.attributes}
            for scope in group.scope_spans:
                self.server.spans += [(names["service.name"], span) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """One that this process and those that it starts send to, at once."""
    server = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield server
    server.shutdown()
    server.server_close()


def attributes(span: Span) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes
    }


def test_an_attempt_is_linked_to_the_submission_and_rounds_are_below_it(
    service: Service, request_for: Callable[..., JobRequest], collector: Collector
) -> None:
    service.start_worker()
    body = request_for().model_dump(mode="json", exclude_unset=True)
    with TestClient(create_app(service.settings)) as client:
        response = client.post("/v1/jobs", json=body, headers={"traceparent": CALLER})
        assert response.status_code == 201, response.text
    job = service.wait_final(response.json()["id"])
    assert job.state == JobState.SUCCEEDED
    submit, attempt = collector.wait("POST /v1/jobs"), collector.wait("attempt")
    assert (submit.trace_id.hex(), submit.parent_span_id.hex()) == ("a" * 32, "b" * 16)
    assert attributes(submit)["http.response.status_code"] == 201
    assert job.traceparent == f"00-{submit.trace_id.hex()}-{submit.span_id.hex()}-01"

    assert attempt.trace_id != submit.trace_id
    assert not attempt.parent_span_id
    (link,) = attempt.links
    assert (link.trace_id, link.span_id) == (submit.trace_id, submit.span_id)
    about = attributes(attempt)
    assert (about["bonsai.job_id"], about["bonsai.attempt"]) == (str(job.id), 1)
    assert about["bonsai.state"] == "succeeded"

    below = [*collector.named("load"), *collector.named("round"), *collector.named("save")]
    below += collector.named("store")
    rounds = [attributes(span)["bonsai.round"] for span in collector.named("round")]
    assert rounds == list(range(1, job.progress["round"] + 1))
    assert len(below) == len(rounds) + 3
    for span in below:
        assert (span.trace_id, span.parent_span_id) == (attempt.trace_id, attempt.span_id)
        assert attributes(span)["bonsai.job_id"] == str(job.id)
        assert attempt.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= attempt.end_time_unix_nano
        assert span.status.code != Status.STATUS_CODE_ERROR
    assert {name for name, _ in collector.spans} == {"bonsai-api", "bonsai-worker"}

    lines = [
        json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")
    ]
    for name in ("attempt_started", "attempt_ended"):
        (line,) = [line for line in lines if line["event"] == name]
        assert (line["job_id"], line["attempt"]) == (str(job.id), 1)
        assert line["fencing_token"] == about["bonsai.fencing_token"]
        assert line["trace_id"] == attempt.trace_id.hex()


def test_a_collector_that_never_answers_costs_a_job_nothing(
    service: Service, request_for: Callable[..., JobRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    service.start_worker()
    job_id = service.submit(request_for(sparsity=0.1))
    assert service.wait_final(job_id).state == JobState.SUCCEEDED
    silent.close()


def test_closing_waits_for_no_collector_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    traces = traces_of("test")
    with traces.start("something", {"number": 1}) as span:
        assert trace_id_of(span.traceparent)
    began = time.monotonic()
    traces.close()
    # By itself the exporter would wait for 10 s, and try again.
    assert time.monotonic() - began < 8
    silent.close()


def test_a_span_that_failed_says_so(collector: Collector) -> None:
    traces = traces_of("test")
    with pytest.raises(ValueError, match="no"), traces.start("wrong", {}):
        raise ValueError("no")
    traces.close()
    assert collector.wait("wrong").status.message == "ValueError"


@pytest.mark.parametrize("probe", ["/healthz", "/readyz", "/metrics"])
def test_probes_leave_no_spans(service: Service, collector: Collector, probe: str) -> None:
    with TestClient(create_app(service.settings)) as client:
        client.get(probe)
        client.get("/v1/jobs")
    collector.wait("GET /v1/jobs")
    assert [span.name for _, span in collector.spans] == ["GET /v1/jobs"]


def test_nothing_of_it_is_imported_without_a_collector() -> None:
    program = (
        "import sys, api.app, worker.app, worker.spans\n"
        "from jobs.settings import Settings\n"
        "api.app.create_app(Settings()); worker.app.create_app(Settings())\n"
        # Other packages look for it too, if it is installed, but record no traces.
        "ours = ('jobs.open_telemetry', 'opentelemetry.sdk.trace', 'opentelemetry.exporter')\n"
        "found = [name for name in sys.modules if name.startswith(ours)]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
