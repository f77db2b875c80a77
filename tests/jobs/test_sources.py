"""Where models and texts may come from: hostile paths, links and names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.errors import ForbiddenSourceError
from jobs.request import JobRequest, check_inputs
from jobs.settings import Settings
from jobs.sources import Sources

Requested = Callable[..., JobRequest]


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A folder that may be read, with models and texts, beside a secret."""
    folder = tmp_path / "allowed"
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (folder / "text.txt").write_text("words")
    (folder / "questions.jsonl").write_text("{}")
    (folder / "model.gguf").write_text("GGUF")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (outside / "secret.jsonl").write_text("secret")
    (folder / "link").symlink_to(outside)
    (folder / "link.txt").symlink_to(outside / "secret.txt")
    (folder / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (folder / "inner.txt").symlink_to(folder / "text.txt")
    linked = folder / "linked-weights"
    (linked / "deep").mkdir(parents=True)
    (linked / "config.json").write_text("{}")
    (linked / "deep" / "weights.gguf").symlink_to(outside / "secret.txt")
    hub = folder / "hub"
    (hub / "blobs").mkdir(parents=True)
    (hub / "blobs" / "1").write_text("{}")
    (hub / "snapshot").mkdir()
    (hub / "snapshot" / "config.json").symlink_to(Path("../blobs/1"))
    return folder


@pytest.fixture
def requested() -> Requested:
    def make(
        model: str = "owner/name", text: str = "wiki", questions: str | None = None, **more: Any
    ) -> JobRequest:
        said: dict[str, Any] = {
            "model": {"source": model, **more},
            "calibration": {"source": text},
            "target": {"sparsity": 0.3},
        }
        if questions is not None:
            choice = {"name": "choice", "settings": {"path": questions}}
            said["pruning"] = {"utility": [{"name": "nll"}, choice]}
        return JobRequest.model_validate(said)

    return make


@pytest.mark.parametrize("path", ["{}/model", "{}/hub/snapshot", "{}/link/../allowed/model", "{}"])
def test_what_is_inside_may_be_read(allowed: Path, requested: Requested, path: str) -> None:
    if path == "{}":
        (allowed / "link").unlink()
        for name in ("link.txt", "link.jsonl", "linked-weights/deep/weights.gguf"):
            (allowed / name).unlink()
    Sources((allowed,)).require_allowed(
        requested(
            path.format(allowed),
            text=f"{allowed}/inner.txt",
            questions=f"{allowed}/questions.jsonl",
        )
    )


HOSTILE_FOLDERS = [
    "{}/../outside",
    "{}/link",
    "{}/link/secret.txt",
    "{}/linked-weights",
    "{}-beside/model",
    "{}/model/../../outside",
    "/",
    "/etc",
    "/proc/self/root/etc",
    "./model",
    "../allowed/model",
    "~/model",
    "{}/nul\0/../model",
]


@pytest.mark.parametrize("path", HOSTILE_FOLDERS)
def test_a_model_outside_is_refused(allowed: Path, requested: Requested, path: str) -> None:
    with pytest.raises(ForbiddenSourceError) as refusal:
        Sources((allowed,)).require_allowed(requested(path.format(allowed)))
    assert refusal.value.field == "model.source"
    assert str(allowed) in refusal.value.allowed
    assert "BONSAI_SOURCE_FOLDERS" in refusal.value.cure


@pytest.mark.parametrize(
    "path",
    [
        "{}/../outside/secret.txt",
        "{}/link/secret.txt",
        "{}/link.txt",
        "/etc/passwd.txt",
        "text.txt",
        "../text.jsonl",
        "{}/../outside:train",
        "{}/..:train",
    ],
)
def test_a_text_outside_is_refused(allowed: Path, requested: Requested, path: str) -> None:
    with pytest.raises(ForbiddenSourceError) as refusal:
        Sources((allowed,)).require_allowed(requested(text=path.format(allowed)))
    assert refusal.value.field == "calibration.source"


@pytest.mark.parametrize("path", ["{}/link.jsonl", "{}/../outside/secret.jsonl", "q.jsonl"])
def test_questions_outside_are_refused(allowed: Path, requested: Requested, path: str) -> None:
    with pytest.raises(ForbiddenSourceError) as refusal:
        Sources((allowed,)).require_allowed(requested(questions=path.format(allowed)))
    assert refusal.value.field == "pruning.utility.1.settings.path"


@pytest.mark.parametrize("name", ["../secret.gguf", "a/b.gguf", "/etc/x.gguf", "..\\x.gguf"])
def test_a_gguf_file_is_a_name(allowed: Path, requested: Requested, name: str) -> None:
    with pytest.raises(ValidationError, match="gguf_file"):
        requested(f"{allowed}/model", gguf_file=name)


@pytest.mark.parametrize(
    "name",
    ["owner/../../etc", "a/b/c", "owner/", "/owner", "-x/y", "file:x", "own er/name", "a\0b", ".."],
)
def test_a_name_that_looks_like_a_path_is_no_hub_id(
    tmp_path: Path, requested: Requested, name: str
) -> None:
    with pytest.raises(ForbiddenSourceError):
        Sources((tmp_path,)).require_allowed(requested(name))


def test_a_folder_beside_the_process_is_no_hub_repository(
    allowed: Path, requested: Requested, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core reads a folder where one has the name of a hub id."""
    monkeypatch.chdir(allowed.parent)
    for request in (requested("outside"), requested(text="outside:train")):
        with pytest.raises(ForbiddenSourceError):
            Sources((allowed,)).require_allowed(request)


@pytest.mark.parametrize(
    ("patterns", "name", "may"),
    [
        (("*",), "owner/name", True),
        (("*",), "gpt2", True),
        (("meta-llama/*",), "meta-llama/Llama-3.2-1B", True),
        (("meta-llama/*",), "evil/meta-llama", False),
        (("meta-llama/*", "gpt2"), "gpt2", True),
        (("meta-llama/*",), "Meta-Llama/x", False),
        ((), "owner/name", False),
    ],
)
def test_hub_repositories_are_those_that_fit_a_pattern(
    requested: Requested, patterns: tuple[str, ...], name: str, may: bool
) -> None:
    sources = Sources(None, patterns)
    model = requested(name).model_copy(update={"calibration": requested(text="/t.txt").calibration})
    text = requested("/m", text=f"{name}:subset:train")
    for request, field in ((model, "model.source"), (text, "calibration.source")):
        if may:
            sources.require_allowed(request)
        else:
            with pytest.raises(ForbiddenSourceError) as refusal:
                sources.require_allowed(request)
            assert refusal.value.field == field
            assert "BONSAI_HUB_REPOSITORIES" in refusal.value.cure


def test_without_a_list_any_folder_may_be_read(requested: Requested, tmp_path: Path) -> None:
    Sources().require_allowed(requested(str(tmp_path), text="/anywhere/text.txt"))


def test_what_is_there_outside_is_not_told(allowed: Path, requested: Requested) -> None:
    refusals = []
    for name in ("outside", "nothing"):
        path = str(allowed.parent / name)
        with pytest.raises(ForbiddenSourceError) as refusal:
            check_inputs(requested(path), Sources((allowed,)))
        refusals.append(str(refusal.value).replace(path, "PATH"))
    assert refusals[0] == refusals[1]


def test_the_lists_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sources.of(Settings()) == Sources(None, ("*",))
    monkeypatch.setenv("BONSAI_SOURCE_FOLDERS", "/models, /texts")
    monkeypatch.setenv("BONSAI_HUB_REPOSITORIES", "")
    assert Sources.of(Settings()) == Sources((Path("/models"), Path("/texts")), ())
    monkeypatch.setenv("BONSAI_SOURCE_FOLDERS", "models")
    with pytest.raises(ValueError, match="absolute"):
        Settings()
