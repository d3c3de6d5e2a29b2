"""Runs judged by a vision-language model, by several criteria, and what their votes look like in the store."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from d3po.errors import ConfigError, RewardError
from d3po.run.evaluate.phase import evaluate
from d3po.run.feedback.measured import compare_round
from d3po.run.feedback.vision_model import judge_by_model
from d3po.run.folder import RunFolder
from d3po.run.loop import collect_feedback
from d3po.run.opened import open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.scorers.registry import load_reward, score_file
from tests.e2e.conftest import d3po
from tests.unit.vlm.stub_model import always_first, brighter, serving

MakeRun = Callable[..., RunFolder]
MODEL = {"feedback.source": '"model"', "vlm_judge.model": '"a model"', "vlm_judge.input_price": "10.0"}


def sampled(folder: RunFolder) -> Session:
    session = Session(open_run(folder))
    sample_round(session, 0)
    return session


def test_a_model_judges_a_round_as_an_annotator_of_its_own_kind(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(brighter) as stub:
        session = sampled(make_run(settings=MODEL | {"vlm_judge.url": f'"{stub.url}"'}))
        collect_feedback(session.run, 0)
        judge_by_model(session.run, 0)
    votes = list(session.run.store.votes.current())
    (annotator,) = [each for each in session.run.store.people.annotators() if each.id == votes[0].annotator]
    assert (annotator.kind, annotator.handle.split("#")[0]) == ("model", "model:a model")
    assert len(votes) == 4 * 3
    assert len(stub.asked) <= 2 * len(votes)
    brightness = {
        image.id: score_file((load_reward("brightness", print),), session.run.folder.path / image.path, "")[0]
        for image in session.run.store.pictures.images(0)
    }
    wins = [vote for vote in votes if vote.answer.outcome == "win"]
    assert wins
    assert all(brightness[vote.answer.winner or 0] == max(brightness[image] for image in vote.images) for vote in wins)
    record = json.loads((session.run.folder.verdicts / "round-000.json").read_text())
    assert record["consistent"] == {"count": 12, "total": 12}
    said = capsys.readouterr().out
    assert "12 pairs in both orders, 24 calls" in said
    assert "was consistent on 1.00" in said
    assert f"it cost {len(stub.asked) * 100 * 10 / 1e6:.2f}" in said


def test_a_judge_that_contradicts_itself_is_refused_and_nothing_is_recorded(make_run: MakeRun) -> None:
    with serving(always_first) as stub:
        session = sampled(make_run(settings=MODEL | {"vlm_judge.url": f'"{stub.url}"'}))
        with pytest.raises(
            RewardError, match=r"same answer in both orders for only 0% of the pairs, and vlm_judge\.min_consistency is 60%"
        ):
            judge_by_model(session.run, 0)
    assert session.run.store.votes.count(round=0) == 0


def test_a_model_without_an_address_is_refused_at_once(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match=r"needs vlm_judge\.url and vlm_judge\.model"):
        make_run(settings=MODEL)


def test_a_judge_that_cannot_be_had_is_said_so_before_any_picture_is_made(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(settings={"feedback.reward": '"clip_score:/no/such/folder"'})
    session = Session(open_run(folder))
    with pytest.raises(RewardError, match="scorer clip_score cannot be loaded"):
        evaluate(session, 0)
    assert not folder.images("held-out").exists()
    monkeypatch.setattr("d3po.run.needs.find_spec", lambda name: None)
    asking = make_run("asking", settings=MODEL | {"vlm_judge.url": '"http://localhost:9/v1"'})
    with pytest.raises(ConfigError, match=r"needs the package tenacity.*pip install 'd3po\[vision\]'"):
        Session(open_run(asking))


def test_a_dry_run_says_what_judging_will_cost(make_run: MakeRun) -> None:
    folder = make_run(settings=MODEL | {"vlm_judge.url": '"http://localhost:9/v1"'})
    assert "24 pairs in both orders, 48 calls" in d3po("run", folder.path, "--dry-run").stdout


def test_by_several_criteria_the_dominated_lose_and_the_rest_tie(make_run: MakeRun, tmp_path: Path) -> None:
    session = sampled(make_run(settings={"feedback.reward": '"pareto:brightness+colourfulness"'}))
    compare_round(session.run, 0)
    criteria = session.run.criteria
    scores = {image.id: score_file(criteria, session.run.folder.path / image.path, "") for image in session.run.store.pictures.images(0)}
    for vote in session.run.store.votes.current():
        a, b = vote.images
        better = {x > y for x, y in zip(scores[a], scores[b], strict=True)}
        expected = "tie" if len(better) == 2 else "win"
        assert vote.answer.outcome == expected
    base = evaluate(session, 0)
    kept = json.loads(session.run.folder.evaluation("base").read_text())["scores"]
    assert base.mean_score == pytest.approx(sum(sum(pair) for row in kept for pair in row) / 4)
