"""Who compares, and what training is told of it: without a model."""

import pytest

from d3po.preferences.records import QuestionKind
from d3po.run.feedback.labels import is_instructive, judgements_learnt_from, labels_of_round, labels_one_by_one, votes_learnt_from
from d3po.run.feedback.measured import compare_round, measured, pairs_of_round
from d3po.run.feedback.people import ask_people, questions_of
from d3po.store.pictures import NewPicture
from tests.unit.preferences.votes import tied, won
from tests.unit.run.conftest import GREYS, OpenWith, grey, say

SCORES = [(pytest.approx(value / 255),) for greys in GREYS for value in greys]


def test_a_picture_is_measured_once(open_with: OpenWith) -> None:
    run = open_with()
    images = run.store.pictures.images(0)
    assert [measured(run, image) for image in images] == SCORES
    (run.folder.path / images[0].path).unlink()
    assert measured(run, images[0]) == SCORES[0]


def test_a_reward_prefers_what_measures_more_in_every_pair_and_says_so_once(open_with: OpenWith) -> None:
    run = open_with()
    compare_round(run, 0)
    compare_round(run, 0)
    won_by = {vote.images: vote.answer.winner for vote in run.store.votes.current(round=0)}
    assert won_by == {(1, 2): 2, (1, 3): 3, (2, 3): 2, (4, 5): 5, (4, 6): 6, (5, 6): 6}


def test_some_pairs_of_each_prompt_are_drawn_and_always_the_same(open_with: OpenWith) -> None:
    run = open_with({"feedback.pairs_per_prompt": "2"})
    images = run.store.pictures.images(0)
    pairs = pairs_of_round(run, images)
    assert pairs == pairs_of_round(run, images)
    assert [len({pair for pair in pairs if max(pair) <= 3}), len({pair for pair in pairs if min(pair) > 3})] == [2, 2]


def test_a_round_is_learnt_from_as_it_stood_when_training_first_asked(open_with: OpenWith) -> None:
    run = open_with({"feedback.source": "human"})
    say(run, 2, 1)
    assert [(c.image_a, c.image_b, c.target) for c in labels_of_round(run, 0).comparisons] == [(1, 2, 0.0)]
    say(run, 3, 1, who="bo")
    assert len(labels_of_round(run, 0)) == judgements_learnt_from(run, 0) == len(votes_learnt_from(run, 1)) == 1
    assert [(label.image, label.value) for label in labels_one_by_one(run, 0)] == [(1, -1.0), (2, 1.0)]


def test_an_objective_on_likes_reads_the_same_votes_one_by_one(open_with: OpenWith) -> None:
    run = open_with({"feedback.source": "human", "objective.name": "kto"})
    say(run, 2, 1)
    told = labels_of_round(run, 0)
    assert told.comparisons == []
    assert [(label.image, label.value) for label in told.images] == [(1, -1.0), (2, 1.0)]


def test_an_objective_on_scores_reads_the_reward_itself(open_with: OpenWith) -> None:
    run = open_with({"objective.name": "ddpo"})
    told = labels_of_round(run, 0)
    assert [(label.value,) for label in told.images] == SCORES
    assert votes_learnt_from(run, 1) == []


def test_imported_votes_on_held_out_prompts_are_left_out_and_counted(open_with: OpenWith) -> None:
    run = open_with({"feedback.source": "imported", "objective.name": "diffusion_dpo"}, sampled=False)
    prompts = run.store.pictures.add_prompts(["a fox", "A  bee"])
    files = [grey(run, str(place), 50 * place) for place in range(4)]
    pictures = [NewPicture(prompt=prompts[i // 2], number=i % 2, path=path, sha256=digest) for i, (path, digest) in enumerate(files)]
    ids = run.store.pictures.add_pictures(series="mine", origin="imported", model="none", policy="", seed=None, pictures=pictures)
    say(run, ids[0], ids[1], round=None)
    say(run, ids[2], ids[3], round=None)
    told = labels_of_round(run, 0)
    assert [(c.image_a, c.image_b) for c in told.comparisons] == [(ids[0], ids[1])]
    assert told.held_out == 1


@pytest.mark.parametrize("objective", ["d3po", "sft", "kto"])
def test_ties_alone_teach_nothing(open_with: OpenWith, objective: str) -> None:
    run = open_with({"objective.name": objective})
    assert not is_instructive(run, [tied(1, 2)])
    assert is_instructive(run, [tied(1, 2), won(2, 3)])


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("pair", {(1, 2), (1, 3), (2, 3), (4, 5), (4, 6), (5, 6)}),
        ("rank", {(1, 2, 3), (4, 5, 6)}),
        ("best_worst", {(1, 2, 3), (4, 5, 6)}),
        ("thumb", {(1,), (2,), (3,), (4,), (5,), (6,)}),
    ],
)
def test_people_are_asked_of_every_prompt_once_before_of_any_twice(
    open_with: OpenWith, kind: QuestionKind, asked: set[tuple[int, ...]]
) -> None:
    questions = questions_of(open_with({"feedback.ask": kind}), 0)
    assert {tuple(sorted(question.images)) for question in questions} == asked
    in_order = [max(question.images) <= 3 for question in sorted(questions, key=lambda question: question.priority)]
    assert all(in_order[i] != in_order[i + 1] for i in range(0, len(in_order), 2))


def test_people_who_have_answered_are_not_waited_for(open_with: OpenWith) -> None:
    run = open_with({"feedback.source": "human", "feedback.quota": "1"})
    say(run, 2, 1)
    ask_people(run, 0)
    assert len(run.store.batches.votes(0) or []) == 1
