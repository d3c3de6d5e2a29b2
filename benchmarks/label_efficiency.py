"""`python -m benchmarks.label_efficiency FOLDER` measures how many clicks a run needs until it draws what a person likes.

A simulated person has one taste (`benchmarks.tastes`), and answers a run's questions as people do on the rating page. After each round the tuned model's
pictures of held-out prompts, from independent noise, are compared with the base model's by that taste. The table has the clicks, the forward passes and the
seconds until the win rate reaches 0.8, over seeds. Every cell is a run in FOLDER; started again, the command goes on where it stopped.
"""

import argparse
import json
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.measuring import markdown
from benchmarks.tastes import TASTES, TUNED_ON, group_of
from d3po.artifacts.files import write_atomically
from d3po.config import RunConfig
from d3po.options import QuestionKind
from d3po.preferences.records import Answer, NewQuestion
from d3po.progress import Narrator
from d3po.recipes import load_recipe
from d3po.run.cost.clicks import with_clicks
from d3po.run.cost.spent import Spent, spent_by_round
from d3po.run.evaluate.phase import EvaluationResult, evaluate, read_scores
from d3po.run.feedback.measured import measured
from d3po.run.feedback.people import questions_of
from d3po.run.folder import BASE, RunFolder, create_run
from d3po.run.loop import prepare, run_round
from d3po.run.opened import OpenRun, open_run
from d3po.run.prompts import choose_prompts
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.starting import settings_for, start

REACHED = 0.8
"""The win rate over the base model at which a taste counts as learnt."""
NOISY = 0.75
"""How often a noisy person gives the same answer when asked again about two pictures of the base model."""
KINDS: tuple[QuestionKind, ...] = ("best_worst", "pair", "rank", "grid", "thumb")
MEASURED = {
    "evaluation.prompts": "16",
    "evaluation.images_per_prompt": "4",
    "evaluation.every_round": "true",
    "evaluation.blind_questions": "0",
    "evaluation.blind_between_rounds": "0",
    "guards.action": "warn",
    "tracking.tensorboard": "false",
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to learn: a recipe, and an objective with its defaults if one is named."""

    label: str
    recipe: str = "default"
    objective: str = ""
    settings: Mapping[str, str]


METHODS = {
    method.label: method
    for method in (
        Method(label="default", settings={}),
        Method(label="paper", recipe="paper", settings={}),
        *(Method(label=name, objective=name, settings={}) for name in ("d3po_branch", "diffusion_dpo", "diffusion_nft", "kto")),
    )
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run: a person with a taste, a method, a kind of question, a seed."""

    taste: str
    method: str
    kind: QuestionKind
    noisy: bool
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.taste}.{self.method}.{self.kind}.{'noisy' if self.noisy else 'sure'}.{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was measured after a round."""

    clicks: int
    """The clicks of all rounds so far."""
    forwards: int
    """The forward passes of the network in sampling and training so far."""
    seconds: float
    """The seconds of sampling and training so far."""
    win_rate: float
    low: float
    high: float
    diversity_kept: float
    subject_change: float | None


@dataclass(frozen=True, kw_only=True)
class Person:
    """Answers questions by the pictures' utilities u plus Gumbel noise: of two pictures a is preferred with Bradley and Terry's sigmoid((u_a - u_b) / t)."""

    temperature: float
    """t, in units of the taste; 0 is without noise."""
    passable: float
    """The utility below which a single picture is disliked."""
    seed: int

    def answer(self, question: NewQuestion, utilities: Mapping[int, float]) -> Answer:
        """Answer a question about images with these utilities, by image id. The same question always gets the same answer."""
        draws = random.Random(f"{self.seed}/{question.kind}/{question.images}")
        felt = {image: utilities[image] + self.temperature * _gumbel(draws) for image in question.images}
        worse = {image: utilities[image] - self.temperature * _gumbel(draws) for image in question.images}
        match question.kind:
            case "pair":
                return Answer(outcome="win", winner=max(felt, key=felt.__getitem__))
            case "best_worst":
                best = max(felt, key=felt.__getitem__)
                worst = min((image for image in worse if image != best), key=worse.__getitem__)
                return Answer(outcome="best_worst", values={best: 1.0, worst: -1.0})
            case "rank":
                order = sorted(felt, key=felt.__getitem__, reverse=True)
                return Answer(outcome="rank", values={image: float(rank) for rank, image in enumerate(order, 1)})
            case "grid":
                return Answer(outcome="marks", values={image: 1.0 for image in question.images if felt[image] < self.passable})
            case "thumb":
                (image,) = question.images
                return Answer(outcome="up" if felt[image] >= self.passable else "down")
            case kind:
                raise ValueError(f"a simulated person answers no questions of kind {kind!r}")


def clicks_of(answer: Answer) -> int:
    """The clicks of an answer: one each for best and worst, for each mark and at least one, for each place of an order but the last; else one."""
    match answer.outcome:
        case "best_worst":
            return 2
        case "rank":
            return len(answer.values) - 1
        case "marks":
            return max(1, len(answer.values))
        case _:
            return 1


def temperature_for(utilities: Float[NDArray[np.float64], "P n"], agreement: float) -> float:
    """The temperature at which a person gives the same answer twice about this share of the pairs within a prompt, by bisection.

    With p the chance of preferring the first picture, two answers are the same with probability p^2 + (1 - p)^2.
    """
    differences = np.concatenate([utilities[:, a] - utilities[:, b] for a, b in combinations(range(utilities.shape[1]), 2)])
    low, high = 1e-6 * (spread := float(np.abs(differences).max())), 1e3 * spread
    for _ in range(100):
        middle = math.sqrt(low * high)
        p = 1 / (1 + np.exp(-np.clip(differences / middle, -500, 500)))
        if float((p**2 + (1 - p) ** 2).mean()) > agreement:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def person_for(run: OpenRun, *, noisy: bool) -> Person:
    """The person of a run whose base model is evaluated: their noise and what they find passable follow from the base model's pictures."""
    utilities = np.asarray(read_scores(run, BASE)["scores"], dtype=np.float64)[:, :, 0]
    temperature = temperature_for(utilities, NOISY) if noisy else 0.0
    return Person(temperature=temperature, passable=float(np.median(utilities)), seed=run.config.seed)


def answer_round(run: OpenRun, person: Person, round: int) -> None:
    """Let the person answer all of the round's questions, as a human annotator."""
    annotator = run.store.people.annotator("simulated", "human")
    utilities = {image.id: measured(run, image)[0] for image in run.store.pictures.images(round)}
    run.store.votes.record_judgements(
        annotator.id, [(question, person.answer(question, utilities)) for question in questions_of(run, round)]
    )


def config_of(cell: Cell, *, clicks: int, model: str, extra: Mapping[str, str]) -> tuple[RunConfig, list[str], list[str]]:
    """The settings of a cell, its prompts and its held-out prompts."""
    method = METHODS[cell.method]
    asked = {} if cell.kind == "best_worst" else {"feedback.ask": f'"{cell.kind}"'}
    said = {**MEASURED, **method.settings, **asked, **extra, "model": model, "seed": str(cell.seed)}
    said["feedback.reward"] = f"benchmarks.tastes:{cell.taste}"
    begun = start(load_recipe(method.recipe), settings_for(method.objective, "human", said), where=cell.name)
    prompts, held_out = choose_prompts(None, None, skip_empty=False)
    return with_clicks(begun.config, clicks, feedback="human", prompts=len(prompts), said=said), prompts, held_out


def run_cell(cell: Cell, folder: Path, *, clicks: int, model: str, extra: Mapping[str, str]) -> list[Point]:
    """Train a cell to its end, from wherever it stands; returns what was measured after each round."""
    record = folder / f"{cell.name}.json"
    if record.exists():
        return [Point(**point) for point in json.loads(record.read_text())]
    run_folder = RunFolder(path=folder / "runs" / cell.name)
    if not run_folder.config_path.exists():
        config, prompts, held_out = config_of(cell, clicks=clicks, model=model, extra=extra)
        create_run(run_folder.path, config, prompts=prompts, held_out=held_out)
    with run_folder.locked():
        session = Session(open_run(run_folder, Narrator(Console(quiet=True))))
        try:
            points = list(_points(session, cell))
        finally:
            session.close()
    write_atomically(record, json.dumps([asdict(point) for point in points], indent=1) + "\n")
    return points


def _points(session: Session, cell: Cell) -> Iterable[Point]:
    run = session.run
    prepare(session)
    run.folder.mark_started(run.config)
    evaluate(session, 0)
    person = person_for(run, noisy=cell.noisy)
    for round in range(run.config.rounds):
        run.journal.phase("sampling", round)
        sample_round(session, round)
        answer_round(run, person, round)
        run_round(session, round)
        yield _point(run, evaluate(session, round + 1), round)


def _point(run: OpenRun, result: EvaluationResult, round: int) -> Point:
    spent = sum((each for number, each in spent_by_round(run.store.journal.read()).items() if number <= round), start=Spent())
    answers = [vote.answer for vote in run.store.votes.current(purpose="train") if vote.round is not None and vote.round <= round]
    return Point(
        clicks=sum(map(clicks_of, answers)), forwards=spent.forwards, seconds=spent.seconds, win_rate=result.win_rate.value,
        low=result.win_rate.low, high=result.win_rate.high, diversity_kept=result.diversity_kept, subject_change=result.subject_change,
    )  # fmt: skip


def until_reached(points: Sequence[Point], spent: str) -> float:
    """How much of `spent`, a field of `Point`, it took to reach the win rate, linearly between rounds; infinite if it was never reached."""
    before, at = 0.5, 0.0
    for point in points:
        now = float(getattr(point, spent))
        if point.win_rate >= REACHED:
            return at + (now - at) * (REACHED - before) / (point.win_rate - before) if point.win_rate > before else now
        before, at = point.win_rate, now
    return math.inf


def table(results: Mapping[Cell, Sequence[Point]]) -> list[list[str]]:
    """A row for each taste, method, kind and noise: medians over seeds with the smallest and the largest value, the heading first."""
    heading = [
        "group",
        "taste",
        "method",
        "question",
        "noise",
        "reached",
        "clicks",
        "forward passes",
        "seconds",
        "win rate",
        "diversity",
        "subject",
    ]
    rows = [heading]
    for setting in dict.fromkeys(replace(cell, seed=0) for cell in results):
        runs = [points for cell, points in results.items() if replace(cell, seed=0) == setting]
        ends = [points[-1] for points in runs]
        reached = [points for points in runs if until_reached(points, "clicks") < math.inf]
        changes = [end.subject_change for end in ends if end.subject_change is not None]
        rows.append(
            [
                group_of(setting.taste), setting.taste + (" (tuned on)" if setting.taste in TUNED_ON else ""), setting.method, setting.kind,
                "75 %" if setting.noisy else "none", f"{len(reached)} of {len(runs)}",
                *(_over_seeds([until_reached(points, spent) for points in runs], "{:.0f}") for spent in ("clicks", "forwards", "seconds")),
                _over_seeds([end.win_rate for end in ends], "{:.2f}"), _over_seeds([end.diversity_kept for end in ends], "{:.0%}"),
                _over_seeds([100 * change for change in changes], "{:+.0f}") if changes else "-",
            ]
        )  # fmt: skip
    return rows


def _over_seeds(values: Sequence[float], form: str) -> str:
    """The median with the smallest and the largest value, which for five seeds hold the true median in 15 of 16 cases."""
    low, middle, high = (
        "never" if math.isinf(value) else form.format(value) for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} [{low}, {high}]" if len(values) > 1 else middle


def _gumbel(draws: random.Random) -> float:
    return -math.log(-math.log(draws.random() or 0.5))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_efficiency", description="Measure clicks until a taste is learnt.")
    parser.add_argument("folder", type=Path, help="where the runs and results are kept")
    parser.add_argument("--tastes", nargs="+", choices=TASTES, default=list(TASTES), metavar="TASTE", help=f"of {', '.join(TASTES)}")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=["default", "paper"], metavar="METHOD", help=f"of {', '.join(METHODS)}"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["best_worst"], metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument(
        "--noise", nargs="+", choices=("none", "75"), default=["none"], help="75: the person agrees with themselves on 75 %% of pairs"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)), help="default: 0 to 4")
    parser.add_argument("--clicks", type=int, default=192, help="clicks of each run (default: 192)")
    parser.add_argument("--model", default="emoji-32", help="default: emoji-32")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of run.toml for all runs")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    extra = dict(text.split("=", 1) for text in chosen.set)
    grid = product(chosen.seeds, chosen.tastes, chosen.kinds, chosen.noise, chosen.methods)
    cells = [Cell(taste=taste, method=method, kind=kind, noisy=noise == "75", seed=seed) for seed, taste, kind, noise, method in grid]
    console = Console(stderr=True)
    results = {
        cell: run_cell(cell, chosen.folder, clicks=chosen.clicks, model=chosen.model, extra=extra)
        for cell in track(cells, "runs", console=console)
    }
    print(markdown(table(results)))


if __name__ == "__main__":
    main()
