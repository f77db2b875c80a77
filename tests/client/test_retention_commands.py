"""`bonsai pin`, `unpin` and `gc` against the real service."""

import json
from collections.abc import Callable
from typing import Any

from typer.testing import Result

from client import BonsaiClient

Bonsai = Callable[..., Result]


def test_a_job_is_pinned_and_unpinned(
    bonsai: Bonsai, client: BonsaiClient, body: dict[str, Any]
) -> None:
    job = client.submit(body)
    assert bonsai("pin", job.id).exit_code == 0
    assert client.job(job.id).pinned
    assert bonsai("unpin", job.id[:8]).exit_code == 0
    assert not client.job(job.id).pinned


def test_where_all_is_kept_nothing_expires(bonsai: Bonsai) -> None:
    assert "nothing expires" in bonsai("gc", "--dry-run").stdout
    assert json.loads(bonsai("gc", "--json").stdout) == {"items": [], "size_bytes": 0}
