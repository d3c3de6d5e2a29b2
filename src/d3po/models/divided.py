"""A network too large for one device, with its frozen weights divided among processes.

The first process runs everything as if it were alone. When it calls the network, every process computes a part of the batch, with weights that are
gathered block by block, used and dropped. So each process holds a share of the frozen weights and the whole adapter, which is small. The other processes
do nothing else: `lend` serves calls until the first process releases them.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from d3po.models.lora import switched_off

Compute = Callable[[Tensor, Tensor, Mapping[str, Tensor], Tensor], Tensor]
"""(x_t, timesteps, condition by name, scale), all with the same batch size -> the network's output, as `PipelinePolicy` computes it."""


@dataclass(frozen=True, kw_only=True)
class _RemoteCall:
    """A message from the first process to the others: a forward pass follows, with these tensors."""

    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    """Shape and dtype of each tensor that will be sent, by name."""
    weights: bool
    """Whether the adapter has changed since the last call, so that its weights will be sent too."""
    adapted: bool
    """Whether the adapter is on."""
    gradient: bool
    """Whether a backward pass may follow."""


@dataclass(frozen=True, kw_only=True)
class _Backward:
    """A message from the first process to the others: the gradient of the last call's output follows."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class DividedNetwork:
    """Evaluates a network whose frozen weights are already divided; `compute` is how one process calls it."""

    def __init__(self, network: nn.Module, compute: Compute, trainable: Sequence[nn.Parameter], device: torch.device) -> None:
        self._network, self._compute, self._trainable = network, compute, list(trainable)
        self._size, self._device = dist.get_world_size(), device
        self.lends = dist.get_rank() > 0
        """Whether this process only computes for the first one, and so needs no other part of the model."""
        self._known: list[int] = []
        self._graph: Tensor | None = None

    def __call__(self, x_t: Tensor, timesteps: Tensor, given: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        """Compute the output for the whole batch. Called in the first process only."""
        batch = len(x_t)
        tensors = {"x_t": x_t, "timesteps": timesteps, "scale": scale} | {f"given.{name}": value for name, value in given.items()}
        padded = {name: self._padded(value) for name, value in tensors.items()}
        gradient = torch.is_grad_enabled()
        output: Tensor = _Through.apply(self, padded, gradient, *self._trainable)  # pyright: ignore[reportAssignmentType]
        return output[:batch]

    def lend(self) -> None:
        """Serve the first process's calls until it releases this process. Called in all other processes."""
        while True:
            (said,) = self._told(None)
            if said is None:
                return
            if isinstance(said, _Backward):
                self._backward(torch.empty(said.shape, dtype=said.dtype, device=self._device))
            else:
                tensors = {name: torch.empty(shape, dtype=dtype, device=self._device) for name, (shape, dtype) in said.tensors.items()}
                self._forward(said, tensors)

    def release(self) -> None:
        """End `lend` in the other processes. Called in the first process only, at the end."""
        self._told(None)

    def begin(self, tensors: Mapping[str, Tensor], *, gradient: bool) -> Tensor:
        """Start a forward pass in all processes and return the whole output. Called in the first process only."""
        versions = [parameter._version for parameter in self._trainable]
        layers = [module for module in self._network.modules() if isinstance(module, BaseTunerLayer)]
        call = _RemoteCall(
            tensors={name: (tuple(value.shape), value.dtype) for name, value in tensors.items()},
            weights=versions != self._known,
            adapted=not any(layer.disable_adapters for layer in layers),
            gradient=gradient,
        )
        self._known = versions
        self._told(call)
        return self._forward(call, tensors)

    def gradients(self, gradient: Tensor) -> list[Tensor]:
        """The adapter's gradients, given the gradient of the last call's output. Called in the first process only."""
        self._told(_Backward(shape=tuple(gradient.shape), dtype=gradient.dtype))
        return self._backward(gradient)

    def _forward(self, call: _RemoteCall, tensors: Mapping[str, Tensor]) -> Tensor:
        """Compute this process's part of the batch, and gather the parts of all processes."""
        for value in tensors.values():
            dist.broadcast(value, src=0)
        if call.weights:
            for parameter in self._trainable:
                dist.broadcast(parameter.data, src=0)
        mine = {name: value.chunk(self._size)[dist.get_rank()] for name, value in tensors.items()}
        given = {name.removeprefix("given."): value for name, value in mine.items() if name.startswith("given.")}
        with (
            warnings.catch_warnings(),
            torch.set_grad_enabled(call.gradient),
            nullcontext() if call.adapted else switched_off(self._network),
        ):
            # Nothing writes into what a block returns; a test holds the gradients against those of a whole network.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            part = self._compute(mine["x_t"], mine["timesteps"], given, mine["scale"])
        self._graph = part if call.gradient else self._graph
        parts = [torch.empty_like(part) for _ in range(self._size)]
        dist.all_gather(parts, part.detach().contiguous())
        return torch.cat(parts)

    def _backward(self, gradient: Tensor) -> list[Tensor]:
        """The adapter's gradients; in the first process, summed over all processes and so over the whole batch."""
        assert self._graph is not None
        dist.broadcast(gradient, src=0)
        part = gradient.chunk(self._size)[dist.get_rank()]
        grads = torch.autograd.grad(self._graph, self._trainable, part, materialize_grads=True)
        self._graph = None
        whole = torch.cat([grad.flatten() for grad in grads])
        dist.reduce(whole, dst=0)
        return [g.view_as(w) for w, g in zip(self._trainable, whole.split([w.numel() for w in self._trainable]), strict=True)]

    def _told(self, said: "_RemoteCall | _Backward | None") -> list[Any]:
        message: list[Any] = [said]
        dist.broadcast_object_list(message, src=0, device=self._device)
        return message

    def _padded(self, batch: Tensor) -> Tensor:
        """Repeat the last element of the batch until the batch size is a multiple of the number of processes."""
        missing = -len(batch) % self._size
        return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]).contiguous()


class _Through(torch.autograd.Function):
    """One call of the divided network, as an autograd function of the adapter's weights."""

    @staticmethod
    def forward(ctx: Any, divided: DividedNetwork, tensors: Mapping[str, Tensor], gradient: bool, *_: Tensor) -> Tensor:
        ctx.divided = divided
        return divided.begin(tensors, gradient=gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        return (None, None, None, *ctx.divided.gradients(gradient.contiguous()))


def divide_by_fsdp(network: nn.Module, trainable: Sequence[nn.Parameter], device: torch.device) -> None:
    """Divide all but the trainable weights among the processes of the default group, with torch's FSDP2."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for part in (*_blocks(network), network):
        fully_shard(part, mesh=mesh, ignored_params=set(trainable))


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The units whose weights are gathered at a time: the entries of the network's lists of blocks."""
    return [block for part in network.children() if isinstance(part, nn.ModuleList) for block in part]
