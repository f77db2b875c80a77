"""What is measured of a model is what other ways of computing it give."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bonsai_core.config import ModelSource, PruneRequest
from bonsai_core.errors import InvalidModelError, UnavailableDeviceError
from bonsai_core.evaluation import mean_nll
from bonsai_core.exam import Exam, Text, exam_for
from bonsai_core.measurement import WRITTEN_TOKENS, compare, measure
from bonsai_core.models import LiveModel, load_saved, parameters
from bonsai_core.registration import register
from tests.benchmarks.conftest import paragraphs
from tests.formats.pruned_folders import pruned_folder
from tests.tiny_models import CONTEXT, tiny_model

DOUBLED = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
CPU = torch.device("cpu")


def live_at(folder: Path) -> LiveModel:
    return load_saved(ModelSource(source=str(folder)), CPU)


def request_on(folder: Path, text: Path, samples: int) -> PruneRequest:
    return PruneRequest.model_validate(
        {
            "model": {"source": str(folder)},
            "calibration": {"source": str(text), "samples": samples, "sequence_length": 64},
            "target": {"sparsity": 0.3},
            "report": {"text": str(text)},
        }
    )


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paragraphs(tmp_path_factory.mktemp("prose") / "text.txt", seed=3)


def test_every_family_is_measured_dense_and_pruned(
    tmp_path: Path, prose: Path, architecture: str
) -> None:
    folder = pruned_folder(tmp_path, architecture)
    dense, pruned = live_at(folder.parent / "dense"), live_at(folder)
    exam = exam_for(dense, request_on(folder.parent / "dense", prose, 4))
    for live, place in ((dense, folder.parent / "dense"), (pruned, folder)):
        found = measure(ModelSource(source=str(place)), live, exam)
        assert found.parameters == parameters(live.model)
        assert found.weight_bytes == 4 * found.parameters
        assert found.file_bytes == sum(p.stat().st_size for p in place.glob("*.safetensors"))
        for text in exam.texts:
            expected = mean_nll(live.model, live.family, text.windows)
            assert found.mean_nll[text.name] == pytest.approx(expected, rel=1e-6)
        assert found.accuracy is not None
        assert 0 <= found.accuracy <= 1
        assert min(found.prefill_tokens_per_second, found.decode_tokens_per_second) > 0
        assert len(found.completions) == len(exam.prompts) >= 2


def test_a_completion_is_what_generate_writes(tmp_path: Path) -> None:
    folder = pruned_folder(tmp_path, "LlamaForCausalLM")
    live = live_at(folder)
    exam = Exam([Text("one", "", torch.arange(40)[None])], [], "", ["A tree in winter"], 8)
    [found] = measure(ModelSource(source=str(folder)), live, exam).completions
    register()
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = live.tokenizer("A tree in winter", return_tensors="pt", add_special_tokens=False)
    settings = {"max_new_tokens": WRITTEN_TOKENS, "do_sample": False, "eos_token_id": None}
    [tokens] = model.generate(**prompt, **settings)
    expected = tokens[prompt["input_ids"].shape[1] :]
    assert found == live.tokenizer.decode(expected, skip_special_tokens=True)


def test_the_exam_asks_what_the_run_has_not_used_where_there_is_any(
    saved_model: Callable[..., Path], prose: Path
) -> None:
    folder = saved_model()
    live = live_at(folder)
    windows = prose.stat().st_size // 64
    few = exam_for(live, request_on(folder, prose, 4))
    assert "has not used" in few.texts[0].description
    used = request_on(folder, prose, windows)
    pruning = used.pruning.model_copy(update={"own_text": 0.0})
    seen = exam_for(live, used.model_copy(update={"pruning": pruning}))
    assert "has used" in seen.texts[0].description
    assert few.questions
    assert few.protocol()["texts"]["own"]["windows"] == len(few.texts[1].windows)


def test_what_is_longer_than_the_context_is_measured_within_it(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "short", "GPT2LMHeadModel")
    text = Text("one", "", torch.arange(40)[None])
    exam = Exam([text], [], "", ["a tree in winter " * 40], prompt_tokens=CONTEXT - 5)
    found = measure(ModelSource(source=str(folder)), live_at(folder), exam)
    assert found.decode_tokens_per_second > 0
    assert len(found.completions) == 1


def test_models_with_other_tokenizers_are_not_compared(tmp_path: Path, prose: Path) -> None:
    first, second = (tiny_model(tmp_path / name, "LlamaForCausalLM") for name in ("a", "b"))
    settings = second / "tokenizer.json"
    changed = json.loads(settings.read_text()) | {"normalizer": DOUBLED}
    settings.write_text(json.dumps(changed))
    sources = [ModelSource(source=str(folder)) for folder in (first, second)]
    with pytest.raises(InvalidModelError, match="tokenizer"):
        compare(sources, prose, window=32, windows=2, device="cpu")


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    source = ModelSource(source=str(tmp_path / "none"))
    with pytest.raises(UnavailableDeviceError):
        compare([source], tmp_path / "none.txt", window=8, windows=None, device="quantum")
