"""Loading a model: from a folder, a hub id, or a GGUF file, on a device, in a dtype."""

import contextlib
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bonsai_core.config import DType, ModelSource
from bonsai_core.digests import sha256_of
from bonsai_core.errors import InvalidModelError, UnavailableDeviceError
from bonsai_core.families import Family, Widths, family_of, widths_of
from bonsai_core.live import make_live
from bonsai_core.model_card import licence_of
from bonsai_core.quiet import quiet
from bonsai_core.registration import register
from bonsai_core.streaming import Streaming

# Only what a prune reads: no pickled weights, no other frameworks' files.
_HUB_FILES = ("README.md", "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A dense model in memory, ready to be pruned."""

    model: Any
    tokenizer: Any
    family: Family
    widths: Widths
    device: torch.device
    """Where forward passes run; not all weights need be there."""

    streaming: Streaming
    digest: str
    """SHA-256 over names and contents of the files that hold config and weights."""

    licence: str | None = None
    """As its model card names it."""

    revision: str | None = None
    """The commit that its files are of; None where they came from no hub."""

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return next(self.model.parameters()).dtype

    @property
    def live(self) -> "LiveModel":
        """What of it computes."""
        return LiveModel(self.model, self.family, self.tokenizer, self.device)


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A model that computes. It may change while it is pruned; this stays the same object."""

    model: Any
    family: Family
    tokenizer: Any
    device: torch.device

    @property
    def backbone(self) -> Any:
        """From tokens to the hidden states before the head."""
        return self.model.get_submodule(self.family.backbone)

    @property
    def head(self) -> Any:
        """From hidden states to logits."""
        return self.model.get_submodule(self.family.head)

    def log_probabilities(self, states: Tensor) -> Tensor:
        """Of each token as the next one, from hidden states [P, D]; [P, V] float32."""
        return torch.log_softmax(logits_of(self.model, self.family)(states), dim=1)


def device_named(name: str) -> torch.device:
    """The device `auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes CUDA when it is there.

    Raises:
        UnavailableDeviceError: the name is another one, or that device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    allowed = ["cpu"]
    if torch.cuda.is_available():
        allowed += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if name not in allowed:
        raise UnavailableDeviceError(
            "this machine has no such device that torch can use",
            field="device",
            value=name,
            allowed=", ".join(["auto", *allowed]),
            cure="use device 'auto'; a GPU needs torch's CUDA build and a driver",
        )
    return torch.device(name)


@quiet()
def dense_config(source: ModelSource) -> dict[str, Any]:
    """The config of a model, its `architectures` filled in; no weights are read.

    Raises:
        InvalidModelError: it is missing or cannot be read.
    """
    register()  # so that a model pruned already is known for what it is
    folder = locate(source)
    with _loading(source):
        config = AutoConfig.from_pretrained(folder, **_options(source))
    return config.to_dict() | {"architectures": _architectures(config)}


@quiet()
def load(
    source: ModelSource, device: torch.device, device_memory: int | None = None
) -> LoadedModel:
    """Load a dense model and its tokenizer for pruning.

    Args:
        source: where it is.
        device: where its forward passes run.
        device_memory: bytes of the device that weights may take; see `Streaming`.

    Raises:
        InsufficientMemoryError: the device cannot hold even one layer at a time.
        InvalidModelError: files are missing or cannot be read.
        UnsupportedModelError: the architecture is not one of `bonsai_core.families`.
    """
    config = dense_config(source)
    family, widths = family_of(config), widths_of(config)
    model, tokenizer = _from_pretrained(source, attn_implementation=family.attention)
    if source.gguf_file:
        _forget_quantisation(model)
    make_live(model)
    streaming = _stream(model.eval().requires_grad_(False), family, device, device_memory)
    folder = locate(source)
    digest = _digest(folder, source)
    licence = licence_of(folder)
    return LoadedModel(
        model, tokenizer, family, widths, device, streaming, digest, licence, _commit(folder)
    )


@quiet()
def load_saved(
    source: ModelSource, device: torch.device, device_memory: int | None = None
) -> LiveModel:
    """A saved model, pruned or dense, on a device; `device_memory` as of `load`.

    Raises:
        InsufficientMemoryError: the device cannot hold even one layer at a time.
        InvalidModelError: files are missing or cannot be read.
        UnsupportedModelError: it is of no family we know.
    """
    register()
    model, tokenizer = _from_pretrained(source)
    family = family_of({"architectures": [type(model).__name__.removeprefix("Bonsai")]})
    _stream(model.eval(), family, device, device_memory)
    return LiveModel(model, family, tokenizer, device)


def _stream(
    model: Any, family: Family, device: torch.device, device_memory: int | None = None
) -> Streaming:
    """Bring a model from the host's memory to the device, as far as it fits."""
    backbone, layers = model.get_submodule(family.backbone), model.get_submodule(family.layers)
    return Streaming(model, backbone, layers, device, device_memory)


def logits_of(model: Any, family: Family) -> Callable[[Tensor], Tensor]:
    """The function from hidden states [..., D] to logits [..., vocabulary] in float32."""
    head = model.get_submodule(family.head)
    divisor = getattr(model.config, family.logits_divisor) if family.logits_divisor else None
    cap = getattr(model.config, family.logits_cap) if family.logits_cap else None

    def logits(states: Tensor) -> Tensor:
        values: Tensor = head(states).float()
        values = values if divisor is None else values / divisor
        return values if cap is None else cap * torch.tanh(values / cap)

    return logits


def non_embedding_parameters(model: Any) -> int:
    """Parameters that are neither in the input embedding nor in the output head."""
    return parameters(model) - embedding_parameters(model)


def embedding_parameters(model: Any) -> int:
    """Weights of the input embedding and of the output head; tied ones count once."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = {id(module.weight): module.weight for module in ends if module is not None}
    return sum(weight.numel() for weight in weights.values())


def parameters(model: nn.Module) -> int:
    """All parameters; tied ones count once."""
    return sum(p.numel() for p in model.parameters())


@quiet()
def locate(source: ModelSource) -> Path:
    """The local folder of a model; a hub id is downloaded into the hub's cache first.

    A relative path is a folder if there is one; otherwise it is taken for a hub id.

    Raises:
        InvalidModelError: the folder does not exist, or the hub does not give the model.
    """
    if source.is_folder or Path(source.source).is_dir():
        folder = Path(source.source).expanduser().resolve()
        if not folder.is_dir():
            raise InvalidModelError(
                "there is no such folder",
                field="model.source",
                value=source.source,
                allowed="a folder, or a hub id such as owner/name",
            )
        if source.revision is not None:
            raise InvalidModelError(
                f"a revision belongs to a hub id, and {folder} is a folder",
                field="model.revision",
                value=source.revision,
                cure="leave the revision out",
            )
        if source.gguf_file and not (folder / source.gguf_file).is_file():
            raise InvalidModelError(
                f"the folder {folder} has no such file",
                field="model.gguf_file",
                value=source.gguf_file,
                allowed=", ".join(sorted(p.name for p in folder.glob("*.gguf"))) or "none there",
            )
        return folder
    patterns = ["README.md", "*.json", source.gguf_file] if source.gguf_file else list(_HUB_FILES)
    try:
        return Path(
            snapshot_download(source.source, revision=source.revision, allow_patterns=patterns)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InvalidModelError(
            f"not a folder here, and the hub does not give it: {error}",
            field="model.source",
            value=source.source,
            allowed="a folder, or a hub id such as owner/name",
            cure="check the name; without a network, give the folder of a downloaded model",
        ) from error


def _from_pretrained(source: ModelSource, **options: Any) -> tuple[Any, Any]:
    """A model on the CPU, whole, and its tokenizer."""
    folder = locate(source)
    with _loading(source):
        tokenizer = AutoTokenizer.from_pretrained(folder, **_options(source))
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=_torch_dtype(source),
            use_safetensors=None if source.gguf_file else True,  # never a pickle
            output_loading_info=True,
            **options,
            **_options(source),
        )
    if report["missing_keys"]:
        # transformers goes on with random numbers in their place.
        raise InvalidModelError(
            f"its files lack weights: {', '.join(sorted(report['missing_keys']))}",
            field="model.source",
            value=source.source,
            cure="get the model's files again: some are missing, or of another model",
        )
    return model, tokenizer


@contextlib.contextmanager
def _loading(source: ModelSource) -> Iterator[None]:
    """Turns the many errors of transformers for files it cannot read into ours."""
    # The reader of GGUF files shows a bar that has no switch.
    screen = contextlib.redirect_stderr(io.StringIO()) if source.gguf_file else None
    try:
        with screen or contextlib.nullcontext():
            yield
    except MemoryError:
        raise
    except Exception as error:  # tokenizers raise no kind more special than this
        raise InvalidModelError(
            f"transformers {transformers.__version__} cannot load it: {error}",
            field="model.source",
            value=source.source,
            cure="check the folder's files; they must load with AutoModelForCausalLM, from "
            "safetensors or GGUF, without code of their own",
        ) from error


def _options(source: ModelSource) -> dict[str, Any]:
    """Of every call that reads a model's files."""
    options: dict[str, Any] = {"trust_remote_code": False}
    return options | ({"gguf_file": source.gguf_file} if source.gguf_file else {})


def _architectures(config: Any) -> list[str]:
    """Those the config names; a GGUF file names none, so the library's own mapping is asked."""
    named = list(config.architectures or [])
    mapped = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    return named or ([mapped] if isinstance(mapped, str) else [])


def _torch_dtype(source: ModelSource) -> torch.dtype | str:
    if source.dtype is DType.AUTO:
        # Dequantised GGUF weights have no stored format worth keeping.
        return torch.float32 if source.gguf_file else "auto"
    return getattr(torch, source.dtype)


def _forget_quantisation(model: Any) -> None:
    """The weights were dequantised on loading; the mark would make transformers refuse to save."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False


def _commit(folder: Path) -> str | None:
    """The commit of a folder in the hub's cache, which is named after it."""
    found = re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if found and folder.parent.name == "snapshots" else None


def _digest(folder: Path, source: ModelSource) -> str:
    files = (
        [folder / source.gguf_file]
        if source.gguf_file
        else [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
