"""The entry point that vLLM runs; vLLM itself is stood in for by its registry's interface."""

import sys
from importlib.metadata import entry_points
from types import ModuleType, SimpleNamespace

import pytest
from transformers import AutoConfig

from bonsai_core.modeling_bonsai import FAMILIES, classes_of


def test_every_family_is_told_to_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}
    vllm = ModuleType("vllm")
    vllm.ModelRegistry = SimpleNamespace(register_model=told.__setitem__)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    (point,) = entry_points(group="vllm.general_plugins", name="bonsai")
    register = point.load()
    register()
    register()  # vLLM runs it in each of its processes, and may do so again
    names = {classes_of(name).AutoModelForCausalLM.__name__ for name in FAMILIES}
    assert set(told) == names
    assert told["BonsaiLlamaForCausalLM"].endswith(":TransformersForCausalLM")
    assert told["BonsaiMixtralForCausalLM"].endswith(":PrunedMixtureForCausalLM")
    assert AutoConfig.for_model("bonsai_llama", num_hidden_layers=1).model_type == "bonsai_llama"


def test_the_package_can_be_imported_without_vllm() -> None:
    import bonsai_core.vllm_plugin

    assert "vllm" not in vars(bonsai_core.vllm_plugin)
