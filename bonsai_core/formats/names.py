"""The names of the formats. No torch."""

from enum import StrEnum


class WeightType(StrEnum):
    """How numbers are stored in a GGUF file; of norms and biases always as float32."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    """Eight bits each, with a scale for every 32; rows of other lengths are stored as f16."""


class Format(StrEnum):
    """What a result is written in besides its own folder: a GGUF file for llama.cpp and what embeds
    it, with a type of weights, or a folder for mlx-lm."""

    GGUF_F32 = "gguf-f32"
    GGUF_F16 = "gguf-f16"
    GGUF_BF16 = "gguf-bf16"
    GGUF_Q8_0 = "gguf-q8_0"
    MLX = "mlx"

    @property
    def weights(self) -> WeightType | None:
        """How a GGUF file stores matrices; None for other formats, which keep the folder's type."""
        return None if self is Format.MLX else WeightType(self.partition("-")[2])

    @property
    def place(self) -> str:
        """Where it lies in the folder of a result."""
        return "mlx" if self is Format.MLX else f"gguf/model-{self.weights}.gguf"
