"""Frozen weights kept in half precision and computed with in float32: each layer's are widened when it is called, and dropped after.

For devices that cannot compute in the precision they store. Without gradient checkpointing autograd keeps every widened weight until its backward
pass, and nothing is saved; with it, those of one block at a time.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class _Widened(nn.Module):
    """A weight as its layer sees it."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


def widen(network: nn.Module) -> None:
    """Have every frozen weight in half precision read as float32."""
    for module in list(network.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.dtype in (torch.bfloat16, torch.float16) and not weight.requires_grad:
                parametrize.register_parametrization(module, name, _Widened(), unsafe=True)  # the type is meant to change


def narrow(network: nn.Module) -> None:
    """Undo `widen`: the weights are read as they are stored, under the names they had."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues, reportUnknownArgumentType]
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)
