"""What two computations of one number owe each other on every processor.

In which order a sum is added, and whether a product is rounded before it is added, is the processor's choice; float32 shows it, by how much
depends on the numbers. So what is computed in two ways is computed in float64 and must agree within BOUND: far above float64's rounding
(1e-16 of a number, a thousand times that behind a network) and far below what a wrong formula leaves. Equality is asked where it is promised.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

BOUND = 1e-10


@contextmanager
def in_float64() -> Generator[None, None, None]:
    """Within this context tensors are float64 where nothing says otherwise."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


IN_FLOAT64 = {"weights": "float64", "sampling.stored": "float64"}
"""Settings under which a run computes and keeps everything in float64."""


def assert_same(actual: Tensor, expected: Tensor, what: str = "", *, bound: float = BOUND) -> None:
    """Both in float64, and equal within `bound` of the largest number expected (of 1, where all are smaller); nan where nan is expected."""
    assert (actual.dtype, expected.dtype) == (torch.float64, torch.float64), f"{what}: {actual.dtype} and {expected.dtype}"
    size = max(1.0, float(expected.detach().nan_to_num().abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=bound * size, equal_nan=True, msg=lambda words: f"{what} {words}")


def assert_rounded_alike(actual: Tensor, expected: Tensor, exact: Tensor) -> None:
    """Of numbers that can be computed in float32 alone: `actual` is about as near to what float64 gives as `expected` is.

    Two orders of adding round differently but by about as much, each number within some multiple of float32's rounding of the largest; the largest
    error of one was never seen at a tenth of the other's, let alone a thirtieth.
    """
    size = float(exact.abs().max())
    own = float((expected.double() - exact).abs().max())
    assert own <= 1e-3 * size, "both are in float32"
    torch.testing.assert_close(actual.double(), exact, rtol=0, atol=30 * own + 30 * size * torch.finfo(torch.float32).eps)


def assert_all_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, bound: float = BOUND) -> None:
    """The same names, and under each the same numbers."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_same(actual[name], value, name, bound=bound)
