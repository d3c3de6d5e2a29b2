"""Simulated people: what they like, how they answer, what is counted; and the smallest run of the benchmark."""

import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks import label_efficiency
from benchmarks.label_efficiency import NOISY, Cell, Person, Point, clicks_of, table, temperature_for, until_reached
from benchmarks.tastes import GROUPS, TASTES, TUNED_ON, agreement
from d3po.options import QuestionKind
from d3po.preferences.records import Answer, NewQuestion
from tests.tiny import save_tiny_pipeline

WHITE = "#ffffff"
BOX = (10, 10, 21, 21)


def picture(colour: str = "#3060c0", box: tuple[int, int, int, int] = BOX, background: str = WHITE) -> Image.Image:
    image = Image.new("RGB", (32, 32), background)
    ImageDraw.Draw(image).rectangle(box, fill=colour)
    return image


def slanted(towards: int) -> Image.Image:
    image = Image.new("RGB", (32, 32), WHITE)
    ImageDraw.Draw(image).line((6, 25, 25, 6) if towards > 0 else (6, 6, 25, 25), fill="black", width=5)
    return image


def crossed() -> Image.Image:
    """As much of the picture as the box, with a longer outline."""
    image = Image.new("RGB", (32, 32), WHITE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((4, 14, 27, 16), fill="#3060c0")
    draw.rectangle((14, 4, 16, 27), fill="#3060c0")
    return image


def two_coloured() -> Image.Image:
    image = picture()
    image.paste("#c06030", (10, 10, 22, 16))
    return image


LIKED_AND_NOT = {
    "warm_subject": (picture("#e02020"), picture("#2020e0")),
    "dark_background": (picture("white", background="#202020"), picture("white", background="#808080")),
    "contrast": (picture("black"), picture("#c0c0c0")),
    "crispness": (picture("black"), picture("black").resize((8, 8)).resize((32, 32), Image.Resampling.BICUBIC)),
    "few_colours": (picture(), two_coloured()),
    "large_subject": (picture(box=(4, 4, 27, 27)), picture()),
    "high_subject": (picture(box=(10, 2, 21, 13)), picture(box=(10, 18, 21, 29))),
    "symmetry": (picture(), picture(box=(2, 10, 13, 21))),
    "tilt_to_the_right": (slanted(1), slanted(-1)),
    "simple_outline": (picture(), crossed()),
}


@pytest.mark.parametrize("name", LIKED_AND_NOT)
def test_a_taste_prefers_what_it_says_at_any_size(name: str) -> None:
    liked, other = LIKED_AND_NOT[name]
    for size in (32, 64):
        better, worse = (image.resize((size, size), Image.Resampling.NEAREST) for image in (liked, other))
        assert TASTES[name](better, "a thing") > TASTES[name](worse, "a thing"), size


def test_agreement_is_with_the_subject_that_the_prompt_names() -> None:
    assert agreement(picture("#f5d020"), "a star") != agreement(picture("#f5d020"), "a panda")


def test_every_taste_is_in_one_group_and_as_many_are_reported_as_were_tuned_on() -> None:
    assert len(TASTES) == sum(map(len, GROUPS.values()))
    assert set(TUNED_ON) <= TASTES.keys()
    assert TASTES.keys() == {*LIKED_AND_NOT, "agreement"}
    assert len(TASTES) >= 2 * len(TUNED_ON)


def asked(kind: QuestionKind, *images: int) -> NewQuestion:
    return NewQuestion(kind=kind, purpose="train", images=images, round=0)


SURE = Person(temperature=0.0, passable=0.5, seed=0)
UTILITIES = {1: 0.1, 2: 0.9, 3: 0.6, 4: 0.4}


@pytest.mark.parametrize(
    ("question", "answer", "clicks"),
    [
        (asked("pair", 1, 2), Answer(outcome="win", winner=2), 1),
        (asked("best_worst", 1, 2, 3, 4), Answer(outcome="best_worst", values={2: 1.0, 1: -1.0}), 2),
        (asked("rank", 1, 2, 3, 4), Answer(outcome="rank", values={2: 1.0, 3: 2.0, 4: 3.0, 1: 4.0}), 3),
        (asked("grid", 1, 2, 3, 4), Answer(outcome="marks", values={1: 1.0, 4: 1.0}), 2),
        (asked("grid", 2, 3), Answer(outcome="marks", values={}), 1),
        (asked("thumb", 3), Answer(outcome="up"), 1),
        (asked("thumb", 4), Answer(outcome="down"), 1),
    ],
)
def test_somebody_without_noise_answers_by_the_utilities(question: NewQuestion, answer: Answer, clicks: int) -> None:
    assert SURE.answer(question, UTILITIES) == answer
    assert clicks_of(answer) == clicks


def test_with_noise_two_pictures_are_compared_as_by_bradley_and_terry() -> None:
    answers = Counter(
        Person(temperature=0.5, passable=0.0, seed=seed).answer(asked("pair", 1, 2), {1: 0.0, 2: 0.5}).winner for seed in range(4000)
    )
    assert answers[2] / 4000 == pytest.approx(1 / (1 + math.exp(-1)), abs=4 * math.sqrt(0.2 / 4000))


def test_noise_is_such_that_a_person_agrees_with_themselves_as_often_as_is_said() -> None:
    utilities = np.random.default_rng(0).normal(size=(40, 4))
    temperature = temperature_for(utilities, NOISY)
    questions = [(10 * prompt + a, 10 * prompt + b) for prompt in range(40) for a in range(4) for b in range(a)]
    known = {10 * prompt + i: float(utilities[prompt, i]) for prompt in range(40) for i in range(4)}
    said = [
        [Person(temperature=temperature, passable=0.0, seed=seed).answer(asked("pair", *q), known) for q in questions] for seed in range(40)
    ]
    same = [first == second for one, other in zip(said[::2], said[1::2], strict=True) for first, second in zip(one, other, strict=True)]
    assert sum(same) / len(same) == pytest.approx(NOISY, abs=0.02)


def point(clicks: int, win_rate: float) -> Point:
    return Point(
        clicks=clicks, forwards=10 * clicks, seconds=1.0, win_rate=win_rate, low=0.0, high=1.0, diversity_kept=0.9, subject_change=None
    )


@pytest.mark.parametrize(
    ("win_rates", "clicks"),
    [
        ([0.8], 24),
        ([0.6, 0.7], math.inf),
        ([0.6, 0.9], 24 + 24 * 2 / 3),
        ([0.4, 0.8], 48),
        ([0.9, 0.5], 24 * 0.3 / 0.4),
    ],
)
def test_clicks_are_counted_until_the_win_rate_first_reaches_its_mark(win_rates: list[float], clicks: float) -> None:
    points = [point(24 * (i + 1), win_rate) for i, win_rate in enumerate(win_rates)]
    assert until_reached(points, "clicks") == pytest.approx(clicks)
    assert until_reached(points, "forwards") == pytest.approx(10 * clicks)


def test_the_table_has_medians_over_seeds_and_says_how_many_got_there() -> None:
    cells = [Cell(taste="contrast", method="default", kind="best_worst", noisy=False, seed=seed) for seed in range(3)]
    heading, row = table(dict(zip(cells, ([point(24, 0.8)], [point(24, 0.6)], [point(48, 0.8)]), strict=True)))
    shown = dict(zip(heading, row, strict=True))
    assert (shown["reached"], shown["clicks"]) == ("2 of 3", "48 [24, never]")
    assert (shown["taste"], shown["group"], shown["win rate"]) == ("contrast (tuned on)", "tone", "0.80 [0.60, 0.80]")


def test_a_run_is_trained_once_and_its_clicks_are_those_that_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_pipeline(tmp_path / "tiny")
    words = [
        "--tastes", "contrast", "--methods", "default", "--noise", "75", "--seeds", "3", "--clicks", "8", "--model", str(model),
        "--set", "sampling.steps=2", "evaluation.prompts=1", "evaluation.images_per_prompt=2", "training.epochs=1",
        "sampling.guidance=1.0",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["label_efficiency", str(tmp_path / "out"), *words])
    threads = torch.get_num_threads()
    label_efficiency.main()
    printed = capsys.readouterr().out
    (record,) = (tmp_path / "out").glob("*.json")
    (only,) = json.loads(record.read_text())
    assert only["clicks"] == 8
    assert only["forwards"] > 0
    assert "| tone | contrast (tuned on) | default | best_worst | 75 % | " in printed
    monkeypatch.setattr(label_efficiency, "Session", lambda *_: pytest.fail("it was trained before"))
    label_efficiency.main()
    assert capsys.readouterr().out == printed
    torch.set_num_threads(threads)
