"""With how many tokens a pruned model loses the sink that sequences begin with.

`python -m benchmarks.openings FOLDER [FOLDER ...] --text FILE`: the first token of a sequence sees
only itself, and from some layer on its state is hundreds of times larger than others', a sink that
all of them attend to (arXiv 2402.17762). Where pruning loses it, a whole sequence fails because of
the token it begins with, and a perplexity over a few windows may not show it. Tokens are run alone,
as drawn from the vocabulary and as they come in a text; a sink is lost where the state that enters
the middle layer is less than half as long as the dense model's.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.packages import packaged_model
from bonsai_core.blocks import Blocks
from bonsai_core.calibration import read_text, tokenize
from bonsai_core.config import ModelSource
from bonsai_core.families import Family
from bonsai_core.models import load_saved
from bonsai_core.seeds import generator

TOKENS = 4096


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="pruned models of one dense model")
    parser.add_argument("--text", type=Path, required=True, help="a .txt or .jsonl file")
    parser.add_argument("--model", help="folder of the dense model; the packaged one if absent")
    parser.add_argument("--seed", type=int, default=0)
    wish = parser.parse_args(arguments)
    source = ModelSource(source=wish.model) if wish.model else packaged_model()
    live = load_saved(source, torch.device("cpu"))
    dense, tokenizer, family = live.model, live.tokenizer, live.family
    random = generator(wish.seed, 0, "openings of a benchmark")
    text = tokenize(["".join(read_text(str(wish.text)))], tokenizer).numpy()
    openings = {
        "vocabulary": torch.from_numpy(random.integers(len(tokenizer), size=TOKENS)),
        "text": torch.from_numpy(random.choice(text, TOKENS)),
    }
    expected = {name: lengths(dense, family, tokens) for name, tokens in openings.items()}
    print(f"| model | {' | '.join(openings)} |\n| --- |{' --- |' * len(openings)}")
    for folder in wish.folders:
        source = ModelSource(source=str(folder.resolve()))
        pruned = load_saved(source, torch.device("cpu")).model
        shares = [
            lost(expected[name], lengths(pruned, family, tokens))
            for name, tokens in openings.items()
        ]
        print(f"| {folder} | {' | '.join(f'{share:.2%}' for share in shares)} |")


def lengths(model: torch.nn.Module, family: Family, tokens: Tensor) -> Tensor:
    """How long the state of each token alone is that enters the middle layer; [F] float32."""
    layers = model.get_submodule(family.layers)
    assert isinstance(layers, torch.nn.ModuleList)
    blocks = Blocks(model.get_submodule(family.backbone), layers, tokens[:, None])
    blocks.run(len(layers) // 2)
    states = [blocks.states(first) for first in blocks.parts]
    return torch.cat([part for part in states if part is not None]).float().norm(dim=-1)[:, 0]


def lost(before: Tensor, after: Tensor) -> float:
    """The share of tokens whose state is less than half as long as it was."""
    return (after < before / 2).float().mean().item()


if __name__ == "__main__":
    main()
