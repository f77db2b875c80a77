"""What a model is worth: utilities, of which a prune follows one or a weighted mix.

Nothing is imported here, so that `names`, `settings`, `questions` and `remote` stay light enough
for a process without torch. The door is `bonsai_core.utilities.mixture.mixture_of`.
"""
