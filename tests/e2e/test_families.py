"""Every family: a whole run on a tiny pipeline of the real classes, and what plain diffusers makes of its export."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor

from d3po.artifacts.shards import Shard, writing_shard
from d3po.diffusion.rollout import rollout
from d3po.models.base import AbstractPolicy, SamplerSettings
from d3po.models.families import FAMILIES, family_of
from d3po.objectives.registry import OBJECTIVES
from d3po.recipes import load_recipe
from d3po.run.export.phase import export_result
from d3po.run.folder import RunFolder, create_run
from d3po.run.loop import run_rounds
from d3po.run.opened import open_run
from d3po.run.session import Session
from d3po.run.starting import numbered_starts, start
from d3po.training.data import PromptGroup
from d3po.training.likelihood import DenoisingLikelihood
from tests.e2e import plain
from tests.e2e.conftest import HELD_OUT, PROMPTS, SETTINGS
from tests.precision import BOUND, IN_FLOAT64, assert_same
from tests.tiny import TINY, save_tiny

SMALL = {
    "rounds": "1",
    "sampling.steps": "4",
    "sampling.prompts_per_round": "2",
    "sampling.images_per_prompt": "2",
    "sampling.guidance": "3.0",
    "adapter.targets": "attention",
    "adapter.rank": "2",
    "adapter.alpha": "4.0",
    "training.epochs": "1",
    "training.prompts_per_update": "1",
    "training.policy_ema": "0.0",
    "evaluation.prompts": "1",
} | IN_FLOAT64


@dataclass(frozen=True)
class Trained:
    """A family's run after one round, and then a second one in a process's second life."""

    family: str
    model: Path
    folder: RunFolder


@pytest.fixture(scope="module", params=TINY)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    AcceleratorState._reset_state(reset_partial_state=True)
    directory = tmp_path_factory.mktemp(request.param)
    model = save_tiny(request.param, directory / "model")
    begun = start(load_recipe("default"), SETTINGS | SMALL | {"model": str(model)} | of_family(request.param, directory))
    assert begun.family is not None
    prompts, held_out = (PROMPTS, HELD_OUT) if begun.has_prompts else numbered_starts(begun.config)
    folder = create_run(directory / "run", begun.config, prompts=prompts, held_out=held_out)
    run_rounds(opened(folder))
    folder.config_path.write_text(folder.config_path.read_text().replace("rounds = 1 ", "rounds = 2 "))
    run_rounds(opened(folder))
    return Trained(request.param, model, folder)


def of_family(family: str, directory: Path) -> dict[str, str]:
    """What a family's tiny pipeline needs to be told."""
    if family == "flux":
        return {"sampling.width": "8", "sampling.height": "8"}
    if family != "inpainting":
        return {}
    Image.new("RGB", (8, 8), (200, 30, 40)).save(directory / "image.png")
    mask = Image.new("L", (8, 8), 0)
    mask.paste(255, (0, 0, 4, 8))
    mask.save(directory / "mask.png")
    return {"sampling.inpaint_image": str(directory / "image.png"), "sampling.inpaint_mask": str(directory / "mask.png")}


def opened(folder: RunFolder) -> Session:
    return Session(open_run(folder))


def at_the_end(trained: Trained) -> AbstractPolicy:
    session = opened(trained.folder)
    session.load_round_weights(2)
    return session.policy


@torch.no_grad()
def our_picture(policy: AbstractPolicy) -> Tensor:
    """The picture that d3po's own sampler makes without noise between the steps."""
    sampler = policy.sampler(SamplerSettings(steps=plain.STEPS, eta=0.0, noise_level=0.0, spacing=plain.SPACING))
    condition = policy.encode_prompts([plain.PROMPT])
    *_, last = rollout(
        lambda x, t: policy.predict(x, t, condition, plain.GUIDANCE), sampler.transition, sampler.grid, plain.start(policy),
        lambda shape: torch.zeros(1, *shape), reduce="mean", stored=torch.float64,
    )  # fmt: skip
    return policy.decode(last.latents)


def bound(trained: Trained) -> float:
    return plain.ROUNDED if trained.family in ("sd3", "flux") else BOUND


def test_its_model_is_recognised(trained: Trained) -> None:
    assert family_of(str(trained.model)).name == trained.family


def test_a_run_goes_on_where_an_earlier_process_left_it(trained: Trained) -> None:
    assert opened(trained.folder).run.trained_rounds() == 2
    metrics = trained.folder.read_metrics()
    assert [m["round"] for m in metrics] == [0, 0, 1, 1]
    assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=BOUND)
    assert metrics[1]["kl"] > 0


def test_plain_diffusers_makes_the_same_picture_with_the_exported_lora(trained: Trained, tmp_path: Path) -> None:
    ours = our_picture(at_the_end(trained))
    base = plain.plain_picture(trained.family, plain.quiet(plain.load(trained.model)), at_the_end(trained))
    lora, *_, merged, _ = export_result(opened(trained.folder), tmp_path)
    tuned = plain.plain_picture(trained.family, plain.reloaded(trained.family, trained.model, lora), at_the_end(trained))
    kohya = lora.parent.parent / "lora-kohya.safetensors"
    if kohya.exists() and trained.family != "flux":  # whose single blocks diffusers reads in their published width alone; see test_kohya.py
        other = plain.plain_picture(trained.family, plain.reloaded(trained.family, trained.model, kohya), at_the_end(trained))
        assert_same(other, ours, bound=bound(trained))
    assert kohya.exists() == (trained.family in ("stable-diffusion", "sdxl", "inpainting", "flux"))
    baked = plain.plain_picture(trained.family, plain.quiet(plain.load(merged)), at_the_end(trained))
    assert float((ours - base).abs().max()) > 1e-4
    assert_same(tuned, ours, bound=bound(trained))
    assert_same(baked, ours, bound=bound(trained))


def test_without_its_adapter_the_policy_is_the_base_model(trained: Trained) -> None:
    policy = at_the_end(trained)
    base = plain.plain_picture(trained.family, plain.quiet(plain.load(trained.model)), policy)
    with policy.without_adapter():
        assert_same(our_picture(policy), base, bound=bound(trained))


def test_every_family_but_custom_has_a_tiny_pipeline() -> None:
    assert {family.name for family in FAMILIES} == {*TINY, "custom"}


def test_pictures_alone_can_be_trained_on(trained: Trained, tmp_path: Path) -> None:
    session = opened(trained.folder)
    policy = session.policy
    size = policy.picture_size()
    assert size == tuple(policy.decode(torch.zeros(1, *policy.latent_shape)).shape[2:])
    latents = policy.encode(torch.rand(2, 3, *size))
    assert tuple(latents.shape) == (2, *policy.latent_shape)
    with writing_shard(tmp_path / "pictures", num_steps=0, batch=2, latent_shape=policy.latent_shape, dtype="float64") as writer:
        writer.append(latents)
        writer.finish()
    nothing = torch.zeros(0)
    group = PromptGroup(
        prompt=0, identity="a", shard=Shard(path=tmp_path / "pictures"), indices=torch.arange(2), pairs=torch.zeros(0, 2, dtype=torch.long),
        targets=nothing, weights=nothing, reference=None,
    )  # fmt: skip
    reader = DenoisingLikelihood(policy, session.replay, OBJECTIVES["flow_dpo"].needs)
    evidence = reader.read([group], policy.encode_prompts(["a cat"]), torch.tensor([250, 750]), (0, 0, 0))
    (evidence.log_ratio[:, 0] - evidence.log_ratio[:, 1]).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in policy.trainable().values())
    session.close()
