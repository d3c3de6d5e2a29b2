"""Text encoders: large, needed once a prompt, and out of the way for the rest of the time."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from d3po.errors import ConfigError
from d3po.options import TextEncoders


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
