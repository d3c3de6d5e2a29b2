"""LoRA adapters, by peft. A new adapter does not change the network's output, and its initial weights depend on the seed alone."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from d3po.diffusion.transition import at_least_float32
from d3po.errors import ModelError

ADAPTER = "d3po"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
JOINT_ATTENTION = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Attention projections of transformers with joint attention to text and picture."""
CONVOLUTIONS = ("conv1", "conv2")


def attach_lora(network: nn.Module, *, rank: int, alpha: float, targets: str, seed: int) -> dict[str, nn.Parameter]:
    """Freeze `network`, add a LoRA to it, and return the LoRA's parameters by name. They are float32, or float64 if the network is.

    Raises:
        ModelError: the network has no module that `targets` asks for.
    """
    network.requires_grad_(False)
    modules = target_modules(network, targets)
    # peft annotates lora_alpha as int, but only ever divides it by the rank.
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, init_lora_weights=True)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # diffusers' models have a method that also registers the adapter with their loaders; other networks get plain modules.
        adder: Any = getattr(network, "add_adapter", None)
        if adder is not None:
            adder(config, adapter_name=ADAPTER)
        else:
            inject_adapter_in_model(config, network, adapter_name=ADAPTER)
    parameters = {name: p for name, p in network.named_parameters() if f".{ADAPTER}." in name}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
        parameter.data = at_least_float32(parameter.data)
    return parameters


def target_modules(network: nn.Module, targets: str) -> list[str]:
    """The suffixes of the names of the modules that get an adapter; for `linear`, their whole names.

    Raises:
        ModelError: the network has no such module.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    names = [name for name, _ in network.named_modules()]
    wanted = linear if targets == "linear" else _present(names, JOINT_ATTENTION)
    convolutions = _present(names, CONVOLUTIONS) if targets == "attention+conv" else []
    if not wanted or (targets == "attention+conv" and not convolutions):
        missing = "convolution" if wanted else "linear layer" if targets == "linear" else "attention projection"
        fitting = "attention" if wanted else "linear"
        raise ModelError(f"adapter.targets is {targets!r}, but {type(network).__name__} has no {missing} to adapt; try {fitting!r}")
    return [*wanted, *convolutions]


@contextmanager
def switched_off(network: nn.Module) -> Generator[None, None, None]:
    """Context in which the network computes without its adapters."""
    _switch(network, on=False)
    try:
        yield
    finally:
        _switch(network, on=True)


def scaled_lora(network: Any) -> dict[str, Tensor]:
    """The LoRA in peft's layout, with alpha / rank multiplied into its second factor, since loaders assume alpha = rank if no alpha is given."""
    config = network.peft_config[ADAPTER]
    scale = config.lora_alpha / config.r
    state = get_peft_model_state_dict(network, adapter_name=ADAPTER)
    return {name: value * scale if "lora_B" in name else value for name, value in state.items()}


def merge_lora(network: Any) -> None:
    """Add the LoRA to the network's weights permanently, and remove the adapter."""
    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            merged: Any = module
            merged.merge(adapter_names=[ADAPTER])
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, merged.get_base_layer())
    del network.peft_config
    network._hf_peft_config_loaded = False  # otherwise diffusers takes the model for an adapted one and refuses to save it


def _present(names: list[str], endings: tuple[str, ...]) -> list[str]:
    return [ending for ending in endings if any(name.endswith(f".{ending}") for name in names)]


def _switch(network: nn.Module, *, on: bool) -> None:
    for module in network.modules():
        if isinstance(module, BaseTunerLayer):
            layer: Any = module
            layer.enable_adapters(on)
