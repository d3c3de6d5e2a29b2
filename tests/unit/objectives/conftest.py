"""What is computed here is computed in float64."""

from collections.abc import Iterator

import pytest

from tests.precision import in_float64


@pytest.fixture(scope="module", autouse=True)
def everything_in_float64() -> Iterator[None]:
    with in_float64():
        yield
