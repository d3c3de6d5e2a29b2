"""Aspect ratios: prompts of several picture sizes in one run, sampled, compared, trained; and pictures that exist already."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.models.custom import CustomPolicy
from d3po.run.feedback.measured import compare_round
from d3po.run.folder import RunFolder, create_run
from d3po.run.opened import open_run
from d3po.run.sample.buckets import bucket_of, cut_into_shards, nearest_bucket
from d3po.run.sample.phase import is_sampled, sample_round
from d3po.run.session import Session
from d3po.run.train.dataset import load_round
from d3po.run.train.phase import train_round
from d3po.run.train.reference import References
from d3po.training.data import chunk_groups
from tests.e2e.conftest import HELD_OUT, PROMPTS, SETTINGS, d3po
from tests.precision import BOUND, IN_FLOAT64, assert_same
from tests.tiny import parts, save_tiny

OF_ONE_AREA = {"sampling.buckets": "[[8, 8], [16, 4], [4, 16]]"}
OF_TWO_AREAS = {"sampling.buckets": "[[8, 8], [12, 8]]", "sampling.width": "8", "sampling.height": "8"}
SHORT = {"sampling.steps": "3", "sampling.prompts_per_round": "6", "training.epochs": "1", "training.prompts_per_update": "6"}

FAMILIES = {"stable-diffusion": OF_ONE_AREA, "sdxl": OF_ONE_AREA, "sd3": OF_ONE_AREA, "flux": OF_TWO_AREAS}
PARTS = {"flux": {"scheduler": parts.flow_scheduler(use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=6)}}
"""FLUX shifts its noise levels by the number of places in the picture, here within a range that tells such small ones apart."""


def configured(settings: dict[str, str], model: str = "emoji") -> RunConfig:
    return override(RunConfig(model=model), SETTINGS | SHORT | settings, where="test")


def sampled(family: str, directory: Path, settings: dict[str, str]) -> Session:
    """The first round of a family's tiny pipeline, sampled and compared."""
    config = configured(
        settings | IN_FLOAT64 | {"adapter.targets": "attention"}, str(save_tiny(family, directory / "model", **PARTS.get(family, {})))
    )
    folder = create_run(directory / "run", config, prompts=PROMPTS, held_out=HELD_OUT)
    session = Session(open_run(folder, config=config))
    folder.mark_started(config)
    sample_round(session, 0)
    compare_round(session.run, 0)
    return session


@pytest.mark.parametrize("family", FAMILIES)
def test_each_prompt_has_one_size_and_is_replayed_as_it_was_sampled(family: str, tmp_path: Path) -> None:
    session = sampled(family, tmp_path, FAMILIES[family])
    assert is_sampled(session.run, 0)
    sizes = {}
    for image in session.run.store.pictures.images(0):
        with Image.open(session.run.folder.path / image.path) as picture:
            sizes.setdefault(image.prompt, set()).add(picture.size)
    assert sizes == {prompt: {bucket_of(session.run.config, prompt)} for prompt in PROMPTS}
    assert len({size for (size,) in sizes.values()}) > 1

    groups, condition = load_round(session, 0, References(start=None, moving=None))
    steps = session.trainer.likelihood.choices((0, 1000))
    assert {group.latent_shape for group in groups} == set(session.replay.samplers)
    for chunk in chunk_groups(groups, micro_batch_size=64):
        ratios = session.trainer.likelihood.read(chunk, condition, steps, (0, 0, 0)).log_ratio
        assert_same(ratios, torch.zeros_like(ratios))
    train_round(session, 0)
    (line,) = session.run.folder.read_metrics()
    assert line["kl"] == pytest.approx(0, abs=BOUND)
    session.close()


def test_a_flow_model_is_replayed_at_the_noise_levels_of_the_pictures_size(tmp_path: Path) -> None:
    session = sampled("flux", tmp_path, OF_TWO_AREAS)
    small, large = (session.replay.at(session.policy.latent_shape_of(*size)) for size in session.run.config.sampling.buckets)
    assert torch.equal(small.grid.timesteps, session.replay.grid.timesteps)
    assert not torch.allclose(small.grid.timesteps, large.grid.timesteps, atol=10)
    assert session.replay.at((1, 2, 3)) is session.replay
    session.close()


def test_the_size_condition_of_sdxl_is_that_of_the_picture(tmp_path: Path) -> None:
    session = sampled("sdxl", tmp_path, OF_ONE_AREA)
    seen: list[list[float]] = []
    session.policy.network.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["added_cond_kwargs"]["time_ids"][0].tolist()), with_kwargs=True
    )
    condition = session.policy.encode_prompts(["a cat"])
    for width, height in session.run.config.sampling.buckets:
        x = torch.zeros(1, *session.policy.latent_shape_of(width, height))
        session.policy.predict(x, torch.tensor([1]), condition, 1.0)
    assert seen == [[8, 8, 0, 0, 8, 8], [4, 16, 0, 0, 4, 16], [16, 4, 0, 0, 16, 4]]
    session.close()


def test_shards_hold_one_size_each_and_are_the_same_whatever_else_is_in_the_round() -> None:
    config = configured(OF_ONE_AREA | {"sampling.prompts_per_shard": "2"})
    shards = cut_into_shards(config, PROMPTS)
    assert sorted(prompt for shard in shards for prompt in shard) == sorted(PROMPTS)
    assert all(len(shard) <= 2 and len({bucket_of(config, prompt) for prompt in shard}) == 1 for shard in shards)
    without = configured({"sampling.prompts_per_shard": "4"})
    assert cut_into_shards(without, PROMPTS) == [PROMPTS[:4], PROMPTS[4:]]


def test_the_nearest_aspect_ratio_is_taken() -> None:
    config = configured({"sampling.buckets": "[[64, 64], [96, 48], [48, 96]]"})
    for sizes, nearest in (([(100, 90)], (64, 64)), ([(300, 100)], (96, 48)), ([(10, 30)], (48, 96)), ([(300, 100), (100, 300)], (64, 64))):
        assert nearest_bucket(config, sizes) == nearest


def test_pictures_that_exist_already_are_cut_to_the_nearest_aspect_ratio(make_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    lines = []
    for prompt, size in (("a cat", (32, 10)), ("a dog", (10, 32)), ("a cow", (20, 21))):
        for name, level in (("chosen", 200), ("rejected", 30)):
            Image.new("RGB", size, (level, level, level)).save(tmp_path / f"{prompt} {name}.png")
        lines.append({"prompt": prompt} | {name: str(tmp_path / f"{prompt} {name}.png") for name in ("chosen", "rejected")})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = make_run(
        settings=SHORT
        | OF_ONE_AREA
        | {"rounds": "1", "objective.name": "diffusion_dpo", "feedback.source": "imported", "objective.reference": "fixed"}
    )
    assert d3po("votes", "import", run.path, tmp_path / "pairs.jsonl", "--format", "jsonl_pairs").returncode == 0
    done = d3po("run", run.path)
    assert done.returncode == 0, done.stderr
    shapes = {tuple(load_file(path)["latents"].shape[3:]) for path in (run.path / "encoded").glob("*.safetensors")}
    assert shapes == {(2, 8), (8, 2), (4, 4)}


def test_sizes_of_very_different_areas_are_refused() -> None:
    with pytest.raises(ConfigError, match="areas from 64 to 128 pixels"):
        configured({"sampling.buckets": "[[8, 8], [16, 8]]"})


def test_a_network_of_ones_own_has_one_shape() -> None:
    class Own(torch.nn.Linear):
        sample_shape = (2,)

    with pytest.raises(ConfigError, match="samples of one shape"):
        CustomPolicy(Own(2, 2), lora=None, seed=0).latent_shape_of(8, 8)
