"""What tasks of lm-evaluation-harness give is what our own scoring of the same questions gives."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bonsai_core.config import ModelSource
from bonsai_core.errors import InvalidTaskError
from bonsai_core.harness import Harness, TaskScore
from bonsai_core.models import LiveModel, load_saved
from bonsai_core.registration import register
from bonsai_core.utilities.questions import Question
from bonsai_core.utilities.quiz import Quiz
from tests.formats.pruned_folders import pruned_folder
from tests.harness_tasks import COUNT, questions, tasks_folder, write_task
from tests.tiny_models import tiny_tokenizer


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tasks_folder(tmp_path_factory.mktemp("harness") / "tasks")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pruned_folder(tmp_path_factory.mktemp("pruned"), "LlamaForCausalLM")


def live_at(folder: Path) -> LiveModel:
    return load_saved(ModelSource(source=str(folder)), torch.device("cpu"))


@torch.inference_mode()
def likelihoods(folder: Path, asked: Sequence[Question]) -> np.ndarray:
    """Of each choice behind its context, in nats, one text at a time; [questions, choices]."""
    register()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), tiny_tokenizer()
    rows = []
    for question in asked:
        start = len(tokenizer(question.context)["input_ids"])
        for choice in question.choices:
            tokens = torch.tensor(tokenizer(question.context + choice)["input_ids"])
            scores = model(tokens[None]).logits[0, :-1].double().log_softmax(-1)
            rows.append(scores.gather(1, tokens[1:, None])[start - 1 :].sum().item())
    return np.array(rows).reshape(len(asked), -1)


def share(right: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return right.mean(), right.std(ddof=1) / len(right) ** 0.5


def by_metric(scores: Sequence[TaskScore]) -> dict[tuple[str, str], TaskScore]:
    return {(score.task, score.metric): score for score in scores}


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Gemma3ForCausalLM"])
def test_tasks_give_what_our_own_scoring_gives_dense_and_pruned(
    tmp_path: Path, tasks: Path, architecture: str
) -> None:
    folder = pruned_folder(tmp_path, architecture)
    harness = Harness(["tiny_choice", "tiny_likelihood"], folder=tasks)
    asked = questions()
    answers = np.array([question.answer for question in asked])
    lengths = np.array([[len(choice) - 1 for choice in question.choices] for question in asked])
    found = []
    for place in (folder.parent / "dense", folder):
        own = likelihoods(place, asked)
        expected = {
            ("tiny_choice", "acc"): share(own.argmax(1) == answers),
            ("tiny_choice", "acc_norm"): share((own / lengths).argmax(1) == answers),
            ("tiny_likelihood", "perplexity"): share(own[range(COUNT), answers]),
        }
        live = live_at(place)
        scores = by_metric(harness.scores(live))
        assert scores.keys() == expected.keys()
        for key, (value, error) in expected.items():
            assert scores[key].value == pytest.approx(value, rel=1e-4)
            assert scores[key].standard_error == pytest.approx(error, rel=1e-4)
        margins = Quiz(live, asked).margins()
        assert scores["tiny_choice", "acc"].value == pytest.approx(np.mean(np.array(margins) > 0))
        found.append(scores["tiny_likelihood", "perplexity"].value)
    assert found[0] != found[1]


def test_scores_tell_how_the_task_was_asked(tasks: Path, pruned: Path) -> None:
    harness = Harness(["tiny_choice", "tiny_choice"], folder=tasks, limit=7)
    first, *_ = harness.scores(live_at(pruned))
    asked = questions()[:7]
    right = likelihoods(pruned, asked).argmax(1) == [question.answer for question in asked]
    value, error = share(right)
    assert first.value == pytest.approx(value)
    assert first.standard_error == pytest.approx(error)
    assert (first.task, first.metric, first.filter) == ("tiny_choice", "acc", "none")
    assert (first.samples, first.shots, first.version) == (7, 0, "3")
    assert first.higher_is_better is True
    assert harness.protocol()["limit"] == 7
    assert harness.protocol()["tasks"] == ["tiny_choice"]


def test_a_group_is_asked_task_by_task_and_as_a_whole(tasks: Path, pruned: Path) -> None:
    scores = by_metric(Harness(["tiny_group"], folder=tasks, limit=5).scores(live_at(pruned)))
    whole, part = scores["tiny_group", "acc"], scores["tiny_choice", "acc"]
    assert (whole.value, whole.samples) == (part.value, 5)
    assert ("tiny_likelihood", "perplexity") in scores


def test_asking_prints_nothing_and_leaves_the_seeds_of_the_process(
    tasks: Path, pruned: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    live = live_at(pruned)
    capfd.readouterr()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    Harness(["tiny_choice"], folder=tasks).scores(live)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == states
    assert capfd.readouterr() == ("", "")


def test_an_unknown_task_is_named_with_those_like_it(tasks: Path) -> None:
    with pytest.raises(InvalidTaskError, match="no task, group or tag has this name") as caught:
        Harness(["tiny_choice", "tiny_choise"], folder=tasks)
    error = caught.value
    assert (error.code, error.field, error.value) == ("invalid_task", "task", "tiny_choise")
    assert "tiny_choice" in error.allowed
    assert "lm-eval ls tasks" in error.cure


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskError, match="no such folder") as caught:
        Harness(["tiny_choice"], folder=tmp_path / "none")
    assert caught.value.field == "tasks_folder"


@pytest.mark.parametrize("where", ["hub", "file"])
def test_data_that_cannot_be_reached_is_told(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    write_task(tmp_path, "tiny_lost", data=str(tmp_path / "none.jsonl"))
    if where == "hub":
        definition = (tmp_path / "tiny_lost.yaml").read_text()
        elsewhere = definition.replace("dataset_path: json", "dataset_path: nobody/nothing")
        elsewhere = re.sub(r"  data_files:\n.*\n", "", elsewhere)
        (tmp_path / "tiny_lost.yaml").write_text(elsewhere)
    with pytest.raises(InvalidTaskError, match="nothing" if where == "hub" else "none") as caught:
        Harness(["tiny_lost"], folder=tmp_path)
    assert (caught.value.field, caught.value.value) == ("task", "tiny_lost")
    assert "need a network" in caught.value.cure


def test_a_package_that_a_task_needs_is_named(tmp_path: Path) -> None:
    tasks_folder(tmp_path)
    (tmp_path / "helper.py").write_text("import unheard_of\n\ndef choices(row):\n    return []\n")
    definition = (tmp_path / "tiny_choice.yaml").read_text()
    needy = definition.replace('"{{choices}}"', "!function helper.choices")
    (tmp_path / "tiny_choice.yaml").write_text(needy)
    with pytest.raises(InvalidTaskError, match="install the package unheard_of"):
        Harness(["tiny_choice"], folder=tmp_path)


def test_a_task_whose_own_code_fails_is_named(tmp_path: Path, pruned: Path) -> None:
    tasks_folder(tmp_path)
    (tmp_path / "helper.py").write_text("def judged(row, answers):\n    raise KeyError('oh')\n")
    definition = (tmp_path / "tiny_choice.yaml").read_text()
    (tmp_path / "tiny_choice.yaml").write_text(
        definition + "process_results: !function helper.judged\n"
    )
    harness = Harness(["tiny_choice"], folder=tmp_path)
    with pytest.raises(InvalidTaskError, match=r"KeyError: 'oh'.*tiny_choice"):
        harness.scores(live_at(pruned))


def test_a_task_that_runs_what_a_model_writes_is_refused(tmp_path: Path) -> None:
    tasks_folder(tmp_path)
    with (tmp_path / "tiny_choice.yaml").open("a") as definition:
        definition.write("unsafe_code: true\n")
    with pytest.raises(InvalidTaskError, match="runs code that a model has written"):
        Harness(["tiny_choice"], folder=tmp_path)
