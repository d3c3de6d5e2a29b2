"""LoRAs of other tools: Kohya's layout (ComfyUI, AUTOMATIC1111) written and read, and a LoRA's file merged into a network to start from.

A LoRA is kept here as peft names it, with its strength in it: `MODULE.lora_A.weight` (rank, in) and `MODULE.lora_B.weight` (out, rank), times 1.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from d3po.errors import ModelError

DOWN, UP = "lora_A.weight", "lora_B.weight"
KOHYA = "lora_unet_"
PREFIXES = ("base_model.model.", "unet.", "transformer.")
NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What diffusers and peft call the file in a LoRA's folder."""


def to_kohya(layers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Kohya's layout: module names with underscores, `lora_down`, `lora_up`, and an alpha equal to the rank, so that the strength is 1."""
    tensors: dict[str, Tensor] = {}
    for name, value in layers.items():
        module, _, factor = name.partition(".lora_")
        key = KOHYA + module.replace(".", "_")
        tensors[f"{key}.lora_{'down' if factor.startswith('A') else 'up'}.weight"] = value.contiguous()
        if factor.startswith("A"):
            tensors[f"{key}.alpha"] = torch.tensor(float(len(value)))
    return tensors


def from_kohya(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The other way: underscores become the names of the network's modules, and alpha / rank is folded into the second factor.

    Raises:
        ModelError: a tensor belongs to no module of the network.
    """
    modules = {name.replace(".", "_"): name for name, _ in network.named_modules()}
    layers: dict[str, Tensor] = {}
    for name, value in tensors.items():
        key, _, part = name.removeprefix(KOHYA).partition(".")
        if name.startswith("lora_te") or part == "alpha":
            continue
        if key not in modules:
            raise ModelError(f"the LoRA's {name} belongs to no module of {type(network).__name__}; it was made for another model")
        scale = _alpha(tensors, name) / value.shape[1] if part.startswith("lora_up") else 1.0
        layers[f"{modules[key]}.{UP if part.startswith('lora_up') else DOWN}"] = value * scale
    return layers


def read_lora(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """The denoiser's LoRA in a file or folder of diffusers', peft's or Kohya's layout.

    Raises:
        ModelError: it cannot be read, holds no LoRA, or one of another model.
    """
    file = next((path / name for name in NAMES if (path / name).exists()), path)
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the LoRA {path} cannot be read: {error}") from error
    if any(name.startswith(KOHYA) for name in tensors):
        return from_kohya(tensors, network)
    scale = _scale(file, metadata)
    layers: dict[str, Tensor] = {}
    for name, value in tensors.items():
        prefix = next((p for p in PREFIXES if name.startswith(p)), "")
        if name.endswith((DOWN, UP)):
            layers[name.removeprefix(prefix)] = value * (scale if name.endswith(UP) else 1.0)
    if not layers:
        raise ModelError(f"{file} holds no LoRA in diffusers', peft's or Kohya's layout; convert it first")
    return layers


@torch.no_grad()
def merge_layers(network: nn.Module, layers: dict[str, Tensor]) -> None:
    """Add every B A to the weight it belongs to.

    Raises:
        ModelError: a layer belongs to no module of the network, or has another size.
    """
    modules = dict(network.named_modules())
    for name in (name for name in layers if name.endswith(DOWN)):
        module = name.removesuffix(f".{DOWN}")
        weight: Any = getattr(modules.get(module), "weight", None)
        down, up = layers[name], layers.get(f"{module}.{UP}")
        if weight is None or up is None or len(up) != len(weight) or down[0].numel() != weight[0].numel():
            raise ModelError(f"the LoRA's {name} fits no layer of {type(network).__name__}; it was made for another model")
        weight += (up.flatten(1).float() @ down.flatten(1).float()).view_as(weight).to(weight)


def _alpha(tensors: dict[str, Tensor], name: str) -> float:
    """Kohya's alpha of a module; the rank where none is given."""
    module = name.partition(".")[0]
    return float(tensors.get(f"{module}.alpha", tensors[name].shape[1]))


def _scale(file: Path, metadata: dict[str, str]) -> float:
    """alpha / rank as peft's configuration or diffusers' metadata says it; 1 where neither does."""
    config = file.parent / "adapter_config.json"
    facts: dict[str, Any] = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    if file.name == NAMES[1] and config.exists():
        facts = json.loads(config.read_text())
    flat = {key.rpartition(".")[2]: value for key, value in facts.items()}
    return float(flat["lora_alpha"]) / float(flat["r"]) if {"lora_alpha", "r"} <= flat.keys() else 1.0
