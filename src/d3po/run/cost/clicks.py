"""What people are asked to do in a run: how many clicks its questions take, and as many rounds and prompts as a number of clicks pays for."""

import math
from collections.abc import Collection

from d3po.config import RunConfig, override
from d3po.errors import ConfigError

CLICKS = 100
"""Those of a run that is made to be judged by people, if nothing else is said."""
CHOSEN = ("rounds", "sampling.prompts_per_round")
"""The settings that follow from a number of clicks."""
SHOWN = {
    "pair": "two pictures",
    "best_worst": "best and worst of {}",
    "rank": "an order of {}",
    "grid": "the bad ones of {}",
    "thumb": "a picture",
    "score": "a picture",
}
"""What a question is about, by how people are asked."""


def with_clicks(config: RunConfig, clicks: int | None, *, feedback: str, prompts: int, said: Collection[str]) -> RunConfig:
    """The settings with as many rounds and prompts a round as spend the clicks.

    Args:
        config: the settings so far; its prompts a round are kept to as nearly as the clicks allow.
        clicks: how many there are; None is `CLICKS` if `feedback` is "human", unless `said` holds what would follow from them.
        feedback: who compares, where the user has said so.
        prompts: how many prompts the run has.
        said: the settings that the user has given, by dotted name.

    Raises:
        ConfigError: there are too few clicks for one question, or nobody clicks, or the user has also said what follows from them.
    """
    given = [key for key in CHOSEN if key in said]
    if clicks is None:
        if given or feedback != "human":
            return config
        clicks = CLICKS
    if config.feedback.source != "human":
        raise ConfigError(
            f"clicks is {clicks}, but feedback is {config.feedback.source!r}, which nobody clicks for; set feedback to 'human', or leave clicks out"
        )
    if given:
        raise ConfigError(f"clicks is {clicks}, from which {given[0]} follows, and it is set too; leave one of them out")
    each = questions_of_a_prompt(config) * clicks_of_a_question(config) * config.feedback.overlap
    if clicks < each:
        raise ConfigError(f"clicks is {clicks}, but the questions about one prompt take {each}; give {each} or more")
    usual = min(config.sampling.prompts_per_round, prompts)
    rounds = max(1, round(clicks / (usual * each)), math.ceil(clicks // each / prompts))
    a_round = clicks // (rounds * each)
    return override(config, {"rounds": str(rounds), "sampling.prompts_per_round": str(a_round)}, where="clicks")


def questions_of_a_prompt(config: RunConfig) -> int:
    """How many questions people are asked about a prompt's pictures."""
    images = config.sampling.images_per_prompt
    if config.feedback.ask == "pair":
        return min(config.feedback.pairs_per_prompt or math.comb(images, 2), math.comb(images, 2))
    return images if config.feedback.ask in ("thumb", "score") else 1


def clicks_of_a_question(config: RunConfig) -> int:
    """The clicks that an answer takes: one for a pair, a thumb or a score, two for best and worst, K - 1 for an order; half of a grid is marked."""
    images = config.sampling.images_per_prompt
    return {"best_worst": 2, "rank": images - 1, "grid": math.ceil(images / 2)}.get(config.feedback.ask, 1)


def what_to_expect(config: RunConfig) -> list[str]:
    """What people will be asked, in words."""
    feedback, evaluation, rounds = config.feedback, config.evaluation, config.rounds
    questions, clicks = questions_of_a_prompt(config) * config.sampling.prompts_per_round, clicks_of_a_question(config)
    shown = SHOWN[feedback.ask].format(config.sampling.images_per_prompt)
    people = f" by {feedback.overlap} people each" if feedback.overlap > 1 else ""
    between = evaluation.blind_between_rounds * (rounds - 1) if evaluation.every_round else 0
    blind = (between + evaluation.blind_questions) * feedback.overlap
    return [
        f"{_count(rounds, 'round')} x {_count(questions, 'question')} ({shown}) x {_count(clicks, 'click')}{people}: "
        f"{rounds * questions * clicks * feedback.overlap} clicks",
        f"and {_count(blind, 'blind question')}, base or tuned, one click each: {between * feedback.overlap} between the rounds, "
        f"{evaluation.blind_questions * feedback.overlap} at the end",
    ]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
