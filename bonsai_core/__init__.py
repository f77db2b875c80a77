"""Structured pruning of large language models with forward passes only (arXiv 2402.05406).

Nothing heavy is imported here, so that `bonsai_core.config` and `bonsai_core.families` stay light
enough for a process without torch. The door of the library is `bonsai_core.pruner.prune`. Once
transformers is imported too, before or after, its Auto classes know pruned models.
"""

from types import ModuleType

from wrapt import when_imported


@when_imported("transformers")
def _register(_module: ModuleType) -> None:
    # Of transformers itself, not of a module with models in it: those import one another, and none
    # of them is half done yet.
    try:
        from bonsai_core.registration import register  # noqa: PLC0415 - loads torch
    except ImportError:
        return  # there is no torch, or one of ours is half done
    register()
