"""The optimizers that train a policy, and their state as tensors by name, for checkpoints."""

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
        ConfigError: the 8-bit optimizer is asked for and bitsandbytes is not installed.
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
    """The optimizer's state of each named parameter, as tensors named `adam.KEY.NAME`; numbers become tensors without dimensions."""
    return {
        f"{PREFIX}{key}.{name}": torch.as_tensor(value).cpu()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Restore the state that `optimizer_state` returned; parameters that it does not name start without state."""
    optimizer.state.clear()
    for name, parameter in parameters.items():
        kept = {key.removeprefix(PREFIX).removesuffix(f".{name}"): value for key, value in _of(name, tensors)}
        if kept:
            optimizer.state[parameter] = {key: _restored(value, parameter) for key, value in kept.items()}


def _of(name: str, tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """The state of one parameter. Keys contain no dot, so a parameter whose name ends like another's is not mistaken for it."""
    return [(key, value) for key, value in tensors.items() if key.startswith(PREFIX) and key.split(".", 2)[2] == name]


def _restored(value: Tensor, parameter: nn.Parameter) -> Tensor | int:
    """Undo `optimizer_state`: moments go to the parameter's device, AdamW's step count stays on the CPU, whole numbers become ints."""
    if value.ndim:
        return value.clone().to(parameter.device)
    return value.clone() if value.is_floating_point() else int(value)
