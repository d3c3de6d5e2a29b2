"""The feedback phase: comparisons of a round's images by the measured judge. (People write to the same store.)"""

from collections import defaultdict

from d3po.feedback.annotator import SimulatedAnnotator
from d3po.feedback.rewards.registry import load_reward, score_file
from d3po.preferences.records import ImageRecord
from d3po.preferences.selection import all_pairs, random_pairs
from d3po.run.workbench import Workbench


def compare_round(bench: Workbench, round: int) -> None:
    """Ask the simulated annotator about the round's pairs and record its answers, all in one transaction."""
    if bench.store.comparisons(round):
        return
    settings = bench.config.feedback
    reward = load_reward(settings.reward)
    annotator = SimulatedAnnotator(
        name=f"reward:{settings.reward}", temperature=settings.temperature, tie_band=settings.tie_band, seed=bench.config.seed
    )
    images = bench.store.images(round)
    with bench.narrator.bar(f"round {round}: comparing", total=len(images)) as bar:
        scores: dict[int, float] = {}
        for image in images:
            scores[image.id] = score_file(reward, bench.folder.path / image.path, image.prompt)
            bar.advance()
    bench.store.add_comparisons(annotator.compare_all(_pairs(bench, images), scores))


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
