"""How much work a round is, by hand, for every kind of objective."""

import pytest

from d3po.config import RunConfig, override
from d3po.run.cost.counting import Forwards, Shape, evaluated_images, sampled_forwards, work_of_round
from d3po.run.starting import settings_for_objective

SHAPE = Shape(steps=10, stochastic=9, trained=5, guided_forwards=2)
SETTINGS = {
    "sampling.prompts_per_round": "4",
    "sampling.images_per_prompt": "4",
    "training.epochs": "3",
    "training.prompts_per_update": "3",
    "objective.reference": "per_round",
}
IMAGES = 16
SAMPLED = IMAGES * 10 * 2
SEEN = 3 * IMAGES * 5
"""Epochs, images, steps: what an update reads over a round, before guidance."""
MEASURED = 2 * 3 * 4 * 5
"""Policy and reference, epochs, prompts, steps: what only measures the KL, before guidance."""


def config(objective: str = "d3po", **settings: str) -> RunConfig:
    return override(
        RunConfig(),
        SETTINGS | settings_for_objective(objective) | {key.replace("__", "."): value for key, value in settings.items()},
        where="",
    )


def forwards(objective: str = "d3po", *, round: int = 1, **settings: str) -> Forwards:
    return work_of_round(config(objective, **settings), SHAPE, round).forwards


def test_a_round_of_trajectories_reads_guided_steps_and_knows_its_sampler() -> None:
    assert forwards() == Forwards(sampling=SAMPLED, reference=0, training=SEEN * 2)


def test_without_guidance_everything_costs_half() -> None:
    assert forwards(sampling__guidance="1.0") == Forwards(sampling=IMAGES * 10, reference=0, training=SEEN)


@pytest.mark.parametrize(("round", "reference"), [(0, 0), (1, IMAGES * 9 * 2)])
def test_another_reference_than_the_sampler_is_asked_of_every_step_that_has_a_density(round: int, reference: int) -> None:
    assert forwards(round=round, objective__reference="fixed").reference == reference


def test_training_without_guidance_asks_the_sampler_again_from_the_first_round_on() -> None:
    assert forwards(round=0, training__guided="false") == Forwards(sampling=SAMPLED, reference=IMAGES * 9 + MEASURED * 2, training=SEEN)
    unguided = {"training__guided": "false", "sampling__guidance": "1.0"}
    assert forwards(round=0, **unguided) == Forwards(sampling=IMAGES * 10, reference=IMAGES * 9, training=SEEN), (
        "what is trained is what is sampled"
    )


@pytest.mark.parametrize(
    ("objective", "reference", "training"),
    [
        ("ddpo", 0, SEEN * 2),
        ("dpok", SEEN * 2, SEEN * 2),  # the pretrained model's step, for the exact KL
        ("diffusion_dpo", SEEN + MEASURED * 2, SEEN),  # pictures are never guided; the reference looks at each noised picture too
        ("mapo", 2 * 5 * 2, SEEN),  # the round's last update, of one prompt, measures the KL to the pretrained model
        ("sft", 2 * 5 * 2, SEEN),
        ("kto", 3 * SEEN + MEASURED * 2, SEEN),  # policy and reference for the mean, the reference again for the loss
    ],
)
def test_what_each_objective_costs(objective: str, reference: int, training: int) -> None:
    assert forwards(objective, round=0) == Forwards(sampling=SAMPLED, reference=reference, training=training)


def test_images_that_branch_are_trained_in_one_step() -> None:
    assert forwards("d3po_branch").training == 3 * IMAGES * 2


def test_labels_are_pairs_or_judged_pictures() -> None:
    by_objective = {name: work_of_round(config(name), SHAPE, 0).labels for name in ("d3po", "kto", "ddpo")}
    assert by_objective == {"d3po": 4 * 6, "kto": 16, "ddpo": 16}


def test_only_pictures_in_pairs_are_heard_of_where_pairs_are_few() -> None:
    one = {"feedback__pairs_per_prompt": "1"}
    assert work_of_round(config(**one), SHAPE, 0).labels == 4
    assert work_of_round(config("kto", **one), SHAPE, 0).labels == 8
    assert work_of_round(config("ddpo", **one), SHAPE, 0).labels == 16, "scores are measured of every picture"
    assert work_of_round(config(**one), SHAPE, 1).forwards.training == 3 * 8 * 5 * 2


def test_updates_and_evaluated_pictures() -> None:
    assert work_of_round(config(), SHAPE, 0).updates == 3 * 2
    asked = config(rounds="5", evaluation__prompts="2", evaluation__images_per_prompt="3")
    assert evaluated_images(asked) == 6 * 6
    assert evaluated_images(override(asked, {"evaluation.every_round": "false"}, where="")) == 2 * 6
    assert sampled_forwards(asked, SHAPE, 6) == 6 * 10 * 2
