"""The meter counts the tokens of whole passes, and parts of passes as parts."""

import torch

from benchmarks.spending import Meter
from bonsai_core.blocks import Blocks
from bonsai_core.models import LoadedModel

CPU = torch.device("cpu")


def test_a_pass_counts_its_tokens_whichever_copy_of_the_model_it_runs_in(
    loaded: LoadedModel,
) -> None:
    with Meter(loaded.model.model.layers, CPU) as meter, torch.inference_mode():
        loaded.model.model(torch.zeros(3, 7, dtype=torch.int64))
        assert meter.spent().forward_tokens == 21
        loaded.model(torch.zeros(1, 5, dtype=torch.int64))
        spent = meter.spent()
        assert spent.forward_tokens == 26
        assert spent.cpu_seconds > 0
        assert spent.wall_seconds > 0
        meter.restart()
        assert meter.spent().forward_tokens == 0
    loaded.model(torch.zeros(1, 5, dtype=torch.int64))
    assert meter.spent().forward_tokens == 0


def test_a_pass_through_half_the_layers_counts_half(loaded: LoadedModel) -> None:
    backbone = loaded.model.model
    with Meter(backbone.layers, CPU) as meter, torch.inference_mode():
        states = torch.zeros(1, 8, backbone.config.hidden_size)
        rotary = backbone.rotary_emb(states, torch.arange(8)[None])
        for layer in list(backbone.layers)[: len(backbone.layers) // 2]:
            states = layer(states, position_embeddings=rotary)
        assert meter.spent().forward_tokens == 4


def test_layers_that_pass_on_what_they_get_count_nothing(loaded: LoadedModel) -> None:
    backbone, tokens = loaded.model.model, torch.zeros(2, 8, dtype=torch.int64)
    blocks = Blocks(backbone, backbone.layers, tokens)
    quarter = tokens.numel() / len(backbone.layers)
    with Meter(backbone.layers, CPU) as meter, torch.inference_mode():
        blocks.advance(1)
        assert meter.spent().forward_tokens == quarter
        meter.restart()
        blocks.forward(tokens, 0)
        assert meter.spent().forward_tokens == 3 * quarter
