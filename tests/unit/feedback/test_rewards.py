"""Measured rewards: values known by hand, names, and errors that say what to do."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3po.errors import RewardError
from d3po.feedback.rewards.registry import REWARDS, load_reward, score_file


def plain(colour: str | tuple[int, int, int], size: int = 16) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def noisy(seed: int = 0, size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def halves(left: str, right: str) -> Image.Image:
    image = plain(left)
    image.paste(plain(right, 8).resize((8, 16)), (8, 0))
    return image


def score(name: str, image: Image.Image) -> float:
    return load_reward(name)(image, "a prompt")


@pytest.mark.parametrize(("colour", "expected"), [("black", 0), ("white", 1), ("#ff0000", 0.299), ("#00ff00", 0.587), ("#0000ff", 0.114)])
def test_brightness_is_luma(colour: str, expected: float) -> None:
    assert score("brightness", plain(colour)) == pytest.approx(expected)


@pytest.mark.parametrize("colour", ["black", "white", "#777777"])
def test_grey_has_no_colour(colour: str) -> None:
    assert score("colourfulness", plain(colour)) == pytest.approx(0)


def test_colourfulness_of_plain_red_computed_by_hand() -> None:
    """Opponents red - green = 1 and (red + green) / 2 - blue = 1/2 do not spread; 0.3 times the length of their mean."""
    assert score("colourfulness", plain("#ff0000")) == pytest.approx(0.3 * math.hypot(1, 0.5))


def test_colourfulness_of_red_beside_green_computed_by_hand() -> None:
    """red - green is +-1, of spread 1 and mean 0; the other opponent is 1/2 everywhere."""
    assert score("colourfulness", halves("#ff0000", "#00ff00")) == pytest.approx(1 + 0.3 * 0.5)


def test_jpeg_rewards_are_sizes_of_opposite_sign() -> None:
    assert score("jpeg_incompressibility", noisy()) > score("jpeg_incompressibility", plain("white")) > 0
    assert score("jpeg_compressibility", noisy()) == -score("jpeg_incompressibility", noisy())


def test_jpeg_size_is_in_kilobytes(tmp_path: Path) -> None:
    image = noisy(size=64)
    image.save(tmp_path / "x.jpg", quality=95)
    assert score("jpeg_incompressibility", image) == (tmp_path / "x.jpg").stat().st_size / 1000


@pytest.mark.parametrize(("colour", "distance"), [("#ff0000", 0), ("#000000", 1), ("#00ff00", math.sqrt(2)), ("#00ffff", math.sqrt(3))])
def test_closeness_is_minus_the_distance_to_the_colour(colour: str, distance: float) -> None:
    assert score("closeness:#ff0000", plain(colour)) == pytest.approx(-distance)
    assert score("closeness:red", plain(colour)) == pytest.approx(-distance)


@pytest.mark.parametrize("name", [*REWARDS, "closeness:blue"])
def test_every_reward_gives_a_number_for_any_mode_of_picture(name: str) -> None:
    colour = noisy()
    for mode in ("RGB", "RGBA", "L", "P"):
        assert math.isfinite(score(name, colour.convert(mode)))


def test_picture_on_disk_scores_as_in_memory(tmp_path: Path) -> None:
    noisy().save(tmp_path / "x.png")
    assert score_file(load_reward("colourfulness"), tmp_path / "x.png", "") == score("colourfulness", noisy())


@pytest.mark.parametrize(("name", "nearest"), [("colorfulness", "colourfulness"), ("bright", "brightness"), ("jpeg", "jpeg")])
def test_unknown_reward_suggests_the_nearest_or_lists_all(name: str, nearest: str) -> None:
    with pytest.raises(RewardError, match=f"there is no reward '{name}'.*{nearest}"):
        load_reward(name)


@pytest.mark.parametrize("colour", ["", "#12", "no colour"])
def test_closeness_to_no_colour_is_refused_at_once(colour: str) -> None:
    with pytest.raises(RewardError, match="names no colour; write it as #rrggbb"):
        load_reward(f"closeness:{colour}")


@pytest.fixture
def own_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the folder where the command is run."""
    (tmp_path / "my_own_rewards.py").write_text(
        "def width(image, prompt): return image.width\n"
        "def letters(image, prompt): return len(prompt)\n"
        "def infinite(image, prompt): return float('inf')\n"
        "def text(image, prompt): return 'good'\n"
        "def broken(image, prompt): return {}['missing']\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    return "my_own_rewards"


def test_user_brings_a_reward_of_his_own(own_rewards: str) -> None:
    assert load_reward(f"{own_rewards}:width")(plain("red", 5), "") == 5.0
    assert load_reward(f"{own_rewards}:letters")(plain("red"), "four") == 4.0


@pytest.mark.parametrize(("function", "message"), [("infinite", "gave inf"), ("text", "ValueError"), ("broken", "KeyError: 'missing'")])
def test_reward_that_fails_is_named_with_its_prompt(own_rewards: str, function: str, message: str) -> None:
    with pytest.raises(RewardError, match=rf"{own_rewards}:{function} .*{message}") as caught:
        load_reward(f"{own_rewards}:{function}")(plain("red"), "a red picture")
    assert "'a red picture'" in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module:f", "math:no_such_function", ":f", ".relative:f", "math:"])
def test_reward_that_cannot_be_imported_says_where_to_run(name: str) -> None:
    with pytest.raises(RewardError, match=r"cannot be imported: .*; run from the folder"):
        load_reward(name)


def test_module_that_does_not_parse_is_an_import_that_failed(own_rewards: str, tmp_path: Path) -> None:
    (tmp_path / "my_broken_module.py").write_text("def (:\n")
    with pytest.raises(RewardError, match=r"my_broken_module:f cannot be imported: .*invalid syntax"):
        load_reward("my_broken_module:f")
