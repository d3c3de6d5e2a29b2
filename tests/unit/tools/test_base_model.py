"""The embedded model's recipe, whole, on drawings of two subjects and for two updates a network."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3po.models.base import Embeddings, PolicySettings
from d3po.models.load import load_policy
from d3po.scorers.learned.classifier import PictureClassifier
from tools.base_model import autoencoder, classifier, denoiser, drawings, flow, prompts, publish
from tools.base_model.__main__ import STAGES, carry_out

SQUARE = '<rect x="{}" y="2" width="6" height="12" fill="{}"/>'


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with vendors' sets of four icons: two that captions name, a second view of one, and two other things."""
    subjects = {"star": {"": ("star", "2b50")}, "cat": {"": ("cat", "1f408"), "face": ("cat-face", "1f431")}}
    monkeypatch.setattr(drawings, "SUBJECTS", subjects)
    monkeypatch.setattr(classifier, "LABELS", {"subjects": list(subjects), "styles": list(drawings.STYLES)})
    monkeypatch.setattr(classifier, "HELD_OUT_SUBJECTS", ("star",))
    monkeypatch.setattr(prompts, "HELD_OUT", ("star",))
    for module, name, small in (
        (autoencoder, "STEPS", 2), (autoencoder, "BATCH", 4), (autoencoder, "OTHERS", 2), (autoencoder, "MEASURED", 8),
        (denoiser, "STEPS", 2), (denoiser, "BATCH", 4), (denoiser, "POSES", 8), (classifier, "STEPS", 2), (classifier, "BATCH", 4),
        (classifier, "POSES", 1), (publish, "PER_SUBJECT", 2), (publish, "SHOWN", 4), (publish, "STEPS", 2), (flow, "STEPS", 2), (flow, "BATCH", 4),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, small)
    colours = {"star": "#ffcc00", "cat": "#333", "cat-face": "#777", "anchor": "#00f", "bell": "#f80"}
    for package in drawings.STYLES.values():
        folder = tmp_path / "node_modules" / package
        folder.mkdir(parents=True)
        icons = {name: {"body": SQUARE.format(i, colour)} for i, (name, colour) in enumerate(colours.items())}
        (folder / "icons.json").write_text(json.dumps({"icons": icons, "width": 16, "height": 16}))
        (folder / "assets").mkdir()
        for views in subjects.values():
            for _, code in views.values():
                Image.new("RGBA", (20, 20), (200, 30, 30, 255)).save(folder / "assets" / f"{code}.webp")
    return tmp_path


def test_the_recipe_runs_from_icons_to_a_published_model(work: Path) -> None:
    target = work / "published"
    for stage in STAGES:
        carry_out(stage, work, target, "cpu")
    written = {path.name for path in target.iterdir()}
    assert {"model_index.json", "subjects.safetensors", "styles.safetensors", "measured.json", "samples.png"} <= written
    assert (target / "prompts.txt").read_text().splitlines()[:3] == ["a cat", "a soft cat", "a retro cat"]
    assert (target / "held_out.txt").read_text() == "a star\na soft star\na retro star\n"
    measured = json.loads((target / "measured.json").read_text())
    assert set(measured["samples_subject"]) == {"star", "cat"}
    assert set(measured["reconstruction_decibels"]) == {"captioned drawings", "drawings never seen"}
    assert_samples_as_a_run(target.with_name("published-flow"))
    before = (work / "autoencoder" / "checkpoint.safetensors").read_bytes()
    carry_out("autoencoder", work, target, "cpu")
    assert (work / "autoencoder" / "checkpoint.safetensors").read_bytes() == before  # what is done is not done again


def assert_samples_as_a_run(folder: Path) -> None:
    """The flow sibling is a Stable Diffusion 3 for d3po too: its policy predicts what the plain pipeline's transformer does."""
    policy = load_policy(str(folder), lora=None, seed=0, settings=PolicySettings(max_sequence_length=flow.NO_T5))
    condition = policy.encode_prompts(["a star"])
    assert isinstance(condition, Embeddings)
    assert condition.given["text"].shape == (1, denoiser.TOKENS + flow.NO_T5, 2 * flow.TEXT)
    noise = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    model: Any = policy.network
    with torch.no_grad():
        mine = policy.predict(noise, torch.tensor([400.0]), condition, 1.0)
        given = {"encoder_hidden_states": condition.given["text"], "pooled_projections": condition.given["pooled"]}
        plain = model(hidden_states=noise, timestep=torch.tensor([400.0]), **given)
    assert torch.equal(mine, plain.sample)


def test_held_out_prompts_name_subjects_that_no_training_prompt_names() -> None:
    trained, held_out = prompts.prompts()
    assert set(prompts.HELD_OUT) <= drawings.SUBJECTS.keys()
    reader = PictureClassifier(list(drawings.SUBJECTS))
    named = [{reader.label_in(prompt) for prompt in each} for each in (trained, held_out)]
    assert named[1] == set(prompts.HELD_OUT)
    assert named[0] == drawings.SUBJECTS.keys() - named[1]
    assert len({*trained, *held_out}) == len(trained) + len(held_out)
    assert {*" ".join([*trained, *held_out]).split()} <= set(drawings.vocabulary())


def test_captions_say_what_was_drawn() -> None:
    assert drawings.caption(0, 0, None, None, 0, 0, 0) == "a panda"
    cat = list(drawings.SUBJECTS).index("cat")
    said = drawings.caption(cat, 1, 4, 3, 1, 1, 2)
    assert said == "a small glossy cat face tilted left at the bottom on an orange background"
    assert set(said.split()) <= set(drawings.vocabulary())


@pytest.mark.parametrize(
    ("share", "angle", "shift", "flip", "seen"),
    [
        (0.5, 0.0, (0.0, 0.0), 1.0, (0.375, 0.0)),
        (0.5, 0.0, (0.5, -0.25), 1.0, (0.875, -0.25)),
        (0.5, math.pi / 2, (0.0, 0.0), 1.0, (0.0, -0.375)),
        (0.5, math.pi / 2, (0.0, 0.0), -1.0, (0.0, 0.375)),
        (1.0, 0.0, (0.0, 0.0), -1.0, (-0.75, 0.0)),
    ],
)
def test_poses_scale_turn_counter_clockwise_and_move(
    share: float, angle: float, shift: tuple[float, float], flip: float, seen: tuple[float, float]
) -> None:
    """Of a dot three quarters of the way from the middle to the right edge; units are half a picture, y points down."""
    pixels = torch.zeros(1, 4, 128, 128, dtype=torch.uint8)
    pixels[..., 60:68, 108:116] = 255  # the middle of pixels 108 to 115 is (112 - 64) / 64 = 0.75
    one = {"share": torch.tensor([share]), "angle": torch.tensor([angle]), "shift": torch.tensor([shift]), "flip": torch.tensor([flip])}
    alpha = drawings.posed(pixels, **one)[0, 3].double()
    where = (torch.arange(64, dtype=torch.float64) - 31.5) / 32
    centre = (float((alpha.sum(0) * where).sum() / alpha.sum()), float((alpha.sum(1) * where).sum() / alpha.sum()))
    assert centre == pytest.approx(seen, abs=1 / 64)  # within half a pixel of the picture


def test_backgrounds_are_read_off_the_rim() -> None:
    pictures = torch.stack([torch.tensor(colour).view(3, 1, 1).expand(3, 64, 64) / 255 for colour in drawings.BACKGROUNDS.values()]).clone()
    pictures[:, :, 8:56, 8:56] = 0.5
    assert publish.background_of(pictures).tolist() == list(range(len(drawings.BACKGROUNDS)))
