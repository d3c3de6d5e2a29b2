"""Shapes in signatures are checked while the tests run, in all packages that say any."""

import tomllib
from pathlib import Path

import pytest
import torch

from d3po.objectives import IPO

ROOT = Path(__file__).parents[2]


def test_packages_that_say_shapes_are_those_that_are_checked() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    (listed,) = [option.partition("=")[2] for option in options.split() if option.startswith("--jaxtyping-packages=")]
    checked = [name.replace(".", "/") for name in listed.split(",")[:-1]]
    files = [path for path in (ROOT / "src" / "d3po").rglob("*.py") if "from jaxtyping import" in path.read_text()]
    saying = {path.relative_to(ROOT / "src").as_posix() for path in files}
    assert all(any(path.startswith(f"{name}/") for name in checked) for path in saying), saying
    assert all(any(path.startswith(f"{name}/") for path in saying) for name in checked), "no longer says a shape"


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(Exception, match="log_ratio_b"):
        IPO(beta=1.0)(torch.zeros(2), torch.zeros(3), torch.zeros(2))
