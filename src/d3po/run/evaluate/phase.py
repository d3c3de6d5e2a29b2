"""The evaluation phase: samples held-out prompts from fixed noise with the base model and with the policy after each round, and measures them."""

import hashlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from d3po.artifacts.files import write_atomically
from d3po.artifacts.records import read_record, write_record
from d3po.artifacts.run_pictures import read_picture
from d3po.embedded import EMBEDDED, EmbeddedModel
from d3po.errors import CorruptFileError
from d3po.evaluation.measures import checkerboard_energy, diversity, share
from d3po.evaluation.win_rate import NO_CHANGE, Interval, win_rate
from d3po.pictures import encode
from d3po.run.feedback.blind import blind_result
from d3po.run.feedback.labels import judgements_learnt_from
from d3po.run.folder import BASE, label_of, series_of
from d3po.run.opened import OpenRun
from d3po.run.sample.phase import sample_pictures
from d3po.run.session import Session
from d3po.scorers.learned.classifier import load_classifier
from d3po.store import NewPicture
from d3po.training.reference import swapped_weights

STREAM = "held-out"
"""The noise identity of evaluation pictures. It is the same for every policy, so that their pictures can be compared by eye."""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What was measured on the held-out pictures of one policy, in comparison with the base model's."""

    rounds: int
    """Rounds of training behind the policy; 0 is the base model."""
    comparisons: int
    """The number of comparisons, or labels, that the policy was trained on."""
    win_rate: Interval
    """Win rate over the base model by `feedback.reward`. The base model's is 0.5 by definition, without an interval."""
    mean_score: float
    """Mean reward of the pictures; with several criteria, the mean of their sum."""
    diversity: float
    """See `d3po.evaluation.measures.diversity`."""
    diversity_kept: float
    """Diversity as a share of the base model's."""
    checkerboard_ratio: float
    """Checkerboard energy as a multiple of the base model's."""
    subject_accuracy: float | None
    """The share of pictures that show their prompt's subject. Only for the embedded model."""
    subject_change: float | None
    """Subject accuracy minus the base model's."""
    held_out_win_rate: Interval | None
    """Win rate over the base model by `evaluation.held_out_reward`, which is never trained on, if the run has one."""
    people: Interval | None
    """Win rate over the base model in the blind test by people. None without answers."""
    people_answers: int
    """The number of answers behind `people`."""


def evaluate(session: Session, rounds: int) -> EvaluationResult:
    """Sample held-out pictures with the policy after `rounds` rounds and measure them. An evaluation that exists is read back.

    Raises:
        CorruptFileError: the existing evaluation is damaged.
    """
    path = session.run.folder.evaluation(label_of(rounds))
    if path.exists():
        return read_evaluation(session.run, rounds)
    settings, criteria = session.run.config.evaluation, session.run.criteria
    prompts = session.run.folder.held_out()[: settings.prompts]
    pictures = _kept_pictures(session.run, label_of(rounds))
    if pictures is None:
        session.load_round_weights(rounds)
        with averaged(session, rounds):
            title = "base: evaluating" if rounds == 0 else f"round {rounds - 1}: evaluating"
            pictures = sample_pictures(session, prompts, settings.images_per_prompt, stream=STREAM, title=title)
        _keep_pictures(session.run, label_of(rounds), prompts, pictures)
    scores = [
        [[reward(Image.fromarray(pixels), prompt) for reward in criteria] for pixels in row]
        for prompt, row in zip(prompts, pictures, strict=True)
    ]
    embedded = EMBEDDED.get(session.run.config.model)
    record = {
        "rounds": rounds,
        "comparisons": sum(judgements_learnt_from(session.run, round) for round in range(rounds)),
        "prompts": prompts,
        "scores": scores,
        "held_out_scores": _held_out_scores(session.run, prompts, pictures),
        "subject_accuracy": subject_accuracy(embedded, pictures, prompts) if embedded else None,
    }
    write_record(path, record)
    session.run.folder.remember(session.run.store)
    return read_evaluation(session.run, rounds)


def _kept_pictures(run: OpenRun, label: str) -> NDArray[np.uint8] | None:
    """Read the pictures if all of them were made and recorded before and are undamaged; else return None."""
    settings = run.config.evaluation
    if len(run.store.pictures.series(series_of(label))) < settings.prompts * settings.images_per_prompt:
        return None
    try:
        return held_out_pictures(run, label)
    except CorruptFileError:
        return None


def _keep_pictures(run: OpenRun, label: str, prompts: list[str], pictures: NDArray[np.uint8]) -> None:
    """Write the pictures, and record them in the store so that people can be shown them.

    Raises:
        CorruptFileError: a picture was recorded before and differs now; nothing is written.
    """
    directory = run.folder.images(series_of(label))
    recorded = {picture.path: picture.sha256 for picture in run.store.pictures.series(series_of(label))}
    new: list[NewPicture] = []
    contents: dict[Path, bytes] = {}
    for p, prompt in enumerate(run.store.pictures.add_prompts(prompts)):
        for i, pixels in enumerate(pictures[p]):
            path = directory / f"{p:03}-{i}.png"
            contents[path] = encode(Image.fromarray(pixels))
            picture = NewPicture(prompt=prompt, number=i, path=run.folder.relative(path), sha256=hashlib.sha256(contents[path]).hexdigest())
            if recorded.get(picture.path, picture.sha256) != picture.sha256:
                raise CorruptFileError(
                    f"{path} was made again but differs from the recorded one (other torch version or machine?); restore it from a copy, or "
                    "start a new run folder"
                )
            new.append(picture)
    for path, content in contents.items():
        write_atomically(path, content)
    run.store.pictures.add_pictures(
        series=series_of(label), origin="evaluation", model=run.config.model, policy=label, seed=run.config.seed, pictures=new
    )


def read_evaluation(run: OpenRun, rounds: int) -> EvaluationResult:
    """Read an evaluation that was made earlier, and compute its statistics from the stored scores and pictures.

    Raises:
        CorruptFileError: a file of it is missing or damaged.
    """
    record, base = read_scores(run, label_of(rounds)), read_scores(run, BASE)
    pictures, base_pictures = (held_out_pictures(run, label) / 255 for label in (label_of(rounds), BASE))
    tuned_scores, base_scores = np.atleast_3d(record["scores"]), np.atleast_3d(base["scores"])
    accuracy, base_accuracy = record["subject_accuracy"], base["subject_accuracy"]
    spread = diversity(base_pictures)
    people, answers = blind_result(run, rounds) or (None, 0)
    return EvaluationResult(
        rounds=rounds,
        comparisons=record["comparisons"],
        win_rate=_over_base(rounds, tuned_scores, base_scores),
        mean_score=float(tuned_scores.sum(axis=-1).mean()),
        diversity=diversity(pictures),
        diversity_kept=share(diversity(pictures), spread),
        checkerboard_ratio=share(checkerboard_energy(pictures), checkerboard_energy(base_pictures)),
        subject_accuracy=accuracy,
        subject_change=None if accuracy is None else accuracy - base_accuracy,
        held_out_win_rate=_held_out_win_rate(record, base),
        people=people,
        people_answers=answers,
    )


def _held_out_scores(run: OpenRun, prompts: list[str], pictures: NDArray[np.uint8]) -> list[list[float]] | None:
    reward = run.held_out_reward
    if reward is None:
        return None
    return [[reward(Image.fromarray(pixels), prompt) for pixels in row] for prompt, row in zip(prompts, pictures, strict=True)]


def _held_out_win_rate(record: dict[str, Any], base: dict[str, Any]) -> Interval | None:
    if record.get("held_out_scores") is None:
        return None
    return _over_base(record["rounds"], np.atleast_3d(record["held_out_scores"]), np.atleast_3d(base["held_out_scores"]))


def _over_base(rounds: int, scores: NDArray[np.float64], base: NDArray[np.float64]) -> Interval:
    """The win rate over the base model. For the base model itself it is 0.5, without an interval."""
    return win_rate(scores, base) if rounds else Interval(value=NO_CHANGE)


def read_scores(run: OpenRun, label: str) -> dict[str, Any]:
    """Read the record of an evaluation.

    Raises:
        CorruptFileError: it is missing or damaged.
    """
    return read_record(run.folder.evaluation(label), remedy=_measure_again(run, label), needs=("comparisons", "scores", "subject_accuracy"))


def held_out_pictures(run: OpenRun, label: str) -> NDArray[np.uint8]:
    """Read the pictures of an evaluation, as uint8 of shape (P prompts, n images, height, width, 3).

    Raises:
        CorruptFileError: a picture is missing, is damaged, or differs from the hash in the database.
    """
    prompts = range(run.config.evaluation.prompts)
    return np.array([[np.asarray(picture) for picture in row] for row in read_held_out(run, label, prompts)])


def read_held_out(run: OpenRun, label: str, prompts: Iterable[int]) -> Iterator[list[Image.Image]]:
    """Read the pictures of an evaluation for the held-out prompts with these indices, one list for each prompt.

    Raises:
        CorruptFileError: a picture is missing, is damaged, or differs from the hash in the database.
    """
    recorded = {picture.path: picture.sha256 for picture in run.store.pictures.series(series_of(label))}
    directory, remedy = run.folder.images(series_of(label)), _measure_again(run, label)
    for p in prompts:
        paths = [directory / f"{p:03}-{i}.png" for i in range(run.config.evaluation.images_per_prompt)]
        yield [read_picture(path, remedy=remedy, checksum=recorded.get(run.folder.relative(path))) for path in paths]


def _measure_again(run: OpenRun, label: str) -> str:
    made = run.folder.evaluation(label)
    return f"restore it from a copy, or delete {made.relative_to(run.folder.path)} and run `d3po run {run.folder.path}`, which makes both again"


def subject_accuracy(model: EmbeddedModel, pictures: NDArray[np.uint8], prompts: list[str]) -> float | None:
    """The share of pictures that a classifier assigns to the subject of their prompt. None if no prompt names a subject.

    Args:
        model: the embedded model that drew them, whose classifier reads them.
        pictures: uint8, (P prompts, n images, height, width, 3).
        prompts: the P prompts.
    """
    images = torch.from_numpy(pictures).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    per_picture = load_classifier(model.subjects).accuracy(images, [prompt for prompt in prompts for _ in range(pictures.shape[1])])
    read = [value for value in per_picture if value is not None]
    return sum(read) / len(read) if read else None


@contextmanager
def averaged(session: Session, rounds: int) -> Generator[None, None, None]:
    """Within this context the policy has the averaged weights after `rounds` rounds, if the run keeps them."""
    if rounds > 0 and session.trainer.average is not None:
        with swapped_weights(session.policy, session.trainer.average):
            yield
    else:
        yield
