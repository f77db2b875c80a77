"""Several results of one run: each is what a run of its own gives, and nothing is tried twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bonsai_core import events
from bonsai_core.config import PruneRequest
from bonsai_core.errors import PruneError, Stopped, UnreachableTargetError
from bonsai_core.ledger import MemoryLedger
from bonsai_core.pruner import PruneResult, prune
from bonsai_core.target import Target
from tests.core.conftest import contents

RequestFor = Callable[..., PruneRequest]
STOPS = (0.2, 0.35)
LAST = 0.5
PRESETS = pytest.mark.parametrize(
    "pruning",
    [
        {"preset": "best", "utility": "kl", "improvements": 1},
        {"preset": "paper", "sparsity_per_round": 0.1},
        {"preset": "statistics"},
    ],
    ids=["best", "paper", "statistics"],
)


def with_target(request: PruneRequest, **said: Any) -> PruneRequest:
    return request.model_copy(update={"target": Target(**said)})


def run(request: PruneRequest, folder: Path, **options: Any) -> PruneResult:
    return prune(request, folder, **({"ledger": MemoryLedger(), "device": "cpu"} | options))


def sizes_of(result: PruneResult) -> list[PruneResult]:
    return [*result.on_the_way, result]


@PRESETS
def test_each_result_is_that_of_a_run_of_its_own(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    pruning: dict[str, Any],
) -> None:
    request = request_for(saved_model(), **pruning)
    last = run(with_target(request, sparsity=LAST, stops=STOPS), tmp_path / "family")
    results = sizes_of(last)
    alone = [
        run(with_target(request, sparsity=sparsity), tmp_path / f"alone-{sparsity}")
        for sparsity in (*STOPS, LAST)
    ]
    assert [result.folder.name for result in results] == [
        "sparsity-0.2",
        "sparsity-0.35",
        "sparsity-0.5",
    ]
    assert sorted((tmp_path / "family").iterdir()) == [result.folder for result in results]
    for one, other in zip(results, alone, strict=True):
        assert contents(one.folder) == contents(other.folder)
        assert one.parameters == other.parameters
    tried = sum(result.masks_evaluated for result in results)
    tried_alone = sum(result.masks_evaluated for result in alone)
    assert tried < tried_alone or tried_alone == 0


@PRESETS
def test_a_family_that_is_stopped_anywhere_goes_on_to_the_same_bytes(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    pruning: dict[str, Any],
) -> None:
    request = with_target(request_for(saved_model(), **pruning), sparsity=LAST, stops=STOPS)
    whole = run(request, tmp_path / "whole")
    ledger, tried, stopped = MemoryLedger(), 0, 0

    def heard(event: events.Event) -> None:
        nonlocal tried
        tried += isinstance(event, events.MaskEvaluated)

    parts = None
    while parts is None:
        left = iter(range(45 + 30 * stopped))
        try:
            parts = run(
                request,
                tmp_path / "parts",
                ledger=ledger,
                stop=lambda left=left: next(left, None) is None,
                listener=heard,
            )
        except Stopped:
            stopped += 1
            assert not (tmp_path / "parts").exists()
    assert stopped
    for one, other in zip(sizes_of(parts), sizes_of(whole), strict=True):
        assert contents(one.folder) == contents(other.folder)
    assert tried == sum(result.masks_evaluated for result in sizes_of(whole))


def test_rounds_are_numbered_through(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    heard: list[events.Event] = []
    request = request_for(saved_model(), sparsity_per_round=0.1)
    request = with_target(request, sparsity=LAST, stops=STOPS)
    run(request, tmp_path / "family", listener=heard.append)
    rounds = [event for event in heard if isinstance(event, events.RoundStarted)]
    assert [event.round for event in rounds] == list(range(1, len(rounds) + 1))
    assert all(event.rounds >= len(rounds) for event in rounds)
    assert sum(isinstance(event, events.ModelLoaded) for event in heard) == 1


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"sparsity": 0.5, "stops": [0.5]}, "on the way to 0.5"),
        ({"sparsity": 0.5, "stops": [0.35, 0.2]}, "larger model than the next"),
        ({"sparsity": 0.5, "stops": [0]}, "larger model than the next"),
        ({"parameters": 100, "stops": [90]}, "larger model than the next"),
        ({"parameters": 100, "stops": [150.5]}, "whole numbers"),
        ({"sparsity": 0.5, "stops": [n / 100 for n in range(1, 20)]}, "at most 16"),
    ],
)
def test_stops_that_are_not_on_the_way_are_refused(said: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Target.model_validate(said)


def test_each_stop_must_be_reachable(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    request = with_target(request_for(saved_model()), parameters=15_000, stops=[10**9])
    with pytest.raises(UnreachableTargetError, match="no larger than that") as caught:
        run(request, tmp_path / "family")
    assert caught.value.value == 10**9


def test_the_folder_must_be_free(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "mine").touch()
    request = with_target(request_for(saved_model()), sparsity=LAST, stops=STOPS)
    with pytest.raises(PruneError, match="something is there already"):
        run(request, tmp_path / "family")
    assert (tmp_path / "family" / "mine").exists()
