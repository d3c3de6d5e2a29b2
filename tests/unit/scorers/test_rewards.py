"""Measured rewards: values known by hand, names, and errors that say what to do."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3po.errors import RewardError
from d3po.scorers.catalogue import SCORERS, Reward
from d3po.scorers.registry import annotator_kind, load_criteria, load_reward, score_file

MEASURED = [*(name for name, entry in SCORERS.items() if entry.kind == "rule" and not (entry.extra or entry.argument)), "closeness:blue"]


def plain(colour: str | tuple[int, int, int], size: int = 16) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def noisy(seed: int = 0, size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def halves(left: str, right: str) -> Image.Image:
    image = plain(left)
    image.paste(plain(right, 8).resize((8, 16)), (8, 0))
    return image


def loaded(name: str) -> Reward:
    return load_reward(name, say=print)


def score(name: str, image: Image.Image) -> float:
    return loaded(name)(image, "a prompt")


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


@pytest.mark.parametrize("name", MEASURED)
def test_every_reward_gives_a_number_for_any_mode_of_picture(name: str) -> None:
    colour = noisy()
    for mode in ("RGB", "RGBA", "L", "P"):
        assert math.isfinite(score(name, colour.convert(mode)))


def test_picture_on_disk_scores_as_in_memory(tmp_path: Path) -> None:
    noisy().save(tmp_path / "x.png")
    assert score_file(load_criteria("pareto:colourfulness+warmth", print), tmp_path / "x.png", "") == (
        score("colourfulness", noisy()),
        score("warmth", noisy()),
    )


@pytest.mark.parametrize(
    ("name", "nearest"), [("colorfulness", "colourfulness"), ("bright", "brightness"), ("jpeg", "`d3po scorers` lists them")]
)
def test_unknown_reward_suggests_the_nearest_or_lists_all(name: str, nearest: str) -> None:
    with pytest.raises(RewardError, match=f"there is no reward '{name}'.*{nearest}"):
        loaded(name)


@pytest.mark.parametrize("colour", ["", "#12", "no colour"])
def test_closeness_to_no_colour_is_refused_at_once(colour: str) -> None:
    with pytest.raises(RewardError, match="names no colour; write it as #rrggbb"):
        loaded(f"closeness:{colour}")


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
    assert loaded(f"{own_rewards}:width")(plain("red", 5), "") == 5.0
    assert loaded(f"{own_rewards}:letters")(plain("red"), "four") == 4.0


@pytest.mark.parametrize(("function", "message"), [("infinite", "gave inf"), ("text", "ValueError"), ("broken", "KeyError: 'missing'")])
def test_reward_that_fails_is_named_with_its_prompt(own_rewards: str, function: str, message: str) -> None:
    with pytest.raises(RewardError, match=rf"{own_rewards}:{function} .*{message}") as caught:
        loaded(f"{own_rewards}:{function}")(plain("red"), "a red picture")
    assert "'a red picture'" in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module:f", "math:no_such_function", ":f", ".relative:f", "math:"])
def test_reward_that_cannot_be_imported_says_where_to_run(name: str) -> None:
    with pytest.raises(RewardError, match=r"cannot be imported: .*; run from the folder"):
        loaded(name)


def test_module_that_does_not_parse_is_an_import_that_failed(own_rewards: str, tmp_path: Path) -> None:
    (tmp_path / "my_broken_module.py").write_text("def (:\n")
    with pytest.raises(RewardError, match=r"my_broken_module:f cannot be imported: .*invalid syntax"):
        loaded("my_broken_module:f")


def test_a_weighted_sum_computed_by_hand() -> None:
    """Plain red: luma 0.299, warmth 1, and 0 from itself."""
    assert score("weighted:2*brightness+0.5*warmth", plain("red")) == pytest.approx(2 * 0.299 + 0.5)
    assert score("weighted:2*brightness+-.5*warmth+1*closeness:#ff0000", plain("red")) == pytest.approx(2 * 0.299 - 0.5)


def test_a_folder_with_a_plus_in_its_name_is_no_sum(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"scorer clip_score cannot be loaded: .*a\+b"):
        loaded(f"weighted:1*clip_score:{tmp_path}/a+b+1*warmth")


@pytest.mark.parametrize(
    "name", ["weighted:", "weighted:warmth", "weighted:0.5*warmth+brightness*2", "weighted:0.5warmth", "weighted:x*warmth"]
)
def test_a_sum_that_cannot_be_read_shows_how_it_is_written(name: str) -> None:
    with pytest.raises(RewardError, match=r"weighted:0\.7\*pickscore\+3\*warmth|there is no reward"):
        loaded(name)


def test_pareto_has_a_value_a_criterion(tmp_path: Path) -> None:
    noisy().save(tmp_path / "x.png")
    assert len(load_criteria("warmth", print)) == 1
    assert len(load_criteria("pareto:warmth + brightness + closeness:red", print)) == 3
    with pytest.raises(RewardError, match="has one criterion; name two or more"):
        load_criteria("pareto:warmth", print)
    with pytest.raises(RewardError, match="there is no reward 'pareto:warmth'"):
        load_criteria("weighted:1*pareto:warmth", print)


def test_a_learnt_judge_makes_the_annotator_a_model() -> None:
    assert annotator_kind("warmth") == annotator_kind("mymodule:myfunction") == annotator_kind("pareto:warmth+brisque") == "rule"
    assert (
        annotator_kind("weighted:0.7*pickscore+3*warmth") == annotator_kind("pareto:warmth+safe") == annotator_kind("clip_score") == "model"
    )


@pytest.mark.parametrize("name", ["warmth:1", "safe:/a/file"])
def test_an_argument_for_a_judge_without_one_is_refused(name: str) -> None:
    with pytest.raises(RewardError, match="takes none"):
        loaded(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys\nsys.exit(0)\n", r"mine:f cannot be imported: SystemExit: 0; run from the folder"),
        ("import sys\ndef f(image, prompt): sys.exit(0)\n", r"mine:f failed on an image of 'a cat': SystemExit: 0"),
        ("def f(image, prompt): raise SystemExit\n", r"mine:f failed on an image of 'a cat': SystemExit"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["mine:f", "weighted:1*mine:f"])
def test_a_reward_that_ends_the_process_is_an_error(
    tmp_path: Path, text: str, words: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(RewardError, match=words):
        loaded(name)(plain("red"), "a cat")
