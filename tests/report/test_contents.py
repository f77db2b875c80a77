"""What a report says is what the manifests say and what measuring again gives."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bonsai_core.config import ModelSource
from bonsai_core.digests import sha256_of
from bonsai_core.errors import BrokenNumericsError, Stopped
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.exam import exam_for
from bonsai_core.models import load_saved
from bonsai_core.report import writer
from bonsai_core.report.contents import knee
from bonsai_core.report.writer import write_report
from bonsai_core.verification import verify
from tests.report.conftest import Reported, pruned

CPU = torch.device("cpu")


def test_each_size_is_told_as_its_manifest_tells_it(sizes: Reported) -> None:
    report = sizes.contents
    assert [result["folder"] for result in report["results"]] == [
        "sparsity-0.1",
        "sparsity-0.25",
        "sparsity-0.4",
    ]
    for result in report["results"]:
        folder = sizes.folder / result["folder"]
        manifest = json.loads((folder / "bonsai.json").read_text())
        for key in ("sparsity", "parameters", "non_embedding_parameters", "rounds"):
            assert result[key] == manifest[key]
        assert result["manifest_sha256"] == sha256_of(folder / "bonsai.json")
        for kind, name in (("attention groups", "attention"), ("MLP channels", "mlp")):
            kept = [layer[kind]["kept"] for layer in result["layers"]]
            assert kept == [len(manifest["kept"][f"{number}.{name}"]) for number in range(4)]
            before = {layer[kind]["before"] for layer in result["layers"]}
            assert before == {4 if name == "attention" else 96}
        assert result["measurement"]["parameters"] == result["parameters"]


def test_measuring_again_gives_the_same(sizes: Reported) -> None:
    report = sizes.contents
    dense = load_saved(sizes.request.model, CPU)
    exam = exam_for(dense, sizes.request)
    assert exam.protocol().items() <= report["exam"].items()
    assert {"calibration", "own", "given"} == set(report["exam"]["texts"])
    smallest = sizes.folder / report["results"][-1]["folder"]
    again = load_saved(ModelSource(source=str(smallest)), CPU)
    for live, said in ((dense, report["dense"]), (again, report["results"][-1])):
        for text in exam.texts:
            found = perplexity_of(mean_nll(live.model, live.family, text.windows))
            assert said["measurement"]["perplexity"][text.name] == pytest.approx(found)


def test_the_fit_is_told_by_pairs_of_what_it_predicted_and_what_was_measured(
    masks: Reported,
) -> None:
    [result] = masks.contents["results"]
    for record in result["rounds"]:
        pairs = record["predictions"]
        assert len(pairs) == record["trials"] == 40
        predicted, measured = zip(*pairs, strict=True)
        assert (min(measured), max(measured)) == (record["utilities"][0], record["utilities"][2])
        error = sum((p - m) ** 2 for p, m in pairs) / len(pairs)
        assert error == pytest.approx(record["notes"]["leave_one_out_error"])
        assert len(set(predicted)) > 1
    assert result["formats"] == ["gguf/model-f16.gguf"]


def test_a_report_changes_nothing_of_the_result(masks: Reported) -> None:
    checks = verify(masks.folder, "cpu")
    assert all(check.holds for check in checks)
    assert "report.html" not in {check.name for check in checks}


def test_without_a_wish_there_is_no_report(tmp_path: Path) -> None:
    settings = {"preset": "statistics"}
    found = pruned(tmp_path, target={"sparsity": 0.2}, pruning=settings, report={"enabled": False})
    write_report(found.request, found.folder, device="cpu")
    assert not list(found.folder.glob("report.*"))


@pytest.mark.parametrize(
    "error",
    [
        BrokenNumericsError("not finite", field="model.dtype", value=float("nan")),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        KeyError("of nobody's"),
    ],
    ids=["numerics", "memory", "unforeseen"],
)
def test_what_cannot_be_measured_is_said_and_fails_nothing(
    masks: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert "was not measured" not in masks.page
    found = Reported(shutil.copytree(masks.folder, tmp_path / "out"), masks.request)

    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(writer, "measure", fails)
    write_report(found.request, found.folder, device="cpu")
    report = found.contents
    assert report["dense"]["measurement"] is None
    assert report["results"][0]["problem"]
    assert "was not measured" in found.page
    assert f"{report['results'][0]['parameters']:,}" in found.page


@pytest.mark.parametrize("content", [None, "", "x"], ids=["gone", "empty", "short"])
def test_an_unreadable_text_is_said_once_and_for_all_models(
    tmp_path: Path, content: str | None
) -> None:
    settings = {"preset": "statistics"}
    wish = {"text": str(tmp_path / "report.txt")}
    if content is not None:
        (tmp_path / "report.txt").write_text(content)
    found = pruned(tmp_path, target={"sparsity": 0.2}, pruning=settings, report=wish)
    write_report(found.request, found.folder, device="cpu")
    report = found.contents
    assert "report.text" in report["dense"]["problem"]
    assert "nothing to compare" in report["results"][0]["problem"]
    assert report["exam"] is None
    assert "was not measured" in found.page


def test_it_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    settings = {"preset": "statistics"}
    found = pruned(tmp_path, target={"sparsity": 0.2}, pruning=settings)
    with pytest.raises(Stopped):
        write_report(found.request, found.folder, device="cpu", stop=lambda: True)
    assert not (found.folder / "report.json").exists()


def measured(name: str, parameters: int, perplexity: float) -> dict[str, Any]:
    numbers = {"parameters": parameters, "perplexity": {"calibration": perplexity}}
    return {"name": name, "measurement": numbers}


def test_the_knee_is_where_much_is_gone_and_little_is_lost() -> None:
    dense = measured("dense", 100, 10)
    curve = [measured("a", 80, 10.5), measured("b", 60, 11), measured("c", 40, 20)]
    assert knee({"dense": dense, "results": curve}) == "b"
    assert knee({"dense": dense, "results": curve[:1]}) is None
    straight = [measured("a", 80, 30), measured("c", 60, 31)]
    assert knee({"dense": dense, "results": straight}) is None
    unknown = {"name": "a", "measurement": None}
    assert knee({"dense": dense, "results": [unknown, *curve]}) is None
