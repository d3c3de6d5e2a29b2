"""The paper's recipes: each through a whole round on a tiny pipeline of its classes, overriding nothing but sizes and where weights lie."""

import threading
import uuid
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from d3po.preferences.records import Answer, Assigned, Cast
from d3po.recipes import about_recipe, recipe_names
from d3po.run.feedback.people import questions_of
from d3po.run.folder import RunFolder
from d3po.run.loop import run_rounds
from d3po.run.opened import open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.store import Store
from tests.e2e.conftest import d3po
from tests.tiny.judges import save_aesthetic

SIZES = {
    "rounds": 1,
    "sampling.steps": 3,
    "sampling.prompts_per_round": 2,
    "evaluation.prompts": 1,
    "evaluation.images_per_prompt": 2,
    "training.micro_batch_size": 64,
}


@pytest.fixture(scope="module")
def aesthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_aesthetic(tmp_path_factory.mktemp("aesthetic"))


def answer(item: Assigned) -> Answer:
    """What a person says who likes later pictures better."""
    newest = max(item.shown)
    if item.kind == "grid":
        return Answer(outcome="marks", values={image: 1.0 for image in item.shown if image != newest})
    return Answer(outcome="win", winner=newest)


def rate(store: Store, name: str) -> int:
    """A person answers all questions; returns how many there were."""
    who, done = store.people.annotator(name, "human").id, 0
    while items := store.questions.lease(who, 4):
        for item in items:
            store.votes.cast(Cast(id=str(uuid.uuid4()), assignment=item.assignment, annotator=who, answer=answer(item), rt_ms=500))
            done += 1
    return done


def run_with_raters(session: Session) -> None:
    """The run goes to its end while people answer the blind test, which it waits for."""
    runner = threading.Thread(target=run_rounds, args=(session,), daemon=True)
    runner.start()
    while runner.is_alive():
        for i in range(session.run.config.feedback.overlap):
            rate(session.run.store, f"rater {i}")
        runner.join(0.1)


@pytest.mark.parametrize("name", [name for name in recipe_names() if about_recipe(name).extends == "paper"])
def test_a_whole_round(name: str, tmp_path: Path, tiny_model: Path, aesthetic: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    weights = {"feedback.reward": f"aesthetic:{aesthetic}"} if name == "paper-aesthetic" else {}
    sets = [word for key, value in (SIZES | weights).items() for word in ("--set", f"{key}={value}")]
    made = d3po("init", tmp_path / "run", "--recipe", name, "--model", tiny_model, *sets)
    assert made.returncode == 0, made.stderr
    folder = RunFolder(path=tmp_path / "run")
    config = folder.config()
    session = Session(open_run(folder, config=config))
    if config.feedback.source == "human":
        folder.mark_started(config)
        sample_round(session, 0)
        questions = questions_of(session.run, 0)
        session.run.store.questions.ask(questions)
        answered = [rate(session.run.store, f"rater {i}") for i in range(config.feedback.overlap)]
        assert answered == [len(questions)] * config.feedback.overlap
        run_with_raters(session)
        assert session.run.store.votes.count(purpose="blind") == 2 * config.feedback.overlap
    else:
        run_rounds(session)
    (metrics,) = {update["round"] for update in folder.read_metrics()}
    assert (metrics, session.run.trained_rounds()) == (0, 1)
    assert all(0.683 <= update["loss"] <= 0.703 for update in folder.read_metrics())
    assert folder.report.exists()
    session.close()
