"""Frozen weights stored in half precision and used in float32: each layer's weights are widened when it is called, and dropped afterwards.

This is for devices that cannot compute in the precision in which weights are stored. Without gradient checkpointing autograd keeps every widened weight
until its backward pass, so that no memory is saved; with gradient checkpointing it keeps those of one block at a time.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class _Widened(nn.Module):
    """The parametrization that gives a layer its weight in float32."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


def widen(network: nn.Module) -> None:
    """Make every frozen weight in half precision be read as float32."""
    for module in list(network.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.dtype in (torch.bfloat16, torch.float16) and not weight.requires_grad:
                parametrize.register_parametrization(module, name, _Widened(), unsafe=True)  # unsafe permits the change of dtype


def narrow(network: nn.Module) -> None:
    """Undo `widen`: weights are read as they are stored, and have their former names."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues, reportUnknownArgumentType]
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)
