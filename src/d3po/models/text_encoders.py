"""Text encoders, which are large and needed only once for each prompt: where they are kept between uses, and a cache of embeddings."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from d3po.errors import ConfigError
from d3po.options import TextEncoders

SHOWN, WIDEST = 5, 60
"""How many prompts a message names, and how many characters of each."""


@runtime_checkable
class PromptCache(Protocol):
    """A cache of embeddings that outlives the process, so that each prompt is encoded once."""

    def read(self, prompt: str) -> Mapping[str, Tensor] | None:
        """The prompt's embedding, as tensors of batch size 1 by name; None if it is not in the cache."""
        ...

    def write(self, prompt: str, embedding: Mapping[str, Tensor]) -> None:
        """Store a prompt's embedding."""
        ...


class EncoderShelf:
    """Moves a pipeline's text encoders to the device while prompts are encoded, and away from it between uses.

    `load` loads an encoder again, given its name in the pipeline; None if that is not possible.

    Raises:
        ConfigError: encoders are to be dropped between uses and cannot be loaded again.
    """

    def __init__(self, pipeline: Any, between_uses: TextEncoders, load: Callable[[str], nn.Module] | None) -> None:
        self._pipeline, self._between_uses, self._load = pipeline, between_uses, load
        self.names = [name for name, part in pipeline.components.items() if name.startswith("text_encoder") and isinstance(part, nn.Module)]
        if between_uses == "free" and load is None and self.names:
            raise ConfigError(
                "hardware.text_encoders is 'free', but a single file's encoders cannot be loaded again on their own; choose 'offload', or a folder"
            )

    def to(self, device: str) -> None:
        """Move the pipeline, but leave out encoders that are kept away from the device between uses."""
        if self._between_uses == "keep":
            self._pipeline.to(device)
            return
        for name, part in self._pipeline.components.items():
            if isinstance(part, nn.Module) and name not in self.names:
                part.to(device)

    @contextmanager
    def at_work(self, device: torch.device) -> Generator[None, None, None]:
        """Context in which the encoders are on `device`."""
        if self._between_uses == "keep":
            yield
            return
        for name in self.names:
            encoder: nn.Module | None = getattr(self._pipeline, name)
            self._pipeline.register_modules(**{name: (encoder or self._loaded(name)).to(device)})
        try:
            yield
        finally:
            for name in self.names:
                self._pipeline.register_modules(**{name: None if self._between_uses == "free" else getattr(self._pipeline, name).to("cpu")})

    def _loaded(self, name: str) -> nn.Module:
        assert self._load is not None
        return self._load(name).requires_grad_(False).eval()


def encode_once(
    prompts: list[str], cache: PromptCache, encode: Callable[[list[list[str]]], list[dict[str, Tensor]]]
) -> dict[str, Mapping[str, Tensor]]:
    """The embedding of each prompt, from the cache if it is there.

    `encode` takes batches of prompts. Missing prompts are passed to it one by one, so that an embedding never depends on the rest of its batch.
    """
    kept = {prompt: cache.read(prompt) for prompt in prompts}
    missing = [prompt for prompt, embedding in kept.items() if embedding is None]
    made = dict(zip(missing, encode([[prompt] for prompt in missing]) if missing else [], strict=True))
    for prompt, embedding in made.items():
        cache.write(prompt, embedding)
    return {prompt: made[prompt] if embedding is None else embedding for prompt, embedding in kept.items()}


def cut_lines(encoder: str, tokenizer: Any, prompts: Sequence[str], read: Sequence[str], limit: int) -> list[str]:
    """A warning, in one line, about the prompts of which an encoder reads only the beginning; empty if there are none.

    `read` are the prompts as the tokenizer receives them, `limit` is how many tokens the encoder reads.
    """
    lengths = [len(tokens) for tokens in tokenizer(list(read), truncation=False).input_ids] if read else []
    cut = [f"{_shortened(prompt)!r} ({length})" for prompt, length in zip(prompts, lengths, strict=True) if length > limit]
    if not cut:
        return []
    named = ", ".join(cut[:SHOWN]) + (f" and {len(cut) - SHOWN} more" if len(cut) > SHOWN else "")
    return [
        f"warning: {len(cut)} of {len(prompts)} prompts have more tokens than the {limit} that {encoder} reads, and are cut off there: {named}"
    ]


def _shortened(prompt: str) -> str:
    return prompt if len(prompt) <= WIDEST else f"{prompt[:WIDEST]}..."
