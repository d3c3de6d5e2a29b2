"""The feedback phase with a reward: a simulated annotator compares the round's pictures by their scores."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from d3po.annotation.selection import number_of_pairs, random_pairs
from d3po.annotation.simulated import SimulatedAnnotator
from d3po.preferences.records import ImageRecord
from d3po.run.opened import OpenRun
from d3po.scorers.registry import annotator_kind, score_file
from d3po.store.people import LONGEST_HANDLE
from d3po.store.pictures import PictureRecord


def compare_round(run: OpenRun, round: int) -> None:
    """Let the simulated annotator compare the round's pairs, and record its answers in one transaction. Nothing is done if the round has votes."""
    if run.store.votes.count(round=round):
        return
    settings = run.config.feedback
    simulated = SimulatedAnnotator(temperature=settings.temperature, tie_band=settings.tie_band, seed=run.config.seed)
    annotator = run.store.people.annotator(_handle(settings.reward), annotator_kind(settings.reward))
    images = run.store.pictures.images(round)
    with run.narrator.bar(f"round {round}: comparing", total=len(images)) as bar:
        scores: dict[int, tuple[float, ...]] = {}
        for image in images:
            scores[image.id] = measured(run, image)
            bar.advance()
    run.store.votes.record_judgements(annotator.id, simulated.judge_all(pairs_of_round(run, images), scores, round=round))


def measured(run: OpenRun, image: ImageRecord) -> tuple[float, ...]:
    """The reward of a sampled image, one number for each criterion."""
    if image.id not in run.scores:
        run.scores[image.id] = score_file(run.criteria, run.folder.path / image.path, image.prompt, checksum=image.sha256)
    return run.scores[image.id]


def ids_by_prompt(images: Sequence[ImageRecord | PictureRecord]) -> dict[int, list[int]]:
    """Image ids by prompt id, both in the order given."""
    by_prompt: dict[int, list[int]] = defaultdict(list)
    for image in images:
        by_prompt[image.prompt_id].append(image.id)
    return by_prompt


def pairs_of_round(run: OpenRun, images: list[ImageRecord]) -> list[tuple[int, int]]:
    """The pairs of image ids that are compared."""
    wanted = run.config.feedback.pairs_per_prompt
    return [
        pair
        for prompt, ids in ids_by_prompt(images).items()
        for pair in random_pairs(ids, number_of_pairs(len(ids), wanted), seed=f"{run.config.seed}/pairs/{images[0].round}/{prompt}")
    ]


def _handle(reward: str) -> str:
    """The annotator's handle for a reward. A long one, such as one with a path in it, is cut, and a hash keeps it unique."""
    handle = f"reward:{reward}"
    return handle if len(handle) <= LONGEST_HANDLE else f"{handle[: LONGEST_HANDLE - 9]}#{hashlib.sha256(reward.encode()).hexdigest()[:8]}"
