"""How small the result shall be: the terms it can be said in, and what they come to."""

from typing import Any

import pytest
from pydantic import ValidationError

from bonsai_core.errors import UnreachableTargetError
from bonsai_core.families import reachable_sparsity
from bonsai_core.target import Size, StoredDType, Target, require_reachable

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vocab_size": 1000,
}
SIZE = Size.of(CONFIG)


def test_embeddings_that_are_tied_count_once() -> None:
    assert SIZE.parameters - SIZE.non_embedding == 64 * 1000
    untied = Size.of(CONFIG | {"tie_word_embeddings": False})
    assert untied.parameters - untied.non_embedding == 2 * 64 * 1000
    assert untied.non_embedding == SIZE.non_embedding


def test_what_a_config_leaves_out_is_what_transformers_takes_for_granted() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "tie_word_embeddings"}
    assert Size.of(config) == SIZE


@pytest.mark.parametrize("gone", [1, 1000, SIZE.non_embedding // 2])
def test_every_way_to_say_it_comes_to_the_same_share(gone: int) -> None:
    left = SIZE.parameters - gone
    share = gone / SIZE.non_embedding
    assert Target(sparsity=share).share_to_remove(SIZE) == share
    assert Target(parameters=left).share_to_remove(SIZE) == share
    assert Target(memory_bytes=2 * left).share_to_remove(SIZE) == share
    assert Target(memory_bytes=2 * left + 1).share_to_remove(SIZE) == share
    four = Target(memory_bytes=4 * left, dtype=StoredDType.FLOAT32)
    assert four.share_to_remove(SIZE) == share


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({}, "got none of them"),
        ({"sparsity": 0.5, "parameters": 9}, "got sparsity, parameters"),
        ({"sparsity": 0.5, "dtype": "float32"}, "it is of memory_bytes"),
        ({"parameters": 0}, "greater than or equal to 1"),
        ({"memory_bytes": 9, "dtype": "int4"}, "'float32', 'bfloat16' or 'float16'"),
        ({"speed": 2}, "Extra inputs"),
    ],
)
def test_what_does_not_go_together_is_refused(said: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Target.model_validate(said)


def test_an_unreachable_sparsity_names_the_reachable_one_rounded_down() -> None:
    reachable = reachable_sparsity(CONFIG, 64)
    with pytest.raises(UnreachableTargetError) as caught:
        require_reachable(Target(sparsity=0.95), CONFIG, 64)
    allowed = float(caught.value.allowed.split("up to ")[1].split()[0])
    assert (caught.value.field, caught.value.value) == ("target.sparsity", 0.95)
    assert reachable - 1e-4 < allowed <= reachable
    require_reachable(Target(sparsity=allowed), CONFIG, 64)


@pytest.mark.parametrize(("field", "unit"), [("parameters", 1), ("memory_bytes", 2)])
def test_an_unreachable_size_names_the_sizes_between_which_it_can_be(field: str, unit: int) -> None:
    with pytest.raises(UnreachableTargetError, match="more than can be removed") as caught:
        require_reachable(Target.model_validate({field: unit}), CONFIG, 64)
    assert (caught.value.field, caught.value.value) == (f"target.{field}", unit)
    _, smallest, _, largest, *_ = caught.value.allowed.replace(",", "").split()
    assert int(largest) == unit * SIZE.parameters
    require_reachable(Target.model_validate({field: int(smallest)}), CONFIG, 64)
    require_reachable(Target.model_validate({field: int(largest) - unit}), CONFIG, 64)
    with pytest.raises(UnreachableTargetError):
        require_reachable(Target.model_validate({field: int(smallest) - unit}), CONFIG, 64)
    with pytest.raises(UnreachableTargetError, match="no larger than that as it is"):
        require_reachable(Target.model_validate({field: int(largest)}), CONFIG, 64)


def test_a_family_of_which_only_the_mlp_is_pruned_says_why() -> None:
    config = CONFIG | {"architectures": ["Olmo2ForCausalLM"]}
    assert reachable_sparsity(config, 1) < reachable_sparsity(CONFIG, 1)
    with pytest.raises(UnreachableTargetError, match=r"Olmo2\w+ is never pruned: its query"):
        require_reachable(Target(sparsity=0.9), config, 1)
