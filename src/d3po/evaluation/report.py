"""Renders a self-contained HTML page about a run: pictures before and after, curves with intervals, and an explanation of every figure."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from d3po.evaluation.drawing import ACCENT, INK, SECOND, data_uri, picture_png, svg, template, titled
from d3po.evaluation.win_rate import NO_CHANGE, Interval

ENLARGED = 96
PEOPLE = "#2f8f4e"


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """Pictures of one held-out prompt; before[i] and after[i] come from the same noise."""

    prompt: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One evaluation: that of the policy after `rounds` rounds; 0 is the base model."""

    rounds: int
    comparisons: int
    win_rate: Interval
    mean_score: float
    diversity_kept: float
    checkerboard_ratio: float
    subject_accuracy: float | None
    held_out_win_rate: Interval | None = None
    people: Interval | None = None
    """The win rate over the base model in the blind test by people."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the page shows."""

    title: str
    reward: str
    """The name of the reward by which win rate and score are measured."""
    points: Sequence[Point]
    updates: Sequence[dict[str, Any]]
    rows: Sequence[PictureRow]
    stopped: str | None
    alarms: Sequence[tuple[int, str, str]]
    """(round, guard, message) of every guard that fired."""
    blind: tuple[Interval, int] | None
    """The win rate over the base model in the blind test by people, and the number of votes."""
    judged_by_people: bool
    """Whether people judge the run: then their figure comes first, and measured figures are named by the reward."""
    agreement: Mapping[int, Interval | None]
    """People's agreement (Krippendorff's alpha) by round; None if it is undefined. Empty if each question was asked only once."""
    config: str
    versions: dict[str, str]
    seed: int


INTERVAL = (
    "The 95 % interval is over prompts: Student's t with one additional prompt of unknown share, so that few prompts, or "
    "prompts that happen to agree, do not seem certain."
)
BLIND = (
    "how often people prefer the tuned picture when they see a base and a tuned picture of one held-out prompt side by side, without "
    "knowing which is which; a tie, or both bad, counts half."
)
EXPLAINED = {
    "Win rate": "the chance that the reward is higher for a tuned picture than for a base picture of the same held-out prompt from other noise; "
    f"0.5 is no change. {INTERVAL} The base model's 0.5 is known, and has no interval.",
    "Blind win rate": f"{BLIND} The interval is over prompts, as above.",
    "Agreement": "Krippendorff's alpha over the pairs that two or more people compared: 1 is full agreement, 0 is chance, below 0 is worse than chance; "
    "two people who agree on 70 % of the pairs have 0.4. The interval holds 95 % of bootstrap resamples over pairs.",
    "Score": "the mean reward of the held-out pictures, in the reward's unit.",
    "Subject accuracy": "how often a small classifier, trained on real drawings only, recognises the prompt's subject in the picture.",
    "Diversity kept": "mean distance between pictures of one prompt, as a share of the base model's; a collapsing policy loses it.",
    "Checkerboard": "energy of the 2x2 checkerboard pattern as a multiple of the base model's; over-optimised policies often raise their score with it.",
    "Loss": "the objective's loss, averaged over pairs and denoising steps; log 2 = 0.693 means that the policy has not changed yet.",
    "Margin": "the winner's log-ratio to the reference minus the loser's; training raises it.",
    "Winner's and loser's log-ratio": "how much more likely the picture is under the policy than under the reference; the winner's should not fall.",
    "KL": "KL divergence from the reference in nats per latent dimension of one step; 0 is no change.",
    "Gradient norm": "L2 norm of the gradient before clipping; spikes are a sign of instability.",
}

_BY_PEOPLE = {
    "Blind win rate": f"{BLIND} {INTERVAL} With few answers it is wide.",
    "Agreement": EXPLAINED["Agreement"],
    "Win rate": "the chance that the measured reward, which people were not asked about, is higher for a tuned picture than for a base picture of the "
    "same held-out prompt from other noise; 0.5 is no change. The interval is over prompts, as above.",
}
EXPLAINED_BY_PEOPLE = {**_BY_PEOPLE, **EXPLAINED, **_BY_PEOPLE}
"""The explanations for a run that people judge: their own figure comes first."""


def render(report: Report) -> tuple[str, bytes]:
    """Render the page as HTML, and its before/after grid as a PNG."""
    grid = picture_grid(report.rows)
    page = template("report.html.j2").render(
        report=report,
        result=report.points[-1],
        base=report.points[0],
        explained=EXPLAINED_BY_PEOPLE if report.judged_by_people else EXPLAINED,
        progress_svg=svg(progress_figure(report.points, measured=report.reward if report.judged_by_people else "")),
        training_svg=svg(training_figure(report.updates)) if report.updates else "",
        pictures=[(row.prompt, [_shown(p) for p in row.before], [_shown(p) for p in row.after]) for row in report.rows],
    )
    return page, grid


def picture_grid(rows: Sequence[PictureRow]) -> bytes:
    """Lay out pictures as a PNG with a row for each prompt: before on the left, after on the right."""
    gap = np.full((rows[0].before.shape[1], 6, 3), 255, dtype=np.uint8)
    lines = [np.concatenate([*row.before, gap, *row.after], axis=1) for row in rows]
    image = Image.fromarray(np.concatenate(lines))
    scale = max(1, ENLARGED // rows[0].before.shape[1])
    buffer = io.BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def progress_figure(points: Sequence[Point], *, measured: str = "") -> Figure:
    """Draw the win rate with its interval, and diversity and artefacts, against the number of comparisons.

    In a run that people judge, `measured` is the name of the reward, and the result of the blind tests is drawn as well.
    """
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = [p.comparisons for p in points]
    low, high = [p.win_rate.low for p in points], [p.win_rate.high for p in points]
    left.fill_between(x, low, high, color=ACCENT, alpha=0.18, lw=0)
    left.vlines(x, low, high, color=ACCENT, lw=1)  # a band needs two points with an interval, but the base model has none
    left.plot(x, [p.win_rate.value for p in points], "o-", color=ACCENT, label=f"by {measured}" if measured else None)
    asked = [(p.comparisons, p.people) for p in points if p.people is not None]
    if asked:
        at, said = [comparisons for comparisons, _ in asked], [people for _, people in asked]
        left.vlines(at, [each.low for each in said], [each.high for each in said], color=PEOPLE, lw=1.6)
        left.plot(at, [each.value for each in said], "D-", color=PEOPLE, label="people, blind")
    if points[-1].held_out_win_rate is not None:
        left.plot(
            x,
            [p.held_out_win_rate.value if p.held_out_win_rate else NO_CHANGE for p in points],
            "s--",
            color=SECOND,
            label="held-out reward",
        )
    if asked or points[-1].held_out_win_rate is not None:
        left.legend(frameon=False, fontsize=8)
    left.axhline(NO_CHANGE, color=INK, lw=0.8, ls=":")
    left.set_ylim(0, 1.02)
    titled(left, "Win rate over the base model (95 % interval)", "comparisons")
    right.plot(x, [p.diversity_kept for p in points], "o-", color=SECOND, label="diversity kept")
    right.plot(x, [p.checkerboard_ratio for p in points], "s-", color="#7a7a85", label="checkerboard")
    if points[0].subject_accuracy is not None:
        right.plot(x, [p.subject_accuracy for p in points], "^-", color="#2f8f4e", label="subject accuracy")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, fontsize=8)
    titled(right, "Side effects", "comparisons")
    return figure


def training_figure(updates: Sequence[dict[str, Any]]) -> Figure:
    """Draw loss, margin, log-ratios and KL against updates."""
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    (loss, margin), (ratios, kl) = figure.subplots(2, 2)
    x = range(len(updates))
    panels: list[tuple[Axes, str, list[tuple[str, str]]]] = [
        (loss, "Loss", [("loss", ACCENT)]),
        (margin, "Margin", [("margin", ACCENT)]),
        (ratios, "Log-ratio to the reference", [("winner_log_ratio", "#2f8f4e"), ("loser_log_ratio", SECOND)]),
        (kl, "KL to the reference, nats per dimension", [("kl", INK)]),
    ]
    starts = [i for i in x if i == 0 or updates[i]["round"] != updates[i - 1]["round"]]
    for axes, title, series in panels:
        for key, colour in series:
            measured = [i for i in x if key in updates[i]]
            dots = "" if len(measured) == len(updates) else "o"
            axes.plot(measured, [updates[i][key] for i in measured], dots + "-", ms=3, color=colour, lw=1.3, label=key.split("_")[0])
        for start in starts:
            axes.axvline(start, color="#d8d8de", lw=0.8, zorder=0)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8)
        titled(axes, title, "update (lines: rounds)")
    return figure


def _shown(pixels: NDArray[np.uint8]) -> str:
    return data_uri(picture_png(pixels))
