"""A round judged by a vision-language model: what becomes votes, what is kept, what is refused."""

import json
from contextlib import closing
from typing import Any

import pytest

from d3po.errors import ConfigError, RewardError
from d3po.run.feedback.vision_model import check_judge, judge_by_model, judging_estimate
from d3po.run.opened import OpenRun, open_run
from d3po.store.pictures import NewPicture
from tests.unit.run.conftest import OpenWith, grey, said
from tests.unit.vlm.stub_model import Reply, Stub, always_first, brighter, completion, serving, stumbling, verdict, weighed

JUDGE = {"feedback.source": "model", "vlm_judge.model": "eye", "vlm_judge.concurrency": "1", "vlm_judge.attempts": "1"}
ONE = {"feedback.pairs_per_prompt": "1"}
"""Pair of each prompt."""
PRICES = {"vlm_judge.input_price": "10.0", "vlm_judge.output_price": "100.0"}


def at(stub: Stub, **more: str) -> dict[str, str]:
    """Settings of a run that asks this server."""
    return JUDGE | {"vlm_judge.url": stub.url} | {f"vlm_judge.{key}": value for key, value in more.items()}


def won(run: OpenRun) -> dict[tuple[int, ...], int | None]:
    """The winner of each pair."""
    return {vote.images: vote.answer.winner for vote in run.store.votes.current(round=0)}


def more(run: OpenRun) -> list[NewPicture]:
    """Two pictures of another round."""
    files = [grey(run, f"more-{value}", value) for value in (1, 2)]
    return [NewPicture(prompt=1, number=i, path=path, sha256=digest) for i, (path, digest) in enumerate(files)]


def test_the_models_answers_become_its_votes_and_are_asked_for_once(open_with: OpenWith) -> None:
    with serving(brighter) as stub:
        run = open_with(at(stub) | PRICES)
        judge_by_model(run, 0)
        assert won(run) == {(1, 2): 2, (1, 3): 3, (2, 3): 2, (4, 5): 5, (4, 6): 6, (5, 6): 6}
        assert len(stub.asked) == 12, "each pair in both orders"
        judge_by_model(run, 0)
        assert len(stub.asked) == 12
    (judge,) = [each for each in run.store.people.annotators() if each.kind == "model"]
    assert judge.handle.startswith("model:eye#")
    record = json.loads((run.folder.verdicts / "round-000.json").read_text())
    assert (record["model"], record["consistent"], record["first"]) == ("eye", {"count": 6, "total": 6}, {"count": 6, "total": 12})
    assert record["cost"] == pytest.approx(12 * (100 * 10 + 10 * 100) / 1e6), "12 calls that read 100 tokens and write 10"
    assert "round 0: asking eye about 6 pairs in both orders, 12 calls" in said(run)
    assert "it cost 0.02" in said(run)
    assert [entry.body["phase"] for entry in run.store.journal.read(kind="phase")] == ["judging"]


def test_a_share_is_voted_where_the_model_gives_its_log_probs(open_with: OpenWith) -> None:
    """Nine to one for what is shown first, then one to nine: both say nine to one for the same picture."""

    def sure(body: dict[str, Any], number: int) -> Reply:
        return weighed(first=0.9, second=0.1) if number % 2 == 0 else weighed(first=0.1, second=0.9)

    with serving(sure) as stub:
        run = open_with(at(stub) | ONE)
        judge_by_model(run, 0)
    (first, _) = run.store.votes.current(round=0)
    assert first.answer.outcome == "share"
    assert first.answer.values[first.images[0]] == pytest.approx(1 - first.answer.values[first.images[1]])
    assert max(first.answer.values.values()) > 0.8


def test_a_model_that_only_looks_at_the_place_is_not_believed(open_with: OpenWith) -> None:
    with serving(always_first) as stub:
        run = open_with(at(stub) | ONE)
        with pytest.raises(
            RewardError, match=r"eye gives the same answer in both orders for only 0% of the pairs, and vlm_judge\.min_consistency is 60%"
        ):
            judge_by_model(run, 0)
    assert won(run) == {}
    assert json.loads((run.folder.verdicts / "round-000.json").read_text())["first"] == {"count": 4, "total": 4}


def test_it_is_believed_where_the_settings_ask_for_no_more(open_with: OpenWith) -> None:
    with serving(always_first) as stub:
        run = open_with(at(stub, min_consistency="0.0") | ONE)
        judge_by_model(run, 0)
    assert [vote.answer.outcome for vote in run.store.votes.current(round=0)] == ["tie"] * 2


def test_what_was_answered_before_a_failure_is_not_asked_again(open_with: OpenWith) -> None:
    good = [verdict("first"), verdict("second")]
    with serving(stumbling(*good, (500, {}, b""))) as stub:
        run = open_with(at(stub) | ONE)
        with pytest.raises(RewardError, match="failed 1 times, last: 500"):
            judge_by_model(run, 0)
        assert won(run) == {}, "all of a round's votes, or none"
        failed = len(stub.asked)
        judge_by_model(run, 0)
        assert len(won(run)) == 2
        assert len(stub.asked) == failed + 2


def test_no_more_is_spent_than_the_cap_over_all_rounds(open_with: OpenWith) -> None:
    """A call costs 0.002; the third makes it pass half a hundredth."""
    with serving(brighter) as stub:
        run = open_with(at(stub, max_cost="0.005") | PRICES)
        for _ in range(2):
            with pytest.raises(RewardError, match=r"the judge has cost 0\.01 and vlm_judge\.max_cost is 0\.005"):
                judge_by_model(run, 0)
            assert len(stub.asked) == 3


def test_the_key_is_taken_from_the_variable_that_is_named(open_with: OpenWith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-mine")
    with serving(brighter) as stub:
        judge_by_model(open_with(at(stub, key_variable="MY_KEY") | ONE), 0)
        assert {headers["Authorization"] for headers in stub.headers} == {"Bearer sk-mine"}


def test_judges_by_other_criteria_are_other_judges(open_with: OpenWith) -> None:
    with serving(brighter) as stub:
        run = open_with(at(stub) | ONE)
        judge_by_model(run, 0)
        run.folder.change({"vlm_judge.criterion": "Which is sharper?"})
        with closing(open_run(run.folder, run.narrator)) as again:
            run.store.pictures.add_shard(round=1, number=0, path="s", checksum="none", images=more(run), model="", policy="", seed=0)
            judge_by_model(again, 1)
    assert len({each.handle for each in run.store.people.annotators() if each.kind == "model"}) == 2


def test_the_estimate_is_of_the_whole_run(open_with: OpenWith) -> None:
    run = open_with(JUDGE | PRICES | {"vlm_judge.url": "http://h/v1", "rounds": "3"}, sampled=False)
    assert judging_estimate(run).pairs == 3 * 2 * 3
    run.config = run.config.model_copy(update={"feedback": run.config.feedback.model_copy(update={"pairs_per_prompt": 1})})
    assert judging_estimate(run).pairs == 3 * 2
    assert judging_estimate(run).cost > 0


@pytest.mark.parametrize("url", ["localhost", "ftp://h/v1", "http://"])
def test_an_address_that_cannot_be_asked_is_refused_before_any_work(open_with: OpenWith, url: str) -> None:
    run = open_with(JUDGE | {"vlm_judge.url": "http://localhost:8000/v1"}, sampled=False)
    check_judge(run)
    run.config = run.config.model_copy(update={"vlm_judge": run.config.vlm_judge.model_copy(update={"url": url})})
    with pytest.raises(ConfigError, match=r"vlm_judge\.url"):
        check_judge(run)


def test_nonsense_counts_as_no_answer(open_with: OpenWith) -> None:
    with serving(lambda body, number: completion("I cannot say")) as stub:
        run = open_with(at(stub, min_consistency="0.0") | ONE)
        judge_by_model(run, 0)
    assert {vote.answer.outcome for vote in run.store.votes.current(round=0)} == {"skip"}
