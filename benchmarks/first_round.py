"""The first round of the paper's recipe on a dense model, part by part, for what measures parts."""

from collections.abc import Sequence

from torch import Tensor, nn

from bonsai_core.blocks import Blocks
from bonsai_core.config import Pruning
from bonsai_core.evaluation import mean_nll
from bonsai_core.families import Widths
from bonsai_core.gates import Units, gates_of
from bonsai_core.models import non_embedding_parameters
from bonsai_core.priors import unit_scores
from bonsai_core.recipe import Situation, nothing
from bonsai_core.recipes.random_masks import RandomMasks
from bonsai_core.seeds import generator
from bonsai_core.selection import shapes_of
from bonsai_core.statistics import column_statistics
from bonsai_core.surgery import cut
from bonsai_core.trials import Bench
from bonsai_core.utilities.mixture import mixture_of
from bonsai_core.utilities.utility import LiveModel


class FirstRound:
    """What the loop does in a round, one call for each part.

    Args:
        live: the dense model; `end` cuts it.
        widths: of the model.
        sequences: [N, S] int64 on the model's device, for statistics and masks alike.
        masks: how many the round has.
    """

    def __init__(self, live: LiveModel, widths: Widths, sequences: Tensor, masks: int) -> None:
        self.live = live
        self.sequences = sequences
        self.gates = gates_of(live.model, live.family, widths)
        self.pruning = Pruning.model_validate({"preset": "paper", "masks_per_round": masks})
        self.mixture = mixture_of(live, sequences, self.pruning.utilities)
        self.blocks = Blocks(live.backbone, self._layers(), sequences)
        self.bench = Bench(self.gates, self.blocks, self.mixture)
        self.recipe = RandomMasks(self.pruning)

    def situation(self) -> Situation:
        """The statistics pass and the prior."""
        statistics = column_statistics(self.live.backbone, self.gates, self.sequences)
        random = generator(0, 1, "prior")
        total = non_embedding_parameters(self.live.model)
        shapes = shapes_of(self.gates)
        scores = [
            unit_scores(self.recipe.prior, gate.output.weight, found, gate.columns, random)
            for gate, found in zip(self.gates, statistics, strict=True)
        ]
        return Situation(1, shapes, scores, nothing(shapes), total // 2, total)

    def end(self, absent: Sequence[Units]) -> None:
        """Cut, and measure what is left."""
        for gate, units in zip(self.gates, absent, strict=True):
            cut(gate, units)
        mean_nll(self.live.model, self.live.family, self.sequences)

    def _layers(self) -> nn.ModuleList:
        layers = self.live.model.get_submodule(self.live.family.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers
