"""Judges with two towers: read from a folder, and their numbers against the cosine worked out from transformers' own."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from d3po.scorers.learned.similarity import TwoTowers, clip_score, hpsv2, pickscore
from d3po.scorers.registry import load_reward
from tests.precision import BOUND
from tests.tiny.judges import save_clip

PICTURE = Image.linear_gradient("L").resize((20, 12)).convert("RGB")
PROMPT = "a cat"


@pytest.fixture(autouse=True)
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    load = CLIPModel.from_pretrained
    monkeypatch.setattr(CLIPModel, "from_pretrained", lambda *where, **options: load(*where, **options).double())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"), logit_scale=math.log(20))


def cosine(folder: Path, prompt: str = PROMPT, picture: Image.Image = PICTURE) -> float:
    """transformers' own logits without their scale."""
    model = CLIPModel.from_pretrained(folder)
    processor: Any = CLIPProcessor.from_pretrained(folder)
    inputs = processor(text=prompt, images=picture, return_tensors="pt")
    with torch.no_grad():
        return float(model(**inputs).logits_per_image / model.logit_scale.exp())


class Fixed(TwoTowers):
    """Towers that see what they are told."""

    def __init__(self, value: float) -> None:
        self.value = value

    @property
    def scale(self) -> float:
        return 50.0

    def cosine(self, image: Image.Image, prompt: str) -> float:
        return self.value


@pytest.mark.parametrize(("value", "clip", "pick", "hps"), [(0.3, 30, 15, 30), (0, 0, 0, 0), (-0.2, 0, -10, -20), (1, 100, 50, 100)])
def test_scores_of_known_cosines(value: float, clip: float, pick: float, hps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3po.scorers.learned.similarity.TwoTowers", lambda model, processor, whole=False: Fixed(value))
    assert clip_score()(PICTURE, PROMPT) == pytest.approx(clip)
    assert pickscore()(PICTURE, PROMPT) == pytest.approx(pick)
    assert hpsv2()(PICTURE, PROMPT) == pytest.approx(hps)


def test_the_cosine_is_transformers_own(folder: Path) -> None:
    towers = TwoTowers(str(folder), str(folder))
    assert towers.scale == pytest.approx(20, rel=1e-5)
    for prompt in (PROMPT, "a dog"):
        assert towers.cosine(PICTURE, prompt) == pytest.approx(cosine(folder, prompt), abs=BOUND)


def test_judges_are_read_from_a_folder_by_name(folder: Path) -> None:
    value = cosine(folder)
    assert load_reward(f"pickscore:{folder}", print)(PICTURE, PROMPT) == pytest.approx(20 * value, rel=1e-6)  # 20 is e to a float32
    assert load_reward(f"clip_score:{folder}", print)(PICTURE, PROMPT) == pytest.approx(max(100 * value, 0), abs=100 * BOUND)
    mixed = load_reward(f"weighted:2*pickscore:{folder}+1*brightness", print)(PICTURE, PROMPT)
    assert mixed == pytest.approx(40 * value + load_reward("brightness", print)(PICTURE, PROMPT), rel=1e-6)


@pytest.mark.parametrize(("size", "shown", "corner"), [((40, 20), (8, 4), (0, 2)), ((12, 20), (5, 8), (1, 0)), ((9, 9), (8, 8), (0, 0))])
def test_hpsv2_sees_the_whole_picture_between_black_bars(
    size: tuple[int, int], shown: tuple[int, int], corner: tuple[int, int], folder: Path
) -> None:
    """The model looks at 8 x 8 pixels: 40 x 20 becomes 8 x 4 with two rows of black above and below; 12 x 20 becomes 5 x 8, one column left, two right."""
    picture = Image.linear_gradient("L").rotate(90).resize(size).convert("RGB")
    square = Image.new("RGB", (8, 8), "black")
    square.paste(picture.resize(shown, Image.Resampling.BICUBIC), corner)
    assert load_reward(f"hpsv2:{folder}", print)(picture, PROMPT) == pytest.approx(100 * cosine(folder, picture=square), abs=100 * BOUND)


def test_a_long_prompt_is_cut_and_a_picture_of_any_mode_is_read(folder: Path) -> None:
    towers = TwoTowers(str(folder), str(folder))
    assert math.isfinite(towers.cosine(PICTURE.convert("RGBA"), "a very long prompt " * 20))
    assert towers.cosine(PICTURE.convert("L"), PROMPT) == pytest.approx(towers.cosine(PICTURE, PROMPT), abs=BOUND)
