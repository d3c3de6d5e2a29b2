"""What a run's report is made of."""

import io

import numpy as np
import pytest
from PIL import Image

from d3po.evaluation.report import Report
from d3po.preferences.records import Answer, NewQuestion
from d3po.run.evaluate import report as module
from d3po.run.evaluate.phase import evaluate
from d3po.run.evaluate.report import write_report
from d3po.run.opened import OpenRun
from d3po.training.guards import Alarm
from tests.unit.run.conftest import SessionWith, say
from tests.unit.run.rounds import evaluate_both, train


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What is to be shown, instead of the page."""
    shown: list[Report] = []

    def render(report: Report) -> tuple[str, bytes]:
        shown.append(report)
        return "page", b"grid"

    monkeypatch.setattr(module, "render", render)
    return shown


def blind(run: OpenRun, tuned: int) -> None:
    """Somebody prefers the tuned picture to the base model's other one, not knowing which is which."""
    base, *_ = (picture.id for picture in run.store.pictures.series("held-out/base"))
    question = NewQuestion(kind="pair", purpose="blind", images=(base, tuned), round=None)
    who = run.store.people.annotator("ada", "human").id
    run.store.votes.record_judgements(who, [(question, Answer(outcome="win", winner=tuned))])


def test_a_report_has_every_round_that_was_measured_and_what_else_is_known(session_with: SessionWith, reports: list[Report]) -> None:
    session = session_with({"feedback.reward": "brightness", "database": ""})
    run = session.run
    evaluate_both(session, 2.0)
    for message in "fedcbaa":
        run.raise_alarm(Alarm(guard="kl", message=message, stops=False), 0)
    run.folder.metrics.write_text('{"round": 0, "update": 0, "loss": 0.5}\n')
    blind(run, run.store.pictures.series("held-out/round-000")[1].id)
    assert write_report(run, 1, "it went wrong") == run.folder.report
    (report,) = reports
    assert [(point.rounds, point.comparisons) for point in report.points] == [(0, 0), (1, 0)]
    assert (report.points[0].win_rate.value, report.points[1].win_rate.value) == (0.5, 1.0)
    assert report.points[1].mean_score > report.points[0].mean_score
<<<<<<< HEAD
    assert (report.title, report.reward, report.stopped, report.seed) == ("run", "brightness", "it went wrong", 0)
    assert report.alarms == [(0, "kl", "first"), (0, "kl", "second")], "each once, in order"
=======
    assert (report.title, report.judge, report.stopped, report.seed) == ("run", "brightness", "it went wrong", 0)
    assert report.alarms == [(0, "kl", message) for message in "abcdef"], "each once, in order"
>>>>>>> units
    assert report.updates == [{"round": 0, "update": 0, "loss": 0.5}]
    assert report.blind is not None
    assert (report.blind[0].value, report.blind[1]) == (1.0, 1)
    assert report.agreement == {}
    (row,) = report.rows
    assert (row.prompt, row.before.shape, row.after.shape) == ("a bee", (2, 4, 4, 3), (2, 4, 4, 3))
    assert (row.after == 255).all()
    assert (row.before != 255).any()
    assert 'reward = "brightness"' in report.config
    assert {"d3po", "torch", "python", "platform"} <= report.versions.keys()
    assert (run.folder.report.read_text(), (run.folder.path / "before-after.png").read_bytes()) == ("page", b"grid")


def test_a_round_that_was_not_measured_is_left_out(session_with: SessionWith, reports: list[Report]) -> None:
    session = session_with()
    evaluate(session, 0)
    train(session, 1.0)
    write_report(session.run, 1, None)
    assert [point.rounds for point in reports[0].points] == [0]
    assert (reports[0].rows[0].before == reports[0].rows[0].after).all()
    assert (reports[0].stopped, reports[0].blind) == (None, None)


def test_how_far_people_agreed_is_said_of_each_round_where_several_were_asked(session_with: SessionWith, reports: list[Report]) -> None:
    session = session_with({"feedback.source": "human", "feedback.overlap": "2"})
    evaluate_both(session, 1.0)
    write_report(session.run, 1, None)
    for judge in ("ada", "bo"):
        for winner, loser in ((1, 2), (3, 2), (5, 4), (6, 4)):
            say(session.run, winner, loser, who=judge)
    session.run.store.batches.claim(0)
    write_report(session.run, 1, None)
    nothing, all_agree = (report.agreement for report in reports)
    assert nothing == {0: None}
    assert all_agree.keys() == {0}
    assert all_agree[0] is not None
    assert all_agree[0].value == 1.0


def test_few_pictures_of_each_prompt_are_shown(session_with: SessionWith, reports: list[Report]) -> None:
    session = session_with({"evaluation.images_per_prompt": "6"}, sampled=False)
    (session.run.folder.path / "held_out.txt").write_text("a bee\nan ant\n")
    evaluate(session, 0)
    write_report(session.run, 0, None)
    assert [(row.prompt, len(row.before), len(row.after)) for row in reports[0].rows] == [("a bee", 4, 4)], (
        "of the only one that was measured"
    )


def test_the_page_needs_no_other_file_and_tells_why_the_run_stopped(session_with: SessionWith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3po.evaluation.report.svg", lambda figure: "")  # drawing takes longer than everything else
    session = session_with()
    evaluate_both(session, 2.0)
    page = write_report(session.run, 1, "a <guard> fired").read_text()
    assert "a &lt;guard&gt; fired" in page
    assert "a bee" in page
    assert page.count("data:image/png;base64,") >= 4
    grid = np.asarray(Image.open(io.BytesIO((session.run.folder.path / "before-after.png").read_bytes())))
    assert grid.shape == (4 * 24, (2 * 4 + 6 + 2 * 4) * 24, 3), "enlarged to 96 pixels a picture, 6 between before and after"
    assert (grid[:, -2 * 4 * 24 :] == 255).all()


def test_what_was_measured_is_not_measured_again(session_with: SessionWith) -> None:
    session = session_with()
    first = evaluate(session, 0)
    session.run.criteria = (lambda image, prompt: pytest.fail("measured again"),)
    assert evaluate(session, 0) == first
