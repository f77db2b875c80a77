"""Questions can be answered from the text, are the same every time, and scored as they should."""

from pathlib import Path

import pytest
import torch

from benchmarks.cloze import log_likelihoods, read, score, so_many_from, write
from bonsai_core.cloze import CHOICES, questions_from
from bonsai_core.config import ModelSource
from bonsai_core.models import LoadedModel, load
from bonsai_core.utilities.questions import Question
from tests.benchmarks.conftest import paragraphs
from tests.tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> str:
    return paragraphs(tmp_path_factory.mktemp("cloze") / "text.txt", seed=3).read_text()


@pytest.fixture(scope="module")
def questions(content: str) -> list[Question]:
    return questions_from(content, tiny_tokenizer(), 20)


def asked(choices: list[str], answer: int) -> Question:
    return Question(context="The gardener cuts the", choices=choices, answer=answer)


def test_the_true_choice_and_no_other_is_how_the_text_goes_on(
    content: str, questions: list[Question]
) -> None:
    for question in questions:
        follows = [f"{question.context}{choice}" in content for choice in question.choices]
        assert follows == [number == question.answer for number in range(CHOICES)]


def test_wrong_choices_are_of_the_same_text_and_as_long(
    content: str, questions: list[Question]
) -> None:
    tokenizer = tiny_tokenizer()
    for question in questions:
        assert all(choice in content and choice.startswith(" ") for choice in question.choices)
        assert len({len(tokenizer(choice)["input_ids"]) for choice in question.choices}) == 1
        assert len(set(question.choices)) == CHOICES


def test_questions_are_the_same_every_time_and_answers_are_everywhere(
    content: str, questions: list[Question]
) -> None:
    assert questions_from(content, tiny_tokenizer(), 20) == questions
    assert {question.answer for question in questions} == set(range(CHOICES))


def test_a_text_with_too_few_paragraphs_is_refused() -> None:
    with pytest.raises(SystemExit, match="0 questions"):
        so_many_from("too short\n" * 100, tiny_tokenizer(), 1)


def test_what_is_written_is_read(questions: list[Question], tmp_path: Path) -> None:
    write(questions, tmp_path / "questions.jsonl")
    assert read(tmp_path / "questions.jsonl") == questions


@pytest.mark.parametrize("architecture", ARCHITECTURES[:4])
def test_likelihoods_are_those_of_whole_forward_passes(tmp_path: Path, architecture: str) -> None:
    folder = tiny_model(tmp_path / "model", architecture)
    loaded = load(ModelSource(source=str(folder)), torch.device("cpu"))
    question = asked([" rose", " old tree in winter", " x"], 1)
    found = log_likelihoods(loaded.model, loaded.family, loaded.tokenizer, question)
    start = len(question.context)
    for choice, value in zip(question.choices, found, strict=True):
        ids = torch.tensor([list((question.context + choice).encode())])
        ids = torch.tensor([loaded.tokenizer(question.context + choice)["input_ids"]])
        with torch.inference_mode():
            likely = loaded.model(ids).logits.log_softmax(-1)
        expected = sum(float(likely[0, at - 1, ids[0, at]]) for at in range(start, ids.shape[1]))
        assert value == pytest.approx(expected, rel=1e-4)


def test_the_score_counts_right_answers_and_means_their_lead(loaded: LoadedModel) -> None:
    model, family, tokenizer = loaded.model, loaded.family, loaded.tokenizer
    choices = [" rose", " tree", " hose"]
    likely = log_likelihoods(model, family, tokenizer, asked(choices, 0))
    best = max(range(3), key=lambda number: likely[number])
    lead = sorted(likely)[-1] - sorted(likely)[-2]
    right = asked(choices, best)
    wrong = asked(choices, min(range(3), key=lambda n: likely[n]))
    found = score(model, family, tokenizer, [right, wrong])
    assert found.accuracy == 0.5
    assert found.margin == pytest.approx((lead + min(likely) - max(likely)) / 2)
