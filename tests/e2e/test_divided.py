"""A network divided among processes: as one process computes, and each holding its share."""

import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch.distributed.tensor import DTensor

from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.load import load_policy
from d3po.run.folder import RunFolder
from tests.e2e.conftest import d3po, environment
from tests.e2e.test_processes import SETTINGS, alone, weights
from tests.tiny import TINY, save_tiny

SHORT = SETTINGS | {"rounds": "1", "training.epochs": "2", "sampling.prompts_per_round": "2", "sampling.prompts_per_shard": "2"}
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
"""`torchrun`, as docs/several-processes.md calls it."""
DIVIDED = {"hardware.divide": "true"}


@pytest.fixture
def one_process_group(tmp_path: Path) -> Generator[None, None, None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def small_policy(family: str, directory: Path) -> AbstractPolicy:
    picture, mask = directory / "picture.png", directory / "mask.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    Image.linear_gradient("L").resize((8, 8)).save(mask)
    sizes = PolicySettings(width=8, height=8, inpaint_image=str(picture), inpaint_mask=str(mask))
    policy = load_policy(
        str(save_tiny(family, directory / family)), lora={"rank": 2, "alpha": 2.0, "targets": "attention"}, seed=0, settings=sizes
    )
    for number, weight in enumerate(policy.trainable().values()):  # a fresh adapter changes nothing
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) / 10
    return policy


def predictions(policy: AbstractPolicy) -> list[torch.Tensor]:
    """With the adapter and without, and the adapter's gradient."""
    condition = policy.encode_prompts(["a cat", "a dog", "a pig"])
    x = torch.randn(3, *policy.latent_shape, generator=torch.Generator().manual_seed(1))
    timesteps = torch.tensor([1, 500, 900])
    adapted = policy.predict(x, timesteps, condition, 3.0)
    with torch.no_grad(), policy.without_adapter():
        plain = policy.predict(x, timesteps, condition, 3.0)
    return [adapted.detach(), plain, *torch.autograd.grad(adapted.square().sum(), list(policy.trainable().values()), allow_unused=False)]


@pytest.mark.usefixtures("one_process_group")
@pytest.mark.parametrize("family", TINY)
def test_a_divided_network_predicts_and_learns_as_a_whole_one(family: str, tmp_path: Path) -> None:
    policy = small_policy(family, tmp_path)
    whole = predictions(policy)
    policy.divide(torch.device("cpu"))
    frozen = [weight for weight in policy.network.parameters() if not weight.requires_grad]
    assert frozen
    assert all(isinstance(weight, DTensor) for weight in frozen)
    assert not any(isinstance(weight, DTensor) for weight in policy.trainable().values())
    for mine, expected in zip(predictions(policy), whole, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole[0], whole[1], atol=1e-4)
    policy.release()


@pytest.mark.slow
def test_two_processes_with_half_a_network_each_train_what_one_does(make_run: Callable[..., RunFolder]) -> None:
    one, two = make_run("one", SHORT), make_run("two", SHORT | DIVIDED)
    words = [*LAUNCHER, "-m", "d3po", "run", two.path]
    result = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=environment())
    assert result.returncode == 0, result.stderr
    expected = alone(one)
    for name, value in weights(two).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)


def test_a_run_in_one_process_is_not_divided(make_run: Callable[..., RunFolder]) -> None:
    run = make_run(settings=SHORT | DIVIDED)
    assert d3po("sample", run.path).returncode == 0


def test_what_cannot_be_divided_is_refused() -> None:
    for other in ({"hardware.compile": "true"}, {"adapter.method": "full", "objective.reference": "per_round"}):
        with pytest.raises(ConfigError, match=r"hardware.divide is true, which divides frozen weights"):
            override(RunConfig(), DIVIDED | other, where="test")
