"""Other releases of transformers, where one is installed beside the one that we pin.

python -m venv oldest && oldest/bin/pip install torch==2.13.0 transformers==5.14.1
BONSAI_TRANSFORMERS_PYTHON=oldest/bin/python pytest tests/core/test_other_transformers.py
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bonsai_core.registration import register
from tests.formats.pruned_folders import pruned_folder
from tests.tiny_models import ARCHITECTURES

TOKENS = torch.randint(5, 250, (2, 22), generator=torch.Generator().manual_seed(1))
WISH = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
STATIC = {"cache_implementation": "static", "disable_compile": True}
# A static cache may be kept for the next call: first the way that makes it by itself.
WAYS = [STATIC | {"prefill_chunk_size": 5}, STATIC, {"prefill_chunk_size": 5}, {"use_cache": False}]
PROGRAM = """
import json, sys
sys.modules["bonsai_core"] = None  # any import of our package fails, installed or not
import torch, transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

folder, inputs, outputs, ways = sys.argv[1:]
tokens = load_file(inputs)["tokens"]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
results = {"logits": model(tokens, use_cache=False).logits.detach()}
for number, way in enumerate(json.loads(ways)):
    results[f"written {number}"] = model.generate(tokens, **way)
loss = model.train()(tokens, labels=tokens, use_cache=False).loss
loss.backward()
assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
save_file(results, outputs)
print("RAN", transformers.__version__)
"""

PYTHON = os.environ.get("BONSAI_TRANSFORMERS_PYTHON")
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="BONSAI_TRANSFORMERS_PYTHON names no Python that has transformers"
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_another_release_computes_and_writes_the_same(architecture: str, tmp_path: Path) -> None:
    register()
    folder = pruned_folder(tmp_path, architecture)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    inputs, outputs = tmp_path / "inputs.safetensors", tmp_path / "outputs.safetensors"
    save_file({"tokens": TOKENS}, inputs)
    ways = json.dumps([WISH | way for way in WAYS])
    done = subprocess.run(
        [str(PYTHON), "-I", "-c", PROGRAM, str(folder), str(inputs), str(outputs), ways],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers = load_file(outputs)
    with torch.inference_mode():
        expected = model(TOKENS, use_cache=False).logits
    assert torch.allclose(answers.pop("logits"), expected, rtol=0, atol=1e-4)
    expected_tokens = model.generate(TOKENS, **WISH)
    for way, written in answers.items():
        assert torch.equal(written, expected_tokens), way
