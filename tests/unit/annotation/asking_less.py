"""Simulated prompts whose true order is known: how many votes it takes to know it. `python -m tests.unit.annotation.asking_less` prints a table."""

from dataclasses import dataclass, field
from itertools import combinations, pairwise
from math import exp, pi, sin

import numpy as np

from d3po.annotation.adaptive import Belief, next_pairs, prior_belief, proxy_correlation, updated
from d3po.preferences.records import Comparison

IMAGES, SPREAD, GOAL = 7, 1.5, 0.8


@dataclass
class Prompt:
    """Seven images with true scores, a proxy that names the better of two in `right` of pairs, and the judgements so far."""

    scores: dict[int, float]
    proxy: dict[int, float]
    said: list[Comparison] = field(default_factory=list)
    at_random: list[Comparison] = field(default_factory=list)

    def accuracy(self, belief: Belief) -> float:
        """Share of the 21 pairs whose better image is believed to be the better one; a tie counts half."""
        mean = dict(zip(belief.images, belief.mean, strict=True))
        named = [np.sign(mean[a] - mean[b]) * np.sign(self.scores[a] - self.scores[b]) for a, b in combinations(mean, 2)]
        return float(np.mean([(1 + each) / 2 for each in named]))


def make_prompts(count: int, *, right: float, seed: int) -> list[Prompt]:
    random, correlation = np.random.default_rng(seed), sin(pi * (right - 0.5))
    prompts: list[Prompt] = []
    for _ in range(count):
        scores = random.normal(size=IMAGES)
        proxy = correlation * scores + (1 - correlation**2) ** 0.5 * random.normal(size=IMAGES)
        prompts.append(
            Prompt(scores={i: SPREAD * float(s) for i, s in enumerate(scores)}, proxy={i: float(z) for i, z in enumerate(proxy)})
        )
    return prompts


def accuracy_by_votes(prompts: list[Prompt], votes: int, *, random_share: float, proxy: str, seed: int) -> list[float]:
    """Mean accuracy after 0, 1, ... votes a prompt.

    Args:
        random_share: of pairs chosen at random; 1 is random asking.
        proxy: `none`; `trusted` with a correlation of 0.8, deserved or not; or `fitted` to the random votes so far.
    """
    random, curve = np.random.default_rng(seed), list[float]()
    correlation = 0.8 if proxy == "trusted" else 0.0
    for turn in range(votes + 1):
        if proxy == "fitted":
            correlation = fitted(prompts)
        beliefs = [updated(prior_belief(list(p.scores), proxy=p.proxy, correlation=correlation, spread=SPREAD), p.said) for p in prompts]
        curve.append(float(np.mean([p.accuracy(b) for p, b in zip(prompts, beliefs, strict=True)])))
        for number, (prompt, belief) in enumerate(zip(prompts, beliefs, strict=True)):
            asked = [(each.image_a, each.image_b) for each in prompt.said]
            for pair in next_pairs(belief, 1, seed=f"{seed}/{number}/{turn}", asked=asked, random_share=random_share):
                chance = 1 / (1 + exp(prompt.scores[pair.image_b] - prompt.scores[pair.image_a]))
                answer = Comparison(image_a=pair.image_a, image_b=pair.image_b, target=float(random.random() < chance))
                prompt.said.append(answer)
                prompt.at_random += [answer] * pair.at_random
    return curve


def fitted(prompts: list[Prompt]) -> float:
    """The proxy's correlation from the random votes of all prompts."""
    names = [{i: IMAGES * number + i for i in prompt.scores} for number, prompt in enumerate(prompts)]
    proxy = {names[number][i]: z for number, prompt in enumerate(prompts) for i, z in prompt.proxy.items()}
    said = [
        Comparison(image_a=names[number][each.image_a], image_b=names[number][each.image_b], target=each.target)
        for number, prompt in enumerate(prompts)
        for each in prompt.at_random
    ]
    return proxy_correlation(said, proxy, [list(name.values()) for name in names], spread=SPREAD)


def votes_needed(curve: list[float], goal: float = GOAL) -> float:
    """Votes a prompt to reach the goal, interpolated; infinite if it is never reached."""
    for turn, (before, after) in enumerate(pairwise(curve)):
        if after >= goal:
            return turn if before >= goal else turn + (goal - before) / (after - before)
    return float("inf")


def main() -> None:
    arms = [("random", 1.0, "none", 0.5), ("D-optimal", 0.0, "none", 0.5), ("D-optimal, 20 % random", 0.2, "none", 0.5)]
    arms += [("random + proxy 70 %", 1.0, "fitted", 0.7), ("D-optimal, 20 % random + proxy 70 %", 0.2, "fitted", 0.7)]
    arms += [("the same, proxy worthless", 0.2, "fitted", 0.5), ("the same, worthless proxy trusted", 0.2, "trusted", 0.5)]
    for name, random_share, proxy, right in arms:
        curves = [
            accuracy_by_votes(make_prompts(200, right=right, seed=seed), 20, random_share=random_share, proxy=proxy, seed=seed)
            for seed in range(5)
        ]
        mean = np.mean(curves, axis=0)
        known = ", ".join(f"{mean[votes]:.3f} after {votes}" for votes in (4, 8, 12))
        print(f"{name:36} {votes_needed(list(mean)):5.1f} votes to {GOAL}; {known}", flush=True)


if __name__ == "__main__":
    main()
