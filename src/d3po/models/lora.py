"""LoRA through peft: a fresh adapter is a no-op, and two runs with one seed start from the same one."""

from typing import Any

import torch
from peft import LoraConfig
from torch import nn

from d3po.errors import ModelError

ADAPTER = "d3po"
TARGETS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "attention+conv": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"],
}


def attach_lora(network: Any, *, rank: int, alpha: float, targets: str, seed: int) -> dict[str, nn.Parameter]:
    """Freeze `network` (a diffusers model), add a float32 LoRA, and return its parameters by name.

    Raises:
        ModelError: the network has no module of the kind asked for.
    """
    network.requires_grad_(False)
    # peft annotates lora_alpha as int, but only ever divides it by the rank.
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS[targets], init_lora_weights=True)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network.add_adapter(config, adapter_name=ADAPTER)
        except ValueError as error:
            raise ModelError(f"no layer of {type(network).__name__} fits adapter.targets = {targets!r}: {error}") from error
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    return parameters
