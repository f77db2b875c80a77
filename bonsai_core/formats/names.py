"""The names of the formats. No torch."""

from enum import StrEnum


class Format(StrEnum):
    """What `export` writes."""

    GGUF = "gguf"
    """One file for llama.cpp and what embeds it."""

    MLX = "mlx"
    """A folder for mlx-lm."""


class WeightType(StrEnum):
    """How numbers are stored in a GGUF file; of norms and biases always as float32."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    """Eight bits each, with a scale for every 32; rows of other lengths are stored as f16."""
