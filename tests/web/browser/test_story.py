"""The whole story: somebody with a taste looks at the embedded model's pictures in a browser, clicks, and the model moves that way.

D3PO_STORY=full runs it at the size that docs/experiments.md reports: 60 clicks in two rounds.
"""

import io
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from d3po.config import override
from d3po.recipes import load_recipe
from d3po.run.folder import RunFolder, create_run
from d3po.run.prompts import choose_prompts
from d3po.scorers.pixels import warmth
from tests.web.browser.conftest import OpenContext
from tests.web.browser.rater import Rater
from tests.web.serving import serving, training

FULL = os.environ.get("D3PO_STORY") == "full"
ROUNDS = 2 if FULL else 1
QUESTIONS = 15 if FULL else 8
"""A question takes two clicks: the best of four pictures, and the worst."""
BLIND = 16 if FULL else 4
"""Of base and tuned, one click each; the questions between the rounds are left out."""
SETTINGS = {
    "seed": os.environ.get("D3PO_STORY_SEED", "4"),
    "rounds": str(ROUNDS),
    "sampling.prompts_per_round": str(QUESTIONS),
    "feedback.source": "human",
    "feedback.ask": "best_worst",
    "feedback.reward": "warmth",
    "sampling.steps": "20" if FULL else "8",
    "training.learning_rate": "2e-3" if FULL else "8e-3",
    "training.policy_ema": "0.0",
    "training.prompts_per_update": "2",
    "training.epochs": "5" if FULL else "4",
    "training.timestep_fraction": "0.25" if FULL else "0.5",
    "training.timestep_range": "[0, 1000]",
    "training.target_kl": "0.006" if FULL else "0.02",
    "evaluation.prompts": "24" if FULL else "6",
    "evaluation.blind_questions": str(BLIND),
    "evaluation.blind_between_rounds": "0",
    "guards.action": "warn",
    "tracking.tensorboard": "false",
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    prompts, held_out = choose_prompts(None, None, skip_empty=False)
    config = override(load_recipe("demo"), SETTINGS, where="test")
    return create_run(Path(os.environ.get("D3PO_STORY_RUN", tmp_path / "run")), config, prompts=prompts, held_out=held_out)


def warmest_and_coldest(tab: Rater) -> tuple[str, ...]:
    """The keys for the best and the worst of four, or the better of two, in the eyes of somebody who likes warm colours and sees only the page."""
    shown = tab.page.locator(".frame img")
    sources = [shown.nth(i).get_attribute("src") or "" for i in range(shown.count())]
    pictures = [Image.open(io.BytesIO(tab.page.request.get(f"{tab.url}{source}").body())) for source in sources]
    liking = [warmth(picture, "") for picture in pictures]
    if tab.fact("kind") == "pair":
        return ("ArrowLeft" if liking[0] > liking[1] else "ArrowRight",)
    return str(liking.index(max(liking)) + 1), str(liking.index(min(liking)) + 1)


def rate_until_done(tab: Rater, process: "subprocess.Popen[str]") -> int:
    """Answer whatever the page asks until the run ends; returns the clicks."""
    clicks, until = 0, time.monotonic() + 1200
    while process.poll() is None and time.monotonic() < until:
        if tab.fact("state") == "rating":
            before = tab.settle().shown
            keys = warmest_and_coldest(tab)
            tab.press(*keys)
            clicks += len(keys)
            while tab.shown == before and tab.fact("state") == "rating":
                time.sleep(0.05)
        else:
            time.sleep(0.2)
    return clicks


def test_somebody_with_a_taste_moves_the_model(run: RunFolder, context: OpenContext, screenshots: Path) -> None:
    with training(run.path) as trainer, serving(run.path) as server:
        tab = Rater(context(), server.url).enter(server.link)
        clicks = rate_until_done(tab, trainer)
        said = trainer.communicate()[0]
        assert trainer.returncode == 0, said
        tab.wait(state="done")
        tab.keep(screenshots, "story-end")
        assert tab.complaints == []
    result = json.loads((run.path / "evaluations" / f"round-{ROUNDS - 1:03}.json").read_text())
    print(said)
    assert clicks == 2 * QUESTIONS * ROUNDS + BLIND
    assert result["comparisons"] == 5 * QUESTIONS * ROUNDS, "best and worst of four tell five pairs apart"
    assert f"after {ROUNDS} rounds: people preferred the tuned model" in said
    assert f"from {BLIND} blind answers" in said
    won = float(said.split("result after")[1].split("win rate ")[1].split()[0])
    assert won >= 0.7
