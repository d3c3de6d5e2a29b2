"""A number of clicks becomes rounds and prompts a round, and what people are asked is said."""

import pytest

from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.run.cost.clicks import clicks_of_a_question, questions_of_a_prompt, what_to_expect, with_clicks
from d3po.run.starting import settings_for_feedback


def asking(**settings: object) -> RunConfig:
    """People are asked; settings of [feedback], and of [sampling] where they are of pictures."""
    dotted = {f"{'sampling' if 'per' in key and 'pairs' not in key else 'feedback'}.{key}": str(value) for key, value in settings.items()}
    return override(RunConfig(), {"feedback.source": "human", "sampling.images_per_prompt": "4"} | dotted, where="test")


@pytest.mark.parametrize(
    ("settings", "questions", "clicks"),
    [
        ({"ask": "pair"}, 6, 1),
        ({"ask": "pair", "pairs_per_prompt": 2}, 2, 1),
        ({"ask": "best_worst"}, 1, 2),
        ({"ask": "rank"}, 1, 3),
        ({"ask": "grid"}, 1, 2),
        ({"ask": "thumb"}, 4, 1),
        ({"ask": "score", "images_per_prompt": 3}, 3, 1),
    ],
)
def test_a_question_takes_as_many_clicks_as_its_kind_needs(settings: dict[str, object], questions: int, clicks: int) -> None:
    config = asking(**settings)
    assert (questions_of_a_prompt(config), clicks_of_a_question(config)) == (questions, clicks)


@pytest.mark.parametrize(
    ("clicks", "settings", "prompts", "rounds", "a_round"),
    [
        (100, {"ask": "best_worst"}, 128, 3, 16),
        (60, {"ask": "best_worst"}, 128, 2, 15),
        (10, {"ask": "best_worst"}, 128, 1, 5),
        (100, {"ask": "best_worst"}, 5, 10, 5),
        (100, {"ask": "best_worst", "overlap": 2}, 128, 2, 12),
        (100, {"ask": "pair", "pairs_per_prompt": 1}, 128, 6, 16),
    ],
)
def test_clicks_are_spent_on_rounds_of_the_usual_size(
    clicks: int, settings: dict[str, object], prompts: int, rounds: int, a_round: int
) -> None:
    config = with_clicks(asking(**settings), clicks, feedback="human", prompts=prompts, said=())
    assert (config.rounds, config.sampling.prompts_per_round) == (rounds, a_round)


@pytest.mark.parametrize("clicks", [*range(2, 40), 1000])
def test_never_more_clicks_are_asked_for_than_there_are(clicks: int) -> None:
    config = with_clicks(asking(ask="best_worst"), clicks, feedback="human", prompts=7, said=())
    spent = 2 * config.rounds * config.sampling.prompts_per_round
    assert clicks - 2 * config.rounds < spent <= clicks


def test_who_says_human_and_no_more_gets_a_hundred_clicks_and_who_says_rounds_gets_these() -> None:
    usual = asking(ask="best_worst")
    assert with_clicks(usual, None, feedback="human", prompts=128, said=()).rounds == 3
    assert with_clicks(usual, None, feedback="human", prompts=128, said=("rounds",)) == usual
    assert with_clicks(usual, None, feedback="", prompts=128, said=()) == usual, "a recipe for people has rounds of its own"


@pytest.mark.parametrize(
    ("config", "clicks", "said", "message"),
    [
        (
            RunConfig(),
            50,
            (),
            "clicks is 50, but feedback is 'reward', which nobody clicks for; set feedback to 'human', or leave clicks out",
        ),
        (asking(ask="best_worst"), 1, (), "clicks is 1, but the questions about one prompt take 2; give 2 or more"),
        (asking(ask="best_worst"), -3, (), "clicks is -3, but the questions about one prompt take 2; give 2 or more"),
        (
            asking(ask="pair"),
            50,
            ("sampling.prompts_per_round",),
            "clicks is 50, from which sampling.prompts_per_round follows, and it is set too; leave one of them out",
        ),
    ],
)
def test_clicks_that_cannot_be_spent_are_refused_in_one_line(config: RunConfig, clicks: int, said: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        with_clicks(config, clicks, feedback="", prompts=128, said=said)
    assert str(refused.value) == message


def test_people_are_asked_for_best_and_worst_of_four_unless_somebody_says_otherwise() -> None:
    assert settings_for_feedback("human", {})["feedback.ask"] == "best_worst"
    assert settings_for_feedback("human", {"feedback.ask": "pair"}) == {"feedback.source": "human"}
    assert settings_for_feedback("reward", {}) == {"feedback.source": "reward"}


def test_what_to_expect_is_said_with_the_blind_questions() -> None:
    config = override(asking(ask="best_worst", prompts_per_round=16), {"rounds": "3"}, where="test")
    assert what_to_expect(config) == [
        "3 rounds x 16 questions (best and worst of 4) x 2 clicks: 96 clicks",
        "and 24 blind questions, base or tuned, one click each: 8 between the rounds, 16 at the end",
    ]
    twice = override(config, {"feedback.overlap": "2", "evaluation.every_round": "false", "rounds": "1"}, where="test")
    assert what_to_expect(twice) == [
        "1 round x 16 questions (best and worst of 4) x 2 clicks by 2 people each: 64 clicks",
        "and 32 blind questions, base or tuned, one click each: 0 between the rounds, 32 at the end",
    ]
