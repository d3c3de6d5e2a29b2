"""A network divided among processes: as one process computes, and each holding its share."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Generator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.distributed.tensor import DTensor

from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.models.base import AbstractPolicy, PolicySettings
from d3po.models.load import load_policy
from d3po.models.pipeline import PipelinePolicy
from d3po.models.zero3 import zero3_settings
from d3po.options import Dividing, Weights
from d3po.run.folder import RunFolder
from d3po.run.opened import open_run
from d3po.run.session import Session
from tests.e2e.conftest import d3po, environment
from tests.e2e.test_processes import SETTINGS, alone, weights
from tests.precision import IN_FLOAT64, assert_all_same, assert_rounded_alike, assert_same
from tests.tiny import TINY, save_tiny

SHORT = SETTINGS | {"rounds": "1", "training.epochs": "2", "sampling.prompts_per_round": "2", "sampling.prompts_per_shard": "2"}
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
"""`torchrun`, as docs/several-processes.md calls it."""
DIVIDED = {"hardware.divide": "fsdp"}
WAYS = ["fsdp", pytest.param("zero3", marks=pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs d3po[deepspeed]"))]


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Generator[None, None, None]:
    """A group of one process. DeepSpeed knows only the first that it met, so all tests of this file have the same."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path_factory.mktemp('group') / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def one_process_group(process_group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a launcher tells a process that it is the only one."""
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)


def small_policy(family: str, directory: Path, divide: Dividing, weights: Weights = "float64") -> AbstractPolicy:
    picture, mask = directory / "picture.png", directory / "mask.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    Image.linear_gradient("L").resize((8, 8)).save(mask)
    sizes = PolicySettings(weights=weights, width=8, height=8, divide=divide, inpaint_image=str(picture), inpaint_mask=str(mask))
    policy = load_policy(
        str(save_tiny(family, directory / family)), lora={"rank": 2, "alpha": 2.0, "targets": "attention"}, seed=0, settings=sizes
    )
    for number, weight in enumerate(policy.trainable().values()):  # a fresh adapter changes nothing
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)).to(weight) / 10
    return policy


def is_divided(weight: torch.nn.Parameter) -> bool:
    return isinstance(weight, DTensor) or hasattr(weight, "ds_id")


def predictions(policy: AbstractPolicy) -> list[torch.Tensor]:
    """With the adapter and without, and the adapter's gradient."""
    condition = policy.encode_prompts(["a cat", "a dog", "a pig"])
    x = torch.randn(3, *policy.latent_shape, generator=torch.Generator().manual_seed(1)).double()
    timesteps = torch.tensor([1, 500, 900])
    adapted = policy.predict(x, timesteps, condition, 3.0)
    with torch.no_grad(), policy.without_adapter():
        plain = policy.predict(x, timesteps, condition, 3.0)
    return [adapted.detach(), plain, *torch.autograd.grad(adapted.square().sum(), list(policy.trainable().values()), allow_unused=False)]


@pytest.mark.usefixtures("one_process_group")
@pytest.mark.parametrize("divide", WAYS)
@pytest.mark.parametrize("family", TINY)
def test_a_divided_network_predicts_and_learns_as_a_whole_one(family: str, divide: Dividing, tmp_path: Path) -> None:
    """DeepSpeed takes no float64."""
    exact = predictions(small_policy(family, tmp_path, divide))
    policy = small_policy(family, tmp_path, divide, "float32" if divide == "zero3" else "float64")
    whole = predictions(policy)
    policy.divide(torch.device("cpu"))
    frozen = [weight for weight in policy.network.parameters() if not weight.requires_grad]
    assert frozen
    assert all(is_divided(weight) for weight in frozen)
    assert not any(is_divided(weight) for weight in policy.trainable().values())
    for mine, expected, truth in zip(predictions(policy), whole, exact, strict=True):
        if divide == "zero3":
            assert_rounded_alike(mine, expected, truth)
        else:
            assert_same(mine, expected)
    assert not torch.allclose(whole[0], whole[1], atol=1e-4)
    assert policy.divided is not None
    policy.divided.release()


@pytest.mark.usefixtures("one_process_group")
def test_a_process_that_lends_its_share_needs_no_part_but_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inpainting, whose network also sees an encoded picture, at a size that shows up later."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "image.png")
    Image.new("L", (8, 8), "white").save(tmp_path / "mask.png")
    settings = PolicySettings(weights="float64", inpaint_image=str(tmp_path / "image.png"), inpaint_mask=str(tmp_path / "mask.png"))
    folder = str(save_tiny("inpainting", tmp_path / "model"))
    first, other = (
        load_policy(folder, lora={"rank": 2, "alpha": 2.0, "targets": "attention"}, seed=0, settings=settings) for _ in range(2)
    )
    x, condition = torch.randn(2, 4, 4, 8, dtype=torch.float64), first.encode_prompts(["a cat", "a dog"])
    with torch.no_grad():
        whole = first.predict(x, torch.tensor([1, 900]), condition, 3.0)
        monkeypatch.setattr(dist, "get_rank", lambda: 1)
        other.divide(torch.device("cpu"))
        monkeypatch.undo()
        assert isinstance(other, PipelinePolicy)
        assert [name for name, part in other.pipeline.components.items() if isinstance(part, nn.Module)] == ["unet"]
        first.divided = other.divided
        assert_same(first.predict(x, torch.tensor([1, 900]), condition, 3.0), whole)


@pytest.mark.slow
@pytest.mark.parametrize("divide", WAYS)
def test_two_processes_with_half_a_network_each_train_what_one_does(make_run: Callable[..., RunFolder], divide: Dividing) -> None:
    """DeepSpeed takes no float64, and Adam makes steps of one size from gradients that rounding alone tells from 0; the whole way is the same."""
    precision = {} if divide == "zero3" else IN_FLOAT64
    one, two = make_run("one", SHORT | precision), make_run("two", SHORT | precision | {"hardware.divide": divide})
    words = [*LAUNCHER, "-m", "d3po", "run", two.path]
    result = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, env=environment())
    assert result.returncode == 0, result.stderr
    expected = alone(one)
    if divide != "zero3":
        return assert_all_same(weights(two), expected)
    start = {f"policy.{name}": value for name, value in Session(open_run(one)).policy.state().items()}
    apart, way = (math.hypot(*((a[name] - expected[name]).norm() for name in expected)) for a in (weights(two), start))
    assert apart < 0.02 * way


def test_a_run_in_one_process_is_not_divided(make_run: Callable[..., RunFolder]) -> None:
    run = make_run(settings=SHORT | DIVIDED)
    assert d3po("sample", run.path).returncode == 0


def test_what_cannot_be_divided_is_refused() -> None:
    for other in ({"hardware.compile": "true"}, {"adapter.method": "full", "objective.reference": "per_round"}):
        with pytest.raises(ConfigError, match=r"hardware.divide is 'fsdp', which shards the frozen weights"):
            override(RunConfig(), DIVIDED | other, where="test")


def test_a_file_of_deepspeeds_settings_wins_over_those_that_hold_least(tmp_path: Path) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(json.dumps({"zero_optimization": {"offload_param": {"device": "cpu"}}, "wall_clock_breakdown": False}))
    settings = zero3_settings(str(file), torch.bfloat16)
    zero = settings["zero_optimization"]
    assert zero["offload_param"] == {"device": "cpu"}
    assert (zero["stage"], zero["stage3_max_live_parameters"]) == (3, 0)
    assert settings["bf16"] == {"enabled": True}
    assert settings["wall_clock_breakdown"] is False


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "is not valid JSON"), ("[]", "holds no JSON object"), ('{"zero_optimization": {"stage": 2}}', "stage is 2, but only stage 3")],
)
def test_deepspeeds_settings_that_cannot_be_meant_are_refused(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        zero3_settings(str(file), torch.float32)
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        zero3_settings(str(tmp_path / "absent.json"), torch.float32)


def test_deepspeeds_settings_are_refused_where_nothing_reads_them() -> None:
    with pytest.raises(ConfigError, match=r"hardware\.deepspeed is zero\.json, but it is only read with hardware\.divide = 'zero3'"):
        override(RunConfig(), DIVIDED | {"hardware.deepspeed": "zero.json"}, where="test")


def test_the_example_of_deepspeeds_settings_is_one() -> None:
    zero = zero3_settings("examples/deepspeed-zero3.json", torch.bfloat16)["zero_optimization"]
    assert (zero["stage"], zero["offload_param"]["device"]) == (3, "cpu")
