"""Utilities give what slow textbook formulas give, in one pass, whoever wrote them."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from pydantic import BaseModel, ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from bonsai_core import portions
from bonsai_core.config import ModelSource
from bonsai_core.errors import BrokenNumericsError, InvalidUtilityError, Stopped
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.models import load
from bonsai_core.utilities.function import from_function
from bonsai_core.utilities.mixture import Mixture, mixture_of
from bonsai_core.utilities.names import BUILT_IN, GROUP, LOCAL_ONLY, PLUG_INS, require_known
from bonsai_core.utilities.registry import FACTORIES
from bonsai_core.utilities.remote import require_remote
from bonsai_core.utilities.settings import UtilityChoice, WeightedUtility, parts_of
from bonsai_core.utilities.tokens import TokenUtility, measure_tokens
from bonsai_core.utilities.utility import Factory, LiveModel
from tests.core.conftest import blocks_of
from tests.tiny_models import (
    ARCHITECTURES,
    CONTEXT,
    SPECIAL_TOKENS,
    VOCABULARY,
    tiny_text,
    tiny_tokenizer,
)

SEQUENCES = torch.randint(0, 256, (6, 40), generator=torch.Generator().manual_seed(0))
PAGE = Path(__file__).parents[2] / "docs" / "add-a-utility.md"
QUESTIONS: list[dict[str, Any]] = [
    {"context": "the sky is", "choices": [" blue", " a wet stone", " no"], "answer": 0},
    {"context": "ask", "choices": [" me", " them all"], "answer": 1},
    {"context": "some longer words before it", "choices": ["?", "!", ".", ","], "answer": 2},
    {"context": "one", "choices": [" two", " six"], "answer": 0},
]


@pytest.fixture
def live(saved_model: Callable[..., Path]) -> LiveModel:
    loaded = load(ModelSource(source=str(saved_model())), torch.device("cpu"))
    return LiveModel(loaded.model, loaded.family, loaded.tokenizer, loaded.device)


def mixture(
    live: LiveModel, *parts: Mapping[str, Any] | str, given: Mapping[str, Factory] | None = None
) -> Mixture:
    made = [
        WeightedUtility.model_validate({"name": part} if isinstance(part, str) else part)
        for part in parts
    ]
    return mixture_of(live, SEQUENCES, made, given)


def damage(live: LiveModel, strength: float = 0.3) -> None:
    """Change the model as a mask would, only worse."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in live.model.parameters():
            noise = torch.empty_like(parameter).normal_(generator=generator)
            parameter += strength * parameter.std(correction=0) * noise


def textbook(live: LiveModel, tokens: Tensor = SEQUENCES) -> Tensor:
    """Log-probabilities of all positions but the last, [N, S - 1, V] float64."""
    with torch.inference_mode():
        return torch.log_softmax(live.model(tokens).logits[:, :-1].double(), dim=-1)


def write_questions(path: Path, questions: list[dict[str, Any]] = QUESTIONS) -> Path:
    path.write_text("\n".join(json.dumps(question) for question in questions) + "\n")
    return path


class Calls:
    """Counts the forward passes of a model's backbone."""

    def __init__(self, live: LiveModel) -> None:
        self.count = 0
        live.backbone.register_forward_hook(self._hear)

    def _hear(self, *_: object) -> None:
        self.count += 1


# --- nll and perplexity


def test_nll_and_perplexity_are_those_of_the_evaluation_to_the_last_bit(live: LiveModel) -> None:
    nll = mean_nll(live.model, live.family, SEQUENCES)
    found = mixture(live, "nll", "perplexity").measure_each()
    assert found == {"nll": -nll, "perplexity": -perplexity_of(nll)}
    assert mixture(live, "nll").measure() == -nll
    oracle = functional.nll_loss(textbook(live).flatten(0, 1), SEQUENCES[:, 1:].flatten())
    assert nll == pytest.approx(oracle.item(), rel=1e-5)


def test_a_hopeless_model_has_a_perplexity_that_json_can_hold(live: LiveModel) -> None:
    with torch.no_grad():
        live.head.weight *= 1e4
    assert mixture(live, "perplexity").measure() == -perplexity_of(1e9)


@pytest.mark.parametrize("name", ["nll", "perplexity", "kl"])
def test_weights_that_are_not_numbers_are_named(live: LiveModel, name: str) -> None:
    made = mixture(live, name)
    with torch.no_grad():
        live.head.weight[0, 0] = torch.nan
    with pytest.raises(BrokenNumericsError, match=f"'{name}'.*not finite") as caught:
        made.measure()
    assert (caught.value.field, caught.value.code) == ("model.dtype", "broken_numerics")
    assert "bfloat16" in caught.value.cure


def test_an_infinite_loss_is_not_hidden_by_the_clipping_of_the_perplexity(live: LiveModel) -> None:
    made = mixture(live, "perplexity")
    with torch.no_grad():
        live.head.weight *= 1e36  # each logit is a number, their sum is not
    with pytest.raises(BrokenNumericsError, match="inf"):
        made.measure()


# --- kl


def coarse_kl(parent: Tensor, model: Tensor, top: int) -> float:
    """The mean divergence over the parent's `top` likeliest tokens and one bucket, in float64."""
    ids = parent.topk(top).indices

    def buckets(log_probabilities: Tensor) -> Tensor:
        chosen = log_probabilities.gather(-1, ids)
        others = log_probabilities.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat([chosen, others], dim=-1) if top < VOCABULARY else chosen

    p, q = buckets(parent), buckets(model)
    return (p.exp() * (p - q)).sum(-1).mean().item()


@pytest.mark.parametrize("top", [1, 5, 64, VOCABULARY - 1, VOCABULARY, 512])
def test_kl_is_the_textbooks_over_the_parents_likeliest_tokens_and_the_rest(
    live: LiveModel, top: int
) -> None:
    made = mixture(live, {"name": "kl", "settings": {"top": top}})
    parent = textbook(live)
    damage(live)
    oracle = coarse_kl(parent, textbook(live), min(top, VOCABULARY))
    assert oracle > 0.01
    assert made.measure() == pytest.approx(-oracle, rel=1e-4, abs=1e-6)


def test_kl_with_the_whole_vocabulary_is_the_whole_divergence(live: LiveModel) -> None:
    made = mixture(live, {"name": "kl", "settings": {"top": VOCABULARY}})
    parent = textbook(live)
    damage(live)
    whole = functional.kl_div(textbook(live), parent, log_target=True, reduction="none").sum(-1)
    assert made.measure() == pytest.approx(-whole.mean().item(), rel=1e-4)


def test_kl_is_never_negative_and_grows_with_the_number_of_tokens(live: LiveModel) -> None:
    tops = [1, 2, 8, 32, 128, VOCABULARY]
    parts = [{"name": "kl", "label": str(top), "settings": {"top": top}} for top in tops]
    made = mixture(live, *parts)
    for strength in (1e-4, 1e-2, 1.0):
        damage(live, strength)
        found = [-value for value in made.measure_each().values()]
        assert all(a <= b + 1e-6 for a, b in zip([0.0, *found], found, strict=False)), found


@pytest.mark.parametrize("top", [1, 64, VOCABULARY])
def test_kl_of_the_unchanged_model_is_zero(live: LiveModel, top: int) -> None:
    made = mixture(live, {"name": "kl", "settings": {"top": top}})
    assert made.measure() == pytest.approx(0, abs=1e-7)
    assert made.measure() == made.measure()


@pytest.mark.parametrize("sharpness", [30.0, 3e3])
def test_kl_holds_where_the_rest_has_no_mass_left(live: LiveModel, sharpness: float) -> None:
    with torch.no_grad():
        live.head.weight *= sharpness
    made = mixture(live, {"name": "kl", "settings": {"top": 8}})
    assert made.measure() == pytest.approx(0, abs=1e-7)
    damage(live, 0.01)
    assert made.measure() < 1e-6


# --- one pass, in portions, and from elsewhere


def test_token_utilities_of_a_mix_share_one_pass(
    live: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(portions.TOKENS, "cpu", 80)
    made = mixture(live, "nll", "perplexity", "kl")
    calls, asked = Calls(live), 0

    def go_on() -> None:
        nonlocal asked
        asked += 1

    made.measure_each(go_on)
    assert (calls.count, asked) == (3, 3)


@pytest.mark.parametrize("tokens", [1, 120, 2048])
@pytest.mark.parametrize("positions", [1, 100, 256])
def test_portions_change_nothing(
    live: LiveModel, monkeypatch: pytest.MonkeyPatch, tokens: int, positions: int
) -> None:
    made = mixture(live, "nll", {"name": "kl", "settings": {"top": 16}})
    damage(live)
    before = made.measure_each()
    monkeypatch.setitem(portions.TOKENS, "cpu", tokens)
    monkeypatch.setitem(portions.POSITIONS, "cpu", positions)
    assert made.measure_each() == pytest.approx(before, rel=1e-5)


def test_hidden_states_may_come_from_a_cache(
    live: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(portions.TOKENS, "cpu", 80)
    made = mixture(live, "nll", "kl")
    expected = made.measure_each()
    with torch.inference_mode():
        cached = live.backbone(input_ids=SEQUENCES).last_hidden_state
    calls = Calls(live)

    def forward(tokens: Tensor, first: int) -> Tensor:
        assert torch.equal(tokens, SEQUENCES[first : first + len(tokens)])
        return cached[first : first + len(tokens)]

    assert made.measure_each(forward=forward) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert calls.count == 0


def test_a_stop_between_two_passes_ends_it(live: LiveModel, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.jsonl")
    parts = ["kl", {"name": "choice", "settings": {"path": str(path)}}, "own"]

    def stop() -> None:
        raise Stopped

    for part in parts:
        made = mixture(live, part, given={"own": from_function(spread)})
        calls = Calls(live)
        with pytest.raises(Stopped):
            made.measure(stop)
        assert calls.count == 0


# --- the mix


def test_a_mix_is_the_weighted_sum_of_its_parts(live: LiveModel, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.jsonl")
    made = mixture(
        live,
        {"name": "nll", "weight": 0.5},
        {"name": "choice", "weight": 2, "settings": {"path": str(path)}, "label": "easy"},
        {"name": "kl", "weight": 4.0},
    )
    damage(live)
    each = made.measure_each()
    assert list(each) == ["nll", "easy", "kl"]
    assert made.measure() == 0.5 * each["nll"] + 2 * each["easy"] + 4 * each["kl"]
    assert made.measure() == made.total(each)


def test_files_that_utilities_read_are_told_by_digest(live: LiveModel, tmp_path: Path) -> None:
    part = {"name": "choice", "settings": {"path": str(tmp_path / "questions.jsonl")}}
    write_questions(tmp_path / "questions.jsonl")
    first = mixture(live, "kl", part).inputs
    write_questions(tmp_path / "questions.jsonl", QUESTIONS[:2])
    second = mixture(live, "kl", part).inputs
    assert list(first) == list(second) == ["choice"]
    assert first != second
    assert mixture(live, "nll").inputs == {}


# --- choice


def slow_likelihoods(live: LiveModel, question: Mapping[str, Any]) -> list[Tensor]:
    """Log-likelihoods of each choice's tokens, one row at a time, without padding, in float64."""
    encode = live.tokenizer
    start = len(encode(question["context"])["input_ids"])
    found = []
    for choice in question["choices"]:
        tokens = torch.tensor(encode(question["context"] + choice)["input_ids"])
        log_probabilities = textbook(live, tokens[None])[0]
        found.append(log_probabilities.gather(1, tokens[1:, None])[start - 1 :, 0])
    return found


def slow_margins(live: LiveModel, likelihood: str) -> list[float]:
    margins = []
    for question in QUESTIONS:
        values = [getattr(v, likelihood)().item() for v in slow_likelihoods(live, question)]
        answer = values.pop(question["answer"])
        margins.append(answer - max(values))
    return margins


@pytest.mark.parametrize("likelihood", ["mean", "sum"])
@pytest.mark.parametrize("tokens", [1, 40, 2048])
def test_choice_is_the_textbooks_whatever_shares_a_batch(
    live: LiveModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, likelihood: str, tokens: int
) -> None:
    monkeypatch.setitem(portions.TOKENS, "cpu", tokens)
    monkeypatch.setitem(portions.POSITIONS, "cpu", 7)
    path = write_questions(tmp_path / "questions.jsonl")
    settings = {"path": str(path), "likelihood": likelihood}
    made = mixture(
        live,
        {"name": "choice", "settings": settings},
        {"name": "choice", "label": "accuracy", "settings": {**settings, "score": "accuracy"}},
    )
    margins = slow_margins(live, likelihood)
    assert made.measure_each() == {
        "choice": pytest.approx(sum(margins) / len(margins), rel=1e-5),
        "accuracy": sum(margin > 0 for margin in margins) / len(margins),
    }


def test_a_tie_is_no_lead(live: LiveModel, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.jsonl")
    settings = {"path": str(path), "score": "accuracy"}
    made = mixture(live, {"name": "choice", "settings": settings})
    with torch.no_grad():
        live.head.weight.zero_()
    assert made.measure() == 0


def test_choices_of_several_questions_share_a_pass(live: LiveModel, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.jsonl")
    made = mixture(live, {"name": "choice", "settings": {"path": str(path)}})
    calls = Calls(live)
    made.measure()
    assert calls.count == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_utilities_are_the_textbooks_in_every_family(
    saved_model: Callable[..., Path], architecture: str, tmp_path: Path
) -> None:
    loaded = load(ModelSource(source=str(saved_model(architecture))), torch.device("cpu"))
    live = LiveModel(loaded.model, loaded.family, loaded.tokenizer, loaded.device)
    path = write_questions(tmp_path / "questions.jsonl")
    kl = {"name": "kl", "settings": {"top": 16}}
    made = mixture(live, "nll", kl, {"name": "choice", "settings": {"path": str(path)}})
    parent = textbook(live)
    damage(live)
    model, margins = textbook(live), slow_margins(live, "mean")
    nll = functional.nll_loss(model.flatten(0, 1), SEQUENCES[:, 1:].flatten()).item()
    assert made.measure_each() == {
        "nll": pytest.approx(-nll, rel=1e-4),
        "kl": pytest.approx(-coarse_kl(parent, model, 16), rel=1e-3),
        "choice": pytest.approx(sum(margins) / len(margins), rel=1e-3),
    }


def test_the_first_questions_of_a_file_may_do(live: LiveModel, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.jsonl")
    made = mixture(live, {"name": "choice", "settings": {"path": str(path), "questions": 2}})
    assert made.measure() == pytest.approx(sum(slow_margins(live, "mean")[:2]) / 2, rel=1e-5)
    with pytest.raises(InvalidUtilityError, match=r"has 4 questions.*allowed: at least 5"):
        mixture(live, {"name": "choice", "settings": {"path": str(path), "questions": 5}})


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer, with one token for a space and a `b`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: index for index, token in enumerate([*alphabet, "Ġb", *SPECIAL_TOKENS[:2]])}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[("Ġ", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_token_across_the_border_is_scored_and_all_choices_stand_behind_the_same(
    live: LiveModel, tmp_path: Path
) -> None:
    encode = merging_tokenizer()
    across = LiveModel(live.model, live.family, encode, live.device)
    # Behind "a ", a "b" swallows the space; so for "c" the space is scored too.
    path = write_questions(
        tmp_path / "questions.jsonl", [{"context": "a ", "choices": ["b", "cd"], "answer": 0}]
    )
    settings = {"path": str(path), "likelihood": "sum"}
    made = mixture(across, {"name": "choice", "settings": settings})

    def behind_a(text: str) -> float:
        tokens = torch.tensor(encode(text)["input_ids"])
        picked = textbook(live, tokens[None])[0].gather(1, tokens[1:, None])
        assert len(tokens) == {"a b": 2, "a cd": 4}[text]
        return picked.sum().item()

    assert made.measure() == pytest.approx(behind_a("a b") - behind_a("a cd"), rel=1e-5)


def test_a_broken_model_has_no_accuracy(live: LiveModel, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.jsonl")
    settings = {"path": str(path), "score": "accuracy"}
    made = mixture(live, {"name": "choice", "settings": settings})
    with torch.no_grad():
        live.head.weight[0, 0] = torch.nan
    with pytest.raises(BrokenNumericsError, match="choice"):
        made.measure()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Invalid JSON"),
        ("[]", "an object"),
        ('{"context": "a", "choices": ["b", "c"]}', "answer: Field required"),
        ('{"context": "a", "choices": ["b"], "answer": 0}', "choices.*at least 2"),
        ('{"context": "a", "choices": ["b", "c"], "answer": 2}', "answer 2 is none of 2 choices"),
        ('{"context": "a", "choices": ["b", "c"], "answer": -1}', "answer.*greater than"),
        ('{"context": "a", "choices": ["b", "c"], "answer": "0"}', "answer.*integer"),
        ('{"context": "a", "choices": ["b", "b"], "answer": 0}', "two choices are the same"),
        ('{"context": "a", "choices": ["b", ""], "answer": 0}', "a choice is empty"),
        ('{"context": "", "choices": ["b", "c"], "answer": 0}', "context.*at least 1"),
        ('{"context": "a", "choices": ["b", 3], "answer": 0}', r"choices\.1.*string"),
        (f'{{"context": "{"a" * CONTEXT}", "choices": ["b", "c"], "answer": 0}}', "257 tokens"),
    ],
)
def test_a_line_that_is_no_question_is_named(
    live: LiveModel, tmp_path: Path, line: str, problem: str
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(QUESTIONS[0]) + "\n\n" + line + "\n")
    with pytest.raises(InvalidUtilityError, match=f"line 3: .*{problem}") as caught:
        mixture(live, {"name": "choice", "settings": {"path": str(path)}})
    assert (caught.value.field, caught.value.value) == ("pruning.utility", str(path))
    assert '"answer": 0' in caught.value.allowed


def test_a_context_that_a_choice_swallows_is_refused(live: LiveModel, tmp_path: Path) -> None:
    across = LiveModel(live.model, live.family, merging_tokenizer(), live.device)
    path = write_questions(
        tmp_path / "questions.jsonl", [{"context": " ", "choices": ["b", "c"], "answer": 0}]
    )
    with pytest.raises(InvalidUtilityError, match=r"line 1: .*begin with different.*Question:"):
        mixture(across, {"name": "choice", "settings": {"path": str(path)}})


def test_a_missing_or_empty_file_of_questions_is_refused(live: LiveModel, tmp_path: Path) -> None:
    missing, empty = tmp_path / "none.jsonl", tmp_path / "empty.jsonl"
    empty.write_text("\n")
    for path, problem in ((missing, "No such file"), (empty, "has 0 questions")):
        with pytest.raises(InvalidUtilityError, match=problem):
            mixture(live, {"name": "choice", "settings": {"path": str(path)}})
    empty.write_bytes(b"\xff\n")
    with pytest.raises(InvalidUtilityError, match="not UTF-8"):
        mixture(live, {"name": "choice", "settings": {"path": str(empty)}})


# --- a user's function


def spread(live: LiveModel, sequences: Tensor) -> Tensor:
    """A function as users write them; tests import it by its path."""
    assert not torch.is_grad_enabled()
    return live.model(sequences).logits.std()


def test_a_function_is_called_on_the_model_as_it_is(live: LiveModel) -> None:
    by_path = {"name": "function", "settings": {"path": f"{__name__}:spread"}}
    made = mixture(live, by_path, "own", given={"own": from_function(spread)})
    for _ in range(2):
        with torch.inference_mode():
            expected = live.model(SEQUENCES).logits.std().item()
        assert made.measure_each() == {"function": expected, "own": expected}
        damage(live)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no_such_module_anywhere:f", "ModuleNotFoundError.*PYTHONPATH"),
        (f"{__name__}:no_such_function", "AttributeError"),
        (f"{__name__}:SEQUENCES", "it is Tensor, not a function"),
    ],
)
def test_a_function_that_is_not_there_is_named(live: LiveModel, path: str, problem: str) -> None:
    with pytest.raises(InvalidUtilityError, match=problem) as caught:
        mixture(live, {"name": "function", "settings": {"path": path}})
    assert (caught.value.field, caught.value.value) == ("pruning.utility", path)


@pytest.mark.parametrize("value", ["3", None, torch.zeros(2), [1.0]])
def test_a_function_must_give_a_number(live: LiveModel, value: object) -> None:
    made = mixture(live, "own", given={"own": from_function(lambda *_: value)})  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidUtilityError, match="must return a number"):
        made.measure()


def test_a_function_must_give_a_finite_number(live: LiveModel) -> None:
    made = mixture(live, "own", given={"own": from_function(lambda *_: math.inf)})
    with pytest.raises(BrokenNumericsError):
        made.measure()


def test_what_a_function_raises_reaches_its_author(live: LiveModel) -> None:
    def faulty(_live: LiveModel, _sequences: Tensor) -> float:
        raise ZeroDivisionError("mine")

    made = mixture(live, "own", given={"own": from_function(faulty)})
    with pytest.raises(ZeroDivisionError, match="mine"):
        made.measure()


def test_a_function_has_no_settings(live: LiveModel) -> None:
    with pytest.raises(InvalidUtilityError, match="no settings"):
        mixture(live, {"name": "own", "settings": {"a": 1}}, given={"own": from_function(spread)})


# --- plug-ins

Install = Callable[..., None]


@pytest.fixture
def install(install_package: Callable[..., None]) -> Install:
    return partial(install_package, GROUP)


def test_the_plug_in_of_the_page_runs_in_the_same_pass(live: LiveModel, install: Install) -> None:
    source = next(block for block in blocks_of(PAGE, "python") if "class RightTokens" in block)
    point = re.search(r'^(\w+) = "([\w:]+)"$', blocks_of(PAGE, "toml")[0], flags=re.MULTILINE)
    assert point is not None
    install("right_tokens", source, {point[1]: point[2]})
    part = {"name": "right_tokens", "settings": {"first_guesses": 5}}
    made = mixture(live, "nll", part)
    calls = Calls(live)
    found = made.measure_each()
    assert calls.count == 1
    guesses = textbook(live).topk(5).indices
    right = (guesses == SEQUENCES[:, 1:, None]).any(-1).double().mean().item()
    assert found["right_tokens"] == pytest.approx(right)
    assert 0 < right < 1


def test_the_function_of_the_page_runs(
    live: LiveModel, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = next(block for block in blocks_of(PAGE, "python") if "def sharpness" in block)
    source += "\nfrom bonsai_core.utilities.function import from_function\n"
    source += "factory = from_function(sharpness)\n"
    install("my_metric", source, {"sharpness": "my_metric:factory"})
    by_path = {"name": "function", "settings": {"path": "my_metric:sharpness"}}
    found = mixture(live, by_path, "sharpness").measure_each()
    assert found["function"] == found["sharpness"]
    with torch.inference_mode():
        probabilities = live.model(SEQUENCES[:4]).logits.softmax(-1)
    assert found["sharpness"] == pytest.approx(probabilities.amax(-1).mean().item(), rel=1e-5)


def test_the_mix_of_the_page_is_a_choice_of_utilities() -> None:
    asked = json.loads(blocks_of(PAGE, "json")[0])
    assert [part.name for part in parts_of(Request.model_validate(asked).utility)] == [
        "kl",
        "choice",
    ]


def test_an_unknown_name_is_told_the_known_ones(live: LiveModel, install: Install) -> None:
    install("some_plug_in", "", {"mine": "some_plug_in:Mine"})
    with pytest.raises(InvalidUtilityError, match="no utility has this name") as caught:
        mixture(live, "elegance")
    assert caught.value.code == "invalid_utility"
    assert (caught.value.field, caught.value.value) == ("pruning.utility", "elegance")
    assert caught.value.allowed == "nll, perplexity, kl, choice, function, mine"
    assert GROUP in caught.value.cure


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError.*repair or uninstall broken_plug"),
        ("raise RuntimeError('at import')", "RuntimeError: at import"),
        ("", "AttributeError"),
        ("Mine = 3", "is int, not a factory"),
        ("def Mine(live, sequences, settings): return 3", "gave int, which cannot measure"),
    ],
)
def test_a_plug_in_that_does_not_load_is_named(
    live: LiveModel, install: Install, source: str, problem: str
) -> None:
    install("broken_plug_in", source, {"mine": "broken_plug_in:Mine"})
    with pytest.raises(InvalidUtilityError, match=problem) as caught:
        mixture(live, "mine")
    assert (caught.value.field, caught.value.value) == ("pruning.utility", "mine")


def test_two_packages_with_one_name_are_refused(live: LiveModel, install: Install) -> None:
    install("first_plug_in", "", {"mine": "first_plug_in:Mine"})
    install("second_plug_in", "", {"mine": "second_plug_in:Mine"})
    with pytest.raises(InvalidUtilityError, match=r"first_plug_in.*uninstall one"):
        mixture(live, "mine")


def test_a_plug_in_cannot_take_a_built_in_name(live: LiveModel, install: Install) -> None:
    install("bold_plug_in", "raise RuntimeError", {"nll": "bold_plug_in:Mine"})
    assert "nll" not in PLUG_INS.installed()
    assert mixture(live, "nll").measure() == -mean_nll(live.model, live.family, SEQUENCES)


def test_a_plug_in_of_any_shape_is_measured_and_its_number_checked(live: LiveModel) -> None:
    class Broken:
        name = "broken"

        def measure(self, *_: object) -> float:
            return math.nan

    made = mixture(live, "mine", given={"mine": lambda *_: Broken()})
    with pytest.raises(BrokenNumericsError, match="'mine'"):
        made.measure()


def test_one_token_utility_measures_itself(live: LiveModel) -> None:
    utility = FACTORIES["nll"](live, SEQUENCES, {})
    assert isinstance(utility, TokenUtility)
    expected = measure_tokens(live, [utility], SEQUENCES)
    assert [utility.measure()] == expected == [-mean_nll(live.model, live.family, SEQUENCES)]


# --- from outside


def test_the_table_of_names_is_that_of_the_factories() -> None:
    assert set(BUILT_IN) == set(FACTORIES)
    assert set(BUILT_IN) >= LOCAL_ONLY


def test_code_named_by_a_request_from_outside_is_not_run(install: Install) -> None:
    install("some_plug_in", "raise RuntimeError('imported')", {"mine": "some_plug_in:Mine"})
    function = WeightedUtility(name="function", settings={"path": "os:getpid"})
    with pytest.raises(InvalidUtilityError, match="directly") as caught:
        require_remote([function])
    assert caught.value.allowed == "nll, perplexity, kl, choice, mine"
    assert "plug-in" in caught.value.cure
    require_known("function")
    require_remote([WeightedUtility(name="mine")])  # known, and not imported
    assert "some_plug_in" not in sys.modules
    with pytest.raises(InvalidUtilityError, match="no utility has this name"):
        require_remote([WeightedUtility(name="other")])


def test_questions_asked_for_from_outside_are_an_existing_file(tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.jsonl")
    require_remote([WeightedUtility(name="choice", settings={"path": str(path)})])
    for wrong in ("questions.jsonl", str(tmp_path / "none.jsonl")):
        with pytest.raises(InvalidUtilityError, match="API and workers share"):
            require_remote([WeightedUtility(name="choice", settings={"path": wrong})])


def test_what_the_api_needs_loads_no_torch() -> None:
    code = (
        "import sys, bonsai_core.utilities.remote, bonsai_core.utilities.questions; "
        "print('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


# --- the request


class Request(BaseModel):
    """Where `pruning.utility` will stand."""

    utility: UtilityChoice = "nll"


def test_a_name_is_a_mix_of_one() -> None:
    assert parts_of(Request().utility) == (WeightedUtility(name="nll", weight=1.0),)
    asked = Request.model_validate({"utility": "kl"})
    assert asked.utility == "kl"
    assert parts_of(asked.utility)[0].settings == {"top": 512}


def test_a_mix_goes_through_json_with_its_defaults_written_out() -> None:
    asked = Request.model_validate(
        {"utility": [{"name": "kl", "weight": 0.7}, {"name": "mine", "settings": {"a": [1, {}]}}]}
    )
    written = asked.model_dump(mode="json")
    assert written["utility"][0] == {
        "name": "kl",
        "weight": 0.7,
        "settings": {"top": 512},
        "label": None,
    }
    assert Request.model_validate_json(asked.model_dump_json()) == asked
    assert Request.model_validate(written) == asked


@pytest.mark.parametrize(
    ("value", "place", "problem"),
    [
        ("", "utility", "at least 1"),
        ("N L L", "utility", "match pattern"),
        (3, "utility", "give the name"),
        ("choice", "utility", "'choice' needs settings .path."),
        ("function", "utility", "'function' needs settings .path."),
        ([], "utility", "at least 1"),
        (["nll"], "utility.0", "dictionary"),
        ([{"name": "nll"}, {"weight": 1}], "utility.1.name", "required"),
        ([{"name": "nll", "weight": 0}], "utility.0.weight", "greater than 0"),
        ([{"name": "nll", "weight": math.inf}], "utility.0.weight", "finite|less than"),
        ([{"name": "nll", "wait": 1}], "utility.0.wait", "not permitted"),
        ([{"name": "nll"}, {"name": "nll"}], "utility", "'nll' stands for 2.*label"),
        ([{"name": "nll", "settings": {"a": 1}}], "utility.0.settings.a", "not permitted"),
        ([{"name": "kl", "settings": {"top": 0}}], "utility.0.settings.top", "at least|greater"),
        ([{"name": "choice"}], "utility.0.settings.path", "required"),
        (
            [{"name": "choice", "settings": {"path": "a.txt"}}],
            "utility.0.settings.path",
            "match pattern",
        ),
        (
            [{"name": "function", "settings": {"path": "os.system"}}],
            "utility.0.settings.path",
            "match pattern",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_place(
    value: object, place: str, problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        Request.model_validate({"utility": value})
    assert ".".join(str(step) for step in caught.value.errors()[0]["loc"]) == place


def test_the_schema_shows_both_shapes_and_explains_every_field() -> None:
    schema = Request.model_json_schema()
    shapes = schema["properties"]["utility"]["anyOf"]
    assert [shape["type"] for shape in shapes] == ["string", "array"]
    fields = schema["$defs"]["WeightedUtility"]["properties"]
    assert all(field.get("description") for field in fields.values())
    assert Request.model_json_schema(mode="serialization")["properties"]["utility"]["anyOf"]


def test_real_text_can_steer(live: LiveModel, tmp_path: Path) -> None:
    words = tiny_text(tmp_path / "text.txt").read_text()
    tokens = torch.tensor(tiny_tokenizer()(words)["input_ids"][: 4 * 64]).reshape(4, 64)
    made = mixture_of(live, tokens, parts_of("kl"))
    before = made.measure()
    damage(live, 0.05)
    little = made.measure()
    damage(live, 0.5)
    assert before > little > made.measure()
