"""Structured pruning of large language models with forward passes only (arXiv 2402.05406).

Nothing is imported here, so that `bonsai_core.config` and `bonsai_core.families` stay light
enough for a process without torch. The door of the library is `bonsai_core.pruner.prune`.
"""
