"""The optimizers a policy can be trained with, and their state as flat tensors that a checkpoint can hold."""

from collections.abc import Iterable, Mapping
from importlib import import_module

import torch
from torch import Tensor, nn

from d3po.errors import ConfigError
from d3po.options import OptimizerName

PREFIX = "adam."


def make_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], *, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW with moments in float32, or in blocks of 8 bits (Dettmers et al. 2022), which take a quarter of the memory.

    Raises:
        ConfigError: the package behind the 8-bit one is not installed.
    """
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay)
    try:
        library = import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(
            "training.optimizer is 'adamw8bit' but bitsandbytes is not installed; `pip install 'd3po[8bit]'` or set it to 'adamw'"
        ) from error
    return library.optim.AdamW8bit(parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay)


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Every number the optimizer keeps of each named parameter, as `adam.KEY.NAME`; whole numbers become tensors of no dimension."""
    return {
        f"{PREFIX}{key}.{name}": torch.as_tensor(value).cpu()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizer the state that `optimizer_state` made; what it says nothing of begins anew."""
    optimizer.state.clear()
    for name, parameter in parameters.items():
        kept = {key.removeprefix(PREFIX).removesuffix(f".{name}"): value for key, value in _of(name, tensors)}
        if kept:
            optimizer.state[parameter] = {key: _restored(value, parameter) for key, value in kept.items()}


def _of(name: str, tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """The state of one parameter; no key has a dot in it, so a name that ends like another is told apart."""
    return [(key, value) for key, value in tensors.items() if key.startswith(PREFIX) and key.split(".", 2)[2] == name]


def _restored(value: Tensor, parameter: nn.Parameter) -> Tensor | int:
    """AdamW's count of steps stays on the CPU; whole numbers are numbers again."""
    if value.ndim:
        return value.clone().to(parameter.device)
    return value.clone() if value.is_floating_point() else int(value)
