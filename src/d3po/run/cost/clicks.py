"""How many clicks a run asks of people, and the rounds and prompts per round for a given number of clicks."""

import math
from collections.abc import Collection

from d3po.annotation.selection import number_of_pairs
from d3po.config import RunConfig, override
from d3po.errors import ConfigError

CLICKS = 100
"""The default number of clicks of a run that people judge."""
CHOSEN = ("rounds", "sampling.prompts_per_round")
"""The settings that are computed from the number of clicks."""
SHOWN = {
    "pair": "two pictures",
    "best_worst": "best and worst of {}",
    "rank": "an order of {}",
    "grid": "the bad ones of {}",
    "thumb": "a picture",
    "score": "a picture",
}
"""What a question shows, by question kind."""


def with_clicks(config: RunConfig, clicks: int | None, *, feedback: str, prompts: int, said: Collection[str]) -> RunConfig:
    """Choose the rounds and the prompts per round so that the clicks are spent, never more; returns the new settings.

    Args:
        config: the settings so far. Its number of prompts per round is kept as far as the clicks allow.
        clicks: the number of clicks. None means `CLICKS` if `feedback` is "human" and `said` has none of the `CHOSEN` settings, else no change.
        feedback: who compares, as the user said; empty if the user did not say.
        prompts: the number of prompts of the run.
        said: the dotted names of the settings that the user has set.

    Raises:
        ConfigError: the clicks are too few for one prompt, people do not judge the run, or the user has also set one of the `CHOSEN` settings.
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
    """The number of questions about the pictures of one prompt."""
    images = config.sampling.images_per_prompt
    if config.feedback.ask == "pair":
        return number_of_pairs(images, config.feedback.pairs_per_prompt)
    return images if config.feedback.ask in ("thumb", "score") else 1


def clicks_of_a_question(config: RunConfig) -> int:
    """The number of clicks of an answer: 1 for a pair, a thumb or a score, 2 for best and worst, K - 1 for an order, K / 2 marks for a grid."""
    images = config.sampling.images_per_prompt
    return {"best_worst": 2, "rank": images - 1, "grid": math.ceil(images / 2)}.get(config.feedback.ask, 1)


def what_to_expect(config: RunConfig) -> list[str]:
    """Two lines that say how many questions and clicks the run asks of people."""
    feedback, evaluation, rounds = config.feedback, config.evaluation, config.rounds
    questions, clicks = questions_of_a_prompt(config) * config.sampling.prompts_per_round, clicks_of_a_question(config)
    shown = SHOWN[feedback.ask].format(config.sampling.images_per_prompt)
    people = f" by {feedback.overlap} people each" if feedback.overlap > 1 else ""
    pictures = evaluation.prompts * evaluation.images_per_prompt
    between = min(evaluation.blind_between_rounds, pictures) * (rounds - 1) * feedback.overlap if evaluation.every_round else 0
    at_end = min(evaluation.blind_questions, pictures) * feedback.overlap
    return [
        f"{_count(rounds, 'round')} x {_count(questions, 'question')} ({shown}) x {_count(clicks, 'click')}{people}: "
        f"{rounds * questions * clicks * feedback.overlap} clicks",
        f"and {_count(between + at_end, 'blind question')}, base or tuned, one click each: {between} between the rounds, {at_end} at the end",
    ]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
