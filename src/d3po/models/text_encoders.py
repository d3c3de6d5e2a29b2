"""Text encoders: large, needed once a prompt, and out of the way for the rest of the time."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from d3po.errors import ConfigError
from d3po.options import TextEncoders

SHOWN, WIDEST = 5, 60
"""How many prompts a message names, and how many letters of each."""


@runtime_checkable
class PromptCache(Protocol):
    """Where embeddings are kept between processes, so that a prompt is encoded once."""

    def read(self, prompt: str) -> Mapping[str, Tensor] | None:
        """The prompt's embedding, one row a tensor, or None."""
        ...

    def write(self, prompt: str, rows: Mapping[str, Tensor]) -> None:
        """Keep a prompt's embedding."""
        ...


class EncoderShelf:
    """A pipeline's text encoders: on its device, or put away while no prompt is encoded.

    `load` makes an encoder anew, given its name in the pipeline; None where that cannot be done.
    """

    def __init__(self, pipeline: Any, between_uses: TextEncoders, load: Callable[[str], nn.Module] | None) -> None:
        self._pipeline, self._between_uses, self._load = pipeline, between_uses, load
        self.names = [name for name, part in pipeline.components.items() if name.startswith("text_encoder") and isinstance(part, nn.Module)]
        if between_uses == "free" and load is None and self.names:
            raise ConfigError(
                "hardware.text_encoders is 'free', but a single file's encoders cannot be loaded again on their own; choose 'offload', or a folder"
            )

    def to(self, device: str) -> None:
        """Move the pipeline, without encoders that are to stay away from the device."""
        if self._between_uses == "keep":
            self._pipeline.to(device)
            return
        for name, part in self._pipeline.components.items():
            if isinstance(part, nn.Module) and name not in self.names:
                part.to(device)

    @contextmanager
    def at_work(self, device: torch.device) -> Generator[None, None, None]:
        """Within this context the encoders are on `device`."""
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
    """The embedding of each prompt, from the cache where it is there.

    `encode` takes batches of prompts; what is missing goes to it one by one, so that an embedding never depends on what was encoded beside it.
    """
    kept = {prompt: cache.read(prompt) for prompt in prompts}
    missing = [prompt for prompt, rows in kept.items() if rows is None]
    made = dict(zip(missing, encode([[prompt] for prompt in missing]) if missing else [], strict=True))
    for prompt, rows in made.items():
        cache.write(prompt, rows)
    return {prompt: made[prompt] if rows is None else rows for prompt, rows in kept.items()}


def cut_lines(encoder: str, tokenizer: Any, prompts: Sequence[str], read: Sequence[str], limit: int) -> list[str]:
    """One line on the prompts of which an encoder sees the beginning alone; none if it sees all of them whole.

    `read` are the prompts as the tokenizer is given them, `limit` how many tokens it passes on.
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
