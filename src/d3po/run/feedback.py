"""The feedback phase: a round's images judged by a measured reward. (People write to the same store.)"""

from collections import defaultdict

from d3po.feedback.annotator import SimulatedAnnotator
from d3po.feedback.rewards.registry import load_reward, score_file
from d3po.preferences.conversion import comparisons_of, pair_judgements
from d3po.preferences.ranking import reliabilities
from d3po.preferences.records import Comparison, ImageRecord
from d3po.preferences.selection import all_pairs, random_pairs
from d3po.run.workbench import Workbench


def compare_round(bench: Workbench, round: int) -> None:
    """Let the simulated annotator judge the round's pairs and record its answers, all in one transaction."""
    if bench.store.votes.count(round=round):
        return
    settings = bench.config.feedback
    reward = load_reward(settings.reward)
    judge = SimulatedAnnotator(temperature=settings.temperature, tie_band=settings.tie_band, seed=bench.config.seed)
    annotator = bench.store.people.annotator(f"reward:{settings.reward}", "rule")
    images = bench.store.pictures.images(round)
    with bench.narrator.bar(f"round {round}: comparing", total=len(images)) as bar:
        scores: dict[int, float] = {}
        for image in images:
            scores[image.id] = score_file(reward, bench.folder.path / image.path, image.prompt)
            bar.advance()
    bench.store.votes.record_judgements(annotator.id, judge.judge_all(_pairs(bench, images), scores, round=round))


def comparisons_learnt_from(bench: Workbench, round: int) -> list[Comparison]:
    """The comparisons that the round's training used or will use: fixed when it first asks, the same whenever it asks again.

    Where several annotators judged, each counts by how reliable these votes show them to be (Crowd-BT, `preferences.ranking`).
    """
    votes = bench.store.batches.claim(round)
    if len({vote.annotator for vote in votes}) == 1:
        return comparisons_of(votes)
    trusted = reliabilities(pair_judgements(votes))
    return comparisons_of(votes, reliability={annotator: trusted[annotator].weight for annotator in trusted})


def _pairs(bench: Workbench, images: list[ImageRecord]) -> list[tuple[int, int]]:
    by_prompt: dict[int, list[int]] = defaultdict(list)
    for image in images:
        by_prompt[image.prompt_id].append(image.id)
    count = bench.config.feedback.pairs_per_prompt
    if count == 0:
        return [pair for ids in by_prompt.values() for pair in all_pairs(ids)]
    return [
        pair
        for prompt, ids in by_prompt.items()
        for pair in random_pairs(ids, count, seed=f"{bench.config.seed}/pairs/{images[0].round}/{prompt}")
    ]
