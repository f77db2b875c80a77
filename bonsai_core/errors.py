"""What can go wrong in a prune: each error names field, value, what is allowed, and the cure."""


class PruneError(Exception):
    """A prune cannot be done as asked.

    Attributes:
        code: stable machine-readable name of the kind of error.
        field: dotted path of the request's field at fault, such as ``target.sparsity``.
        value: the value seen.
        allowed: what would have been accepted, in words.
        cure: what to do about it, in words.
    """

    code = "prune_error"

    def __init__(
        self, problem: str, *, field: str, value: object, allowed: str = "", cure: str = ""
    ) -> None:
        self.problem = problem
        self.field = field
        self.value = value
        self.allowed = allowed
        self.cure = cure
        parts = [f"{field}: {problem} (got {value!r})"]
        if allowed:
            parts.append(f"allowed: {allowed}")
        if cure:
            parts.append(cure)
        super().__init__("; ".join(parts))


class InvalidModelError(PruneError):
    """The model's files are missing, unreadable or contradict each other."""

    code = "invalid_model"


class UnsupportedModelError(PruneError):
    """The model's architecture is none of those in `bonsai_core.families`."""

    code = "unsupported_model"


class UnsupportedExportError(PruneError):
    """The format has no way to say what this model computes."""

    code = "unsupported_export"


class UnreachableTargetError(PruneError):
    """No plan within the layout and alignment reaches the sparsity asked for."""

    code = "unreachable_target"


class InvalidCalibrationError(PruneError):
    """The calibration text is missing, empty, unreadable or shorter than asked for."""

    code = "invalid_calibration"


class InvalidUtilityError(PruneError):
    """A utility is unknown, cannot be imported, or cannot be measured with its settings."""

    code = "invalid_utility"


class InvalidRecipeError(PruneError):
    """A recipe is unknown, or its package does not load."""

    code = "invalid_recipe"


class HubError(PruneError):
    """A repository of the Hugging Face hub cannot be given a result."""

    code = "hub_error"


class InvalidTaskError(PruneError):
    """A task of lm-evaluation-harness is unknown, or it, its data or the harness is not there."""

    code = "invalid_task"


class InputsChangedError(PruneError):
    """The ledger belongs to other inputs: resuming would mix two different prunes."""

    code = "inputs_changed"


class BrokenNumericsError(PruneError):
    """A forward pass of the model gave a value that is not finite."""

    code = "broken_numerics"


class UnavailableDeviceError(PruneError):
    """The device asked for is not on this machine."""

    code = "unavailable_device"


class InsufficientMemoryError(PruneError):
    """The device has no room for one layer of the model at a time, or to run one sequence."""

    code = "insufficient_memory"


class Stopped(Exception):  # noqa: N818 - not an error: the caller asked for it
    """The run was asked to stop and did, between two forward passes; its ledger is whole."""
