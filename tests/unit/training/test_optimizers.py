"""Optimizers: their state survives a checkpoint, and the 8-bit one stays near the exact one."""

import sys

import pytest
import torch
from torch import nn

from d3po.errors import ConfigError
from d3po.options import OptimizerName
from d3po.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state

NAMES: tuple[OptimizerName, ...] = ("adamw", "adamw8bit")


def weights() -> dict[str, nn.Parameter]:
    """One that bitsandbytes keeps in blocks of 8 bits, and one too small for that; one name ends like the other."""
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in (("a.up", (64, 128)), ("up", (3,)))}


def optimizer_of(name: OptimizerName, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    return make_optimizer(name, parameters.values(), learning_rate=1e-2, betas=(0.9, 0.99), weight_decay=0.1)


def step(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], numbers: range) -> None:
    for number in numbers:
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_that_is_kept_and_restored_goes_on_as_if_nothing_had_happened(name: OptimizerName) -> None:
    straight = weights()
    step(optimizer_of(name, straight), straight, range(6))
    before = weights()
    first = optimizer_of(name, before)
    step(first, before, range(3))
    kept = {key: value.clone() for key, value in optimizer_state(first, before).items()}
    after = {key: nn.Parameter(value.detach().clone()) for key, value in before.items()}
    second = optimizer_of(name, after)
    load_optimizer_state(second, after, kept)
    step(second, after, range(3, 6))
    assert all(torch.equal(after[key], straight[key]) for key in straight)


def test_adamw_keeps_the_names_that_checkpoints_have() -> None:
    parameters = weights()
    optimizer = optimizer_of("adamw", parameters)
    assert optimizer_state(optimizer, parameters) == {}
    step(optimizer, parameters, range(1))
    assert set(optimizer_state(optimizer, parameters)) == {
        f"adam.{key}.{name}" for key in ("exp_avg", "exp_avg_sq", "step") for name in parameters
    }


def test_eight_bits_take_a_quarter_of_the_memory_and_move_nearly_alike() -> None:
    exact, rounded = weights(), weights()
    optimizers = [optimizer_of(name, parameters) for name, parameters in zip(NAMES, (exact, rounded), strict=True)]
    for optimizer, parameters in zip(optimizers, (exact, rounded), strict=True):
        step(optimizer, parameters, range(5))
    start = weights()["a.up"]
    assert (rounded["a.up"] - exact["a.up"]).norm() < 0.05 * (exact["a.up"] - start).norm()
    rounding = 2 * 5 * torch.finfo(torch.float32).eps * exact["up"].abs().max().item()  # of both, in each of five steps
    torch.testing.assert_close(rounded["up"], exact["up"], rtol=0, atol=rounding)
    large = [
        sum(v.nbytes for v in o.state[p["a.up"]].values() if torch.is_tensor(v)) for o, p in zip(optimizers, (exact, rounded), strict=True)
    ]
    assert large[1] < 0.3 * large[0]


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"bitsandbytes is not installed; `pip install 'd3po\[8bit\]'` or set it to 'adamw'"):
        optimizer_of("adamw8bit", weights())
