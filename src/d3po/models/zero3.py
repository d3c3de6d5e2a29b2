"""Frozen weights divided among processes by DeepSpeed's ZeRO-3, whose settings can also keep them in CPU memory or on disk."""

import importlib
import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import ValidationError
from torch import nn

from d3po.errors import ConfigError
from d3po.text import read_text

FACTORS = ("lora_A", "lora_B")


def divide_by_zero3(network: nn.Module, settings: dict[str, Any]) -> None:
    """Divide all but the adapter among the processes of the default group.

    Raises:
        ConfigError: DeepSpeed is not installed, or does not accept the settings.
    """
    if find_spec("deepspeed") is None:
        raise ConfigError(
            "hardware.divide is 'zero3', which needs DeepSpeed, not installed here; `pip install 'd3po[deepspeed]'`, or set it to 'fsdp'"
        )
    deepspeed: Any = importlib.import_module("deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with _adapter_away(network):
        try:
            deepspeed.initialize(model=network, config=settings)
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"]))
            raise ConfigError(f"hardware.deepspeed: DeepSpeed refuses {where} = {wrong['input']!r}: {wrong['msg']}") from error


def zero3_settings(file: str, dtype: torch.dtype) -> dict[str, Any]:
    """Read DeepSpeed's settings from the user's file. Where it sets nothing, weights are gathered layer by layer and dropped at once.

    Raises:
        ConfigError: the file cannot be read, is no JSON object, or sets another stage than 3.
    """
    said = _read(file) if file else {}
    zero = {"stage": 3, "stage3_param_persistence_threshold": 10_000, "stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}
    zero |= said.get("zero_optimization", {})
    if zero["stage"] != 3:
        raise ConfigError(f"{file}: zero_optimization.stage is {zero['stage']}, but only stage 3 divides frozen weights; set it to 3")
    precision = {torch.bfloat16: {"bf16": {"enabled": True}}, torch.float16: {"fp16": {"enabled": True}}}.get(dtype, {})
    return {"train_micro_batch_size_per_gpu": 1, **precision, **said, "zero_optimization": zero}


def _read(file: str) -> dict[str, Any]:
    try:
        said = json.loads(read_text(Path(file), ConfigError))
    except ValueError as error:
        raise ConfigError(f"hardware.deepspeed is {file!r}, which is not valid JSON: {error}") from error
    if not isinstance(said, dict):
        raise ConfigError(f"hardware.deepspeed is {file!r}, which holds no JSON object")
    return said  # pyright: ignore[reportUnknownVariableType]


@contextmanager
def _adapter_away(network: nn.Module) -> Generator[None, None, None]:
    """Context in which the adapter is taken out of the network, so that DeepSpeed finds frozen weights alone."""
    taken: list[tuple[Any, str, nn.Module]] = [
        (layer, name, getattr(layer, name)) for layer in network.modules() if isinstance(layer, BaseTunerLayer) for name in FACTORS
    ]
    for layer, name, _ in taken:
        setattr(layer, name, nn.ModuleDict())
    try:
        yield
    finally:
        for layer, name, factor in taken:
            setattr(layer, name, factor)
