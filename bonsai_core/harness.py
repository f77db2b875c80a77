"""Tasks of EleutherAI's lm-evaluation-harness, put by it to a model that is loaded already.

What is measured and how is the harness's own, so that a number stands beside those of others. It is
an extra of this project, and imported where tasks are named.
"""

import difflib
import importlib.metadata
import io
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS

from bonsai_core.errors import InvalidTaskError
from bonsai_core.families import context_of
from bonsai_core.models import LiveModel
from bonsai_core.portions import sequences_at_once
from bonsai_core.quiet import quiet

_PACKAGE = "lm-eval"
_SIMILAR = 5


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One number that a task gives, under the harness's names.

    Attributes:
        task: the task, or a group of them.
        metric: such as acc, acc_norm or exact_match.
        filter: what was made of an answer before it was judged; `none` where nothing was.
        value: in the metric's own unit; of acc a share from 0 to 1.
        standard_error: of the value, in its unit; None where the harness gives none.
        higher_is_better: None where the harness does not say.
        samples: how many were judged.
        shots: examples before each sample; None of a group.
        version: of the task's definition; None where it has none.
    """

    task: str
    metric: str
    filter: str
    value: float
    standard_error: float | None
    higher_is_better: bool | None
    samples: int
    shots: int | None
    version: str | None


class Harness:
    """Tasks that models are asked; names, definitions and data are looked at when it is made.

    Args:
        tasks: names of tasks, groups or tags.
        folder: definitions of one's own, as the harness reads them, which come before its own.
        limit: how many samples of each task are asked, from its first; None for all.

    Raises:
        InvalidTaskError: the harness is not installed, a name is unknown, a task's definition or
            data cannot be read, or it would run what a model writes.
    """

    def __init__(
        self, tasks: Sequence[str], *, folder: Path | None = None, limit: int | None = None
    ) -> None:
        self.tasks = list(dict.fromkeys(tasks))
        self.limit = limit
        with _apart():
            self._manager = _manager(self.tasks, folder)
            for require in (_require_known, _require_askable):
                for name in self.tasks:
                    require(self._manager, name)

    def scores(self, live: LiveModel) -> list[TaskScore]:
        """Every number that the tasks give of a model, in the order of the harness.

        Raises:
            InvalidTaskError: a task cannot be asked.
        """
        from lm_eval.evaluator import simple_evaluate  # noqa: PLC0415 - an extra
        from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

        try:
            with _apart():
                asked = HFLM(
                    pretrained=live.model,
                    tokenizer=live.tokenizer,
                    backend="causal",
                    batch_size=_batch_size(live),
                )
                found = simple_evaluate(
                    asked,
                    tasks=self.tasks,
                    task_manager=self._manager,
                    limit=self.limit,
                    log_samples=False,
                )
        except (MemoryError, RuntimeError):
            raise  # of the device or the model, not of the task
        except Exception as error:  # a task has code of its own
            raise _broken(self.tasks, error) from error
        return _scores(found)

    def protocol(self) -> dict[str, Any]:
        """What makes its numbers comparable beside what each score tells, as plain values."""
        return {
            "tasks": self.tasks,
            "limit": self.limit,
            "lm_eval": importlib.metadata.version(_PACKAGE),
        }


def _manager(names: Sequence[str], folder: Path | None) -> Any:
    """The harness's index of tasks: of the folder alone where that has all of them."""
    try:
        from lm_eval.tasks import TaskManager  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidTaskError(
            f"tasks are asked by lm-evaluation-harness, and {error.name} is not installed",
            field="task",
            value=", ".join(names),
            cure="pip install 'bonsai-pruning[lm-eval]'",
        ) from error
    if folder is not None:
        if not folder.is_dir():
            raise InvalidTaskError(
                "there is no such folder",
                field="tasks_folder",
                value=str(folder),
                allowed="a folder of task definitions, .yaml files of lm-evaluation-harness",
            )
        own = TaskManager(include_path=folder, include_defaults=False)
        if set(names) <= set(own.all_subtasks):
            return own  # the harness's own are 14,000 files, which take 20 seconds to read
    return TaskManager(include_path=folder)


def _require_known(manager: Any, name: str) -> None:
    if name not in manager.all_tasks:
        similar = difflib.get_close_matches(name, manager.all_tasks, _SIMILAR)
        raise InvalidTaskError(
            "no task, group or tag has this name",
            field="task",
            value=name,
            allowed=f"such as {', '.join(similar)}" if similar else "",
            cure="`lm-eval ls tasks` lists the harness's own; for one of yours, name tasks_folder, "
            "in which a .yaml file that cannot be read is passed over",
        )


def _require_askable(manager: Any, name: str) -> None:
    """Load a task, its data too, and see that it may be asked."""
    try:
        loaded = manager.load([name])["tasks"]
    except Exception as error:  # of the hub, of a file, of a task's own code
        raise _broken([name], error) from error
    for task, definition in loaded.items():
        if getattr(definition, "UNSAFE_CODE", False) or getattr(definition, "MULTIMODAL", False):
            raise InvalidTaskError(
                "it runs code that a model has written, or shows it pictures",
                field="task",
                value=task,
                allowed="tasks of text alone that run no code",
            )


def _broken(names: Sequence[str], error: Exception) -> InvalidTaskError:
    """The error for a task that the harness cannot load or ask."""
    missing = error.name if isinstance(error, ImportError) else None
    return InvalidTaskError(
        f"the harness cannot ask it: {type(error).__name__}: {error}",
        field="task",
        value=", ".join(names),
        cure=f"install the package {missing}, which the task needs"
        if missing
        else "see that its data can be reached from here (data sets of the hub need a network the "
        "first time) and that its definition is right",
    )


def _batch_size(live: LiveModel) -> int | str:
    """On a GPU, what the harness finds to fit; else what the core takes of the longest sequences.

    The harness keeps all logits of a batch, and some of its tasks fill the model's context.
    """
    if live.device.type == "cuda":
        return "auto"
    context = context_of(live.model.config.to_dict())
    return sequences_at_once(context, live.device) if context else 1


def _scores(found: dict[str, Any]) -> list[TaskScore]:
    """The numbers among the harness's results, which lie under `metric,filter`."""
    scores = []
    for task, values in found["results"].items():
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            number = comma and isinstance(value, int | float)
            if not number or metric.endswith("_stderr"):
                continue
            error = values.get(f"{metric}_stderr,{chosen}")
            version = found["versions"].get(task)
            counts = values.get("sample_count", {})  # of a group, whose tasks differ in metrics
            scores.append(
                TaskScore(
                    task=task,
                    metric=metric,
                    filter=chosen,
                    value=float(value),
                    standard_error=float(error) if isinstance(error, int | float) else None,
                    higher_is_better=found["higher_is_better"].get(task, {}).get(metric),
                    samples=counts.get(key, values["sample_len"]),
                    shots=found["n-shot"].get(task),
                    version=None if version is None else str(version),
                )
            )
    return scores


@contextmanager
def _apart() -> Iterator[None]:
    """The harness without its effects on the process.

    What it prints, on standard output too, goes where progress bars go; see `quiet`. The random
    states that it seeds and draws from are put back.
    """
    aside = sys.stderr if HF_HUB_DISABLE_PROGRESS_BARS is False else io.StringIO()
    state, array_state = random.getstate(), np.random.get_state()
    try:
        with quiet(), redirect_stdout(aside), redirect_stderr(aside), torch.random.fork_rng():
            yield
    finally:
        random.setstate(state)
        np.random.set_state(array_state)
