"""Loading a model: from a folder, a hub id, or a GGUF file, on a device, in a dtype."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bonsai_core.config import DType, ModelSource
from bonsai_core.errors import InvalidModelError, UnavailableDeviceError
from bonsai_core.families import FAMILIES, Family, Widths, family_of, widths_of
from bonsai_core.registration import register

# Only what a prune reads: no pickled weights, no other frameworks' files.
_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A dense model in memory, ready to be pruned."""

    model: Any
    tokenizer: Any
    family: Family
    widths: Widths
    device: torch.device
    digest: str
    """SHA-256 over names and contents of the files that hold config and weights."""

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return next(self.model.parameters()).dtype


def device_named(name: str) -> torch.device:
    """The device `auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes CUDA when it is there.

    Raises:
        UnavailableDeviceError: CUDA was asked for by name and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnavailableDeviceError(
            "this machine has no CUDA device that torch can use",
            field="device",
            value=name,
            allowed="cpu, auto",
            cure="use device 'auto', or install torch's CUDA build and a driver",
        )
    return device


def load(source: ModelSource, device: torch.device) -> LoadedModel:
    """Load a dense model and its tokenizer for pruning.

    Raises:
        InvalidModelError: files are missing or cannot be read.
        UnsupportedModelError: the architecture is not one of `bonsai_core.families`.
    """
    folder = locate(source)
    options: dict[str, Any] = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        sizes = config.to_dict()
        sizes["architectures"] = _architectures(config)
        family, widths = family_of(sizes), widths_of(sizes)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=_torch_dtype(source), attn_implementation="sdpa", **options
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InvalidModelError(
            f"transformers {transformers.__version__} cannot load it: {error}",
            field="model.source",
            value=source.source,
            cure="check the folder's files; it must load with AutoModelForCausalLM",
        ) from error
    if source.gguf_file:
        _forget_quantisation(model)
    model = model.to(device).eval().requires_grad_(False)
    return LoadedModel(model, tokenizer, family, widths, device, _digest(folder, source))


def load_saved(folder: Path, source: ModelSource, device: torch.device) -> tuple[Any, Any, Family]:
    """A saved model, pruned or dense, with its tokenizer and family, on a device.

    Raises:
        InvalidModelError: transformers cannot load it, or it is of no family we know.
    """
    register()
    options: dict[str, Any] = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    dtype = "auto" if source.dtype == "auto" else getattr(torch, source.dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InvalidModelError(
            f"transformers {transformers.__version__} cannot load it: {error}",
            field="model.source",
            value=str(folder),
        ) from error
    architecture = type(model).__name__.removeprefix("Bonsai")
    family = FAMILIES.get(architecture) or Family(architecture)
    return model.to(device).eval(), tokenizer, family


def non_embedding_parameters(model: Any) -> int:
    """Parameters that are neither in the input embedding nor in the output head."""
    left_out = {
        id(module.weight)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
        if module is not None
    }
    return sum(p.numel() for p in model.parameters() if id(p) not in left_out)


def parameters(model: nn.Module) -> int:
    """All parameters; tied ones count once."""
    return sum(p.numel() for p in model.parameters())


def locate(source: ModelSource) -> Path:
    """The local folder of a model; a hub id is downloaded into the hub's cache first.

    Raises:
        InvalidModelError: the folder does not exist, or the hub does not give the model.
    """
    if source.is_folder or Path(source.source).is_dir():
        folder = Path(source.source).expanduser().resolve()
        if not folder.is_dir():
            raise InvalidModelError(
                "there is no such folder", field="model.source", value=source.source
            )
        if source.gguf_file and not (folder / source.gguf_file).is_file():
            raise InvalidModelError(
                f"the folder {folder} has no such file",
                field="model.gguf_file",
                value=source.gguf_file,
                allowed=", ".join(sorted(p.name for p in folder.glob("*.gguf"))) or "none there",
            )
        return folder
    patterns = ["*.json", source.gguf_file] if source.gguf_file else list(_HUB_FILES)
    try:
        return Path(
            snapshot_download(source.source, revision=source.revision, allow_patterns=patterns)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InvalidModelError(
            f"not a folder here, and the hub does not give it: {error}",
            field="model.source",
            value=source.source,
            allowed="a folder (absolute, or starting with ./), or a hub id such as owner/name",
        ) from error


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


def _digest(folder: Path, source: ModelSource) -> str:
    files = (
        [folder / source.gguf_file]
        if source.gguf_file
        else [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    )
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()
