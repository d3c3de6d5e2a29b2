"""The dashboard beside a real run: everything it shows comes from a trainer at work, and the trainer does what it is told there."""

from pathlib import Path

import pytest

from d3po.config import override
from d3po.recipes import load_recipe
from d3po.run.folder import RunFolder, create_run
from d3po.run.prompts import choose_prompts
from d3po.store import Store
from tests.web.browser.conftest import OpenContext
from tests.web.browser.rater import Rater
from tests.web.serving import serving, training

SETTINGS = {
    "rounds": "2",
    "sampling.steps": "3",
    "sampling.guidance": "1.0",
    "sampling.prompts_per_round": "3",
    "sampling.images_per_prompt": "2",
    "feedback.source": "human",
    "training.epochs": "1",
    "evaluation.prompts": "2",
    "evaluation.images_per_prompt": "2",
    "guards.action": "warn",
    "tracking.tensorboard": "false",
}

TRAINERS_PATIENCE_MS = 120_000
"""A process that starts, loads a model and samples, on a machine that has much else to do."""

HURRIED = "const later = window.setTimeout; window.setTimeout = (work, ms, ...rest) => later(work, Math.min(ms, 250), ...rest);"
"""The dashboard's waits between two looks, cut short."""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    prompts, held_out = choose_prompts(None, None, skip_empty=False)
    return create_run(tmp_path / "tiny", override(load_recipe("demo"), SETTINGS, where="test"), prompts=prompts, held_out=held_out)


def test_the_dashboard_follows_and_steers_a_run(run: RunFolder, context: OpenContext, screenshots: Path) -> None:
    with training(run.path) as trainer, serving(run.path) as server:
        both = context(viewport={"width": 1280, "height": 1000})
        board, tab = Rater(both, server.url).enter(server.link), Rater(both, server.url)
        board.page.add_init_script(HURRIED)
        board.page.goto(f"{server.url}/dashboard")
        board.page.wait_for_selector("#now-title:has-text('Rating, round 0')", timeout=TRAINERS_PATIENCE_MS)
        assert "after the first round" in board.text("#tiles"), "the base model has won nothing over itself"
        assert "after the first round" in board.page.locator("#tiles .tile.headline").inner_text()
        board.keep(screenshots, "live-rating")

        tab.open().answer("ArrowLeft").answer("ArrowRight").wait(unsaved=0)
        board.wait(votes=2)
        assert "2 of 3" in board.text("#rounds")

        board.page.click("[data-control=pause]")
        board.wait(paused=True)
        board.page.click("[data-control=train_now]")
        board.page.click("#confirm-yes")
        board.page.wait_for_selector("[data-control=train_now]:disabled")
        tab.page.wait_for_timeout(1500)
        assert not run.checkpoints.exists() or not list(run.checkpoints.iterdir()), "a paused run does not train"
        board.keep(screenshots, "live-paused")
        board.page.click("[data-control=resume]")

        board.page.wait_for_selector("#now-title:has-text('Rating, round 1')", timeout=TRAINERS_PATIENCE_MS)
        assert board.page.locator("#tiles .figure").nth(2).inner_text().endswith("%"), "the win rate after round 0"
        assert "Win rate by warmth" in board.text("#tiles")
        assert "owner" in board.text("#people")
        board.page.screenshot(path=screenshots / "live-round-1.png", full_page=True)
        tab.wait(state="rating")

        board.page.click("[data-control=stop]")
        board.page.click("#confirm-yes")
        said = trainer.communicate(timeout=TRAINERS_PATIENCE_MS / 1000)[0]
        assert trainer.returncode == 0, said
        assert "continues from here" in said
        board.wait(phase="stopped")
        board.keep(screenshots, "live-stopped")
        assert board.complaints == tab.complaints == []
    store = Store.in_folder(run.path)
    assert len(store.batches.votes(0) or []) == 2
    store.close()
