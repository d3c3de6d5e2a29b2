"""LoRA through peft: a fresh adapter is a no-op, and two runs with one seed start from the same one."""

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
"""Of transformers that attend to text and picture at once."""
CONVOLUTIONS = ("conv1", "conv2")


def attach_lora(network: nn.Module, *, rank: int, alpha: float, targets: str, seed: int) -> dict[str, nn.Parameter]:
    """Freeze `network`, add a LoRA in float32 (float64, where the network is), and return its parameters by name.

    Raises:
        ModelError: the network has no module of the kind asked for.
    """
    network.requires_grad_(False)
    modules = target_modules(network, targets)
    # peft annotates lora_alpha as int, but only ever divides it by the rank.
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, init_lora_weights=True)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # diffusers' own models have a method that also tells their loaders of the adapter; the others take it as plain modules.
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
    """The endings (for `linear`: whole names) of the modules that get an adapter.

    Raises:
        ModelError: there are none in this network.
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
    """Within this context the network computes without its adapters."""
    _switch(network, on=False)
    try:
        yield
    finally:
        _switch(network, on=True)


def scaled_lora(network: Any) -> dict[str, Tensor]:
    """The LoRA in peft's layout with alpha / rank folded into its second factor, as loaders assume alpha = rank where nothing is said."""
    config = network.peft_config[ADAPTER]
    scale = config.lora_alpha / config.r
    state = get_peft_model_state_dict(network, adapter_name=ADAPTER)
    return {name: value * scale if "lora_B" in name else value for name, value in state.items()}


def merge_lora(network: Any) -> None:
    """Add the LoRA to the weights for good and leave the plain network behind."""
    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            merged: Any = module
            merged.merge(adapter_names=[ADAPTER])
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, merged.get_base_layer())
    del network.peft_config
    network._hf_peft_config_loaded = False  # diffusers refuses to save a model that it takes for an adapted one


def _present(names: list[str], endings: tuple[str, ...]) -> list[str]:
    return [ending for ending in endings if any(name.endswith(f".{ending}") for name in names)]


def _switch(network: nn.Module, *, on: bool) -> None:
    for module in network.modules():
        if isinstance(module, BaseTunerLayer):
            layer: Any = module
            layer.enable_adapters(on)
