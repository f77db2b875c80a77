"""What a job will take, told before it runs. No torch and no database here."""

from dataclasses import dataclass

from bonsai_core.budget import Budget, budget
from bonsai_core.disk import Disk, disk
from bonsai_core.families import non_embedding_parameters
from jobs.request import JobRequest, model_config_of

HUB = "the model's config lies on a hub or in a GGUF file, which a worker reads"
PLUG_IN = "the recipe is a plug-in's, which does not tell what it tries"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job will take, as far as that can be told.

    Attributes:
        parameters: of the dense model, without embeddings.
        budget: rounds, trials and forward tokens.
        disk: bytes of its files.
        unknown: why some of these are None, in words.
    """

    parameters: int | None = None
    budget: Budget | None = None
    disk: Disk | None = None
    unknown: str | None = None


def estimate(request: JobRequest) -> Estimate:
    """What a job will take.

    Raises:
        PruneError: as `jobs.request.check_inputs`.
    """
    config = model_config_of(request.model)
    if config is None:
        return Estimate(unknown=HUB)
    parameters, spent = non_embedding_parameters(config), budget(request, config)
    if spent is None:
        return Estimate(parameters=parameters, unknown=PLUG_IN)
    return Estimate(parameters, spent, disk(request, config, spent.rounds // len(request.each())))
