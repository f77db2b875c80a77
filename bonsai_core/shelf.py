"""Tensors put aside in files of a folder, so that memory holds only those in use."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class Shelf:
    """Tensors by name; each is as it was put there, on the device asked for.

    Args:
        folder: of the files; made when the first one is.
        device: where tensors are wanted.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._folder = folder
        self._device = str(device)

    def put(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor, in place of an earlier one of this name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        save_file({"tensor": tensor.detach().contiguous()}, self._path(name))

    def get(self, name: str) -> Tensor:
        """The tensor of this name."""
        return load_file(self._path(name), device=self._device)["tensor"]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"
