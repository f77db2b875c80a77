"""llama.cpp itself, in this process: what it computes and how it splits text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
import xllamacpp


class LlamaCpp:
    """A loaded GGUF file, asked over the server that llama.cpp comes with."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def next_token_scores(self, tokens: Sequence[int], vocabulary: int) -> torch.Tensor:
        """Log-probabilities of the token after these; [vocabulary] float32."""
        # Scores are those before the bias. It makes the answer a printable token: scores of one
        # that is no whole character are kept back.
        found = self._post(
            "completion",
            prompt=list(tokens),
            n_predict=1,
            n_probs=vocabulary,
            temperature=0,
            logit_bias=[[5, 1000.0]],
            cache_prompt=False,
        )
        scores = torch.full((vocabulary,), torch.nan)
        for entry in found["completion_probabilities"][0]["top_logprobs"]:
            scores[entry["id"]] = entry["logprob"]
        return scores

    def written(self, prompt: str, tokens: int) -> str:
        """The likeliest continuation of a text."""
        found = self._post("completion", prompt=prompt, n_predict=tokens, temperature=0)
        return str(found["content"])

    def timed(self, tokens: Sequence[int], count: int) -> tuple[list[int], float, float]:
        """The likeliest tokens after these, and tokens read and written in a second."""
        found = self._post(
            "completion",
            prompt=list(tokens),
            n_predict=count,
            temperature=0,
            ignore_eos=True,
            cache_prompt=False,
            return_tokens=True,
        )
        timings = found["timings"]
        return found["tokens"], timings["prompt_per_second"], timings["predicted_per_second"]

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Token ids of a text, with those that begin and end each text if `special`."""
        found = self._post("tokenize", content=text, add_special=special, parse_special=special)
        return list(found["tokens"])

    def chat_prompt(self, question: str) -> str:
        """A question in the form of the model's chat template."""
        found = self._post("apply-template", messages=[{"role": "user", "content": question}])
        return str(found["prompt"])

    def _post(self, route: str, **body: Any) -> Any:
        answer = httpx.post(f"{self._server.listening_address}/{route}", json=body, timeout=600)
        assert answer.is_success, answer.text
        return answer.json()


@contextmanager
def llama_cpp(
    path: Path, exact: bool = True, context: int = 256, threads: int = 1
) -> Iterator[LlamaCpp]:
    """Load a file on the CPU; `exact` keeps keys and values in float32."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx = context
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.warmup = False
    settings.verbosity = 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    if exact:
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)
    try:
        yield LlamaCpp(server)
    finally:
        del server
