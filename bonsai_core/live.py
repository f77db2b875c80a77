"""What the weights look like while a model is pruned, where that is not how they are stored.

Every gate of a live model is the input of an `nn.Linear`, and so are the layers that feed it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bonsai_core.modeling_bonsai import Expert, Experts


class StoredTransposed(nn.Linear):
    """A linear layer that its stock class keeps as a `Conv1D`: with its weight transposed."""


class Choice(nn.Linear):
    """The gate of whole experts: its columns are the shares that a token gives to each.

    A share of zero is the same as no such expert, because the router shares out again what is left.
    It has no parameters: its weight, [1, E], is a row of ones, and zero where an expert is tried
    without.
    """

    def __init__(self, experts: int) -> None:
        super().__init__(experts, 1, bias=False, device="meta")
        self.out_features = 0
        del self.weight
        self.register_buffer("weight", torch.ones(1, experts), persistent=False)

    def forward(self, shares: Tensor) -> Tensor:
        """The shares [tokens, E] of the experts that are there."""
        return shares * self.weight[0]


class Router(nn.Linear):
    """What chooses the experts of each token, with its choice open to a gate."""

    def __init__(self, stored: Any) -> None:
        experts, hidden = stored.weight.shape
        super().__init__(hidden, experts, bias=False, device="meta")
        self.weight = _parameter(stored.weight)
        self.choice = Choice(experts)
        self.top_k = stored.top_k
        # Routers that cannot be told whether chosen shares are to sum to one always see to it, and
        # leave them in float32.
        self.normalises = getattr(stored, "norm_topk_prob", True)
        self.rounds = hasattr(stored, "norm_topk_prob")

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Logits [tokens, E], and shares and numbers of the chosen experts, both [tokens, K]."""
        logits = super().forward(states.reshape(-1, self.in_features))
        shares = self.choice(torch.softmax(logits, dim=-1, dtype=torch.float32))
        shares = shares / shares.sum(dim=-1, keepdim=True)
        top, chosen = torch.topk(shares, min(self.top_k, self.out_features), dim=-1)
        if self.normalises:
            top = top / top.sum(dim=-1, keepdim=True)
        return logits, top.to(logits.dtype) if self.rounds else top, chosen


def make_live(model: nn.Module) -> None:
    """Replace what keeps linear layers in another form, in place; the logits stay the same."""
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            model.set_submodule(path, _linear(module))
        elif _are_fused(module):
            model.set_submodule(path, _experts(module))
            router = f"{path.rpartition('.')[0]}.gate"
            model.set_submodule(router, Router(model.get_submodule(router)))


def _linear(stored: Conv1D) -> StoredTransposed:
    inputs, outputs = stored.weight.shape
    with torch.device("meta"):  # no memory of its own: it gets the stored weights
        linear = StoredTransposed(inputs, outputs)
    linear.weight = _parameter(stored.weight.T.contiguous())
    linear.bias = _parameter(stored.bias)
    return linear


def _are_fused(module: nn.Module) -> bool:
    """Whether these are the experts of a layer in one tensor for all: [experts, rows, columns]."""
    fused = getattr(module, "gate_up_proj", None)
    return isinstance(fused, nn.Parameter) and fused.ndim == 3


def _experts(fused: Any) -> nn.Module:
    number, hidden, width = fused.down_proj.shape
    with torch.device("meta"):
        experts: Any = Experts(hidden, [width] * number, fused.act_fn)
    # Copies, so that the memory of an expert is free when it is cut, whatever the others do.
    for expert, gate_up, down in zip(experts, fused.gate_up_proj, fused.down_proj, strict=True):
        gate, up = gate_up.chunk(2)
        expert.gate_proj.weight = _parameter(gate.clone())
        expert.up_proj.weight = _parameter(up.clone())
        expert.down_proj.weight = _parameter(down.clone())
    return experts


def stock_state(model: nn.Module, *, fuse: bool = True) -> dict[str, Tensor]:
    """The weights of a live model under the names and in the form of its stock class.

    They share memory with the model's wherever the form is the same.

    Args:
        model: left as it is.
        fuse: whether experts become one tensor again; all of a layer then have one width.
    """
    state: dict[str, Tensor] = dict(model.state_dict())
    for path, module in model.named_modules():
        if isinstance(module, StoredTransposed):
            state[f"{path}.weight"] = module.weight.T.contiguous()
        elif isinstance(module, Experts) and fuse:
            for name in module.state_dict():
                del state[f"{path}.{name}"]
            state |= _fused(path, list(module))
    return state


def _fused(path: str, experts: list[Any]) -> dict[str, Tensor]:
    """The tensors of a layer's experts, which take their place in the experts' modules too.

    So the experts of a whole model never lie in memory twice.
    """
    gate_up = torch.stack(
        [torch.cat([expert.gate_proj.weight, expert.up_proj.weight]) for expert in experts]
    )
    down = torch.stack([expert.down_proj.weight for expert in experts])
    for number, expert in enumerate(experts):
        _point_into(expert, gate_up[number], down[number])
    return {f"{path}.gate_up_proj": gate_up, f"{path}.down_proj": down}


def _point_into(expert: Expert, gate_up: Tensor, down: Tensor) -> None:
    """Let an expert use memory that holds the same values."""
    expert.gate_proj.weight.data, expert.up_proj.weight.data = gate_up.chunk(2)
    expert.down_proj.weight.data = down


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach(), requires_grad=False)
