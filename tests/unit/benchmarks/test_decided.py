"""In which step a taste is decided."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decided
from benchmarks.decided import Decided, bench_of, correlation, measure, table


def test_correlation_is_within_prompts_and_none_where_pictures_are_alike() -> None:
    one = np.array([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0], [1.0, 2.0, 3.0]])
    other = np.array([[10.0, 11.0, 12.0], [0.0, 1.0, 2.0], [9.0, 6.0, 3.0]])
    assert correlation(one, other) == pytest.approx((1 + 0 - 1) / 3)


def test_steps_are_told_apart() -> None:
    """In the last step but one no later noise is left, so it makes no difference whose it is; the last step draws none and decides nothing."""
    bench = bench_of("emoji-32", prompts=2, pictures=2, steps=4, seed=0)
    assert bench.sampler.transition.stochastic(bench.sampler.grid).tolist() == [True, True, True, False]
    found = {(each.taste, each.step): each for each in measure(bench, [0, 2, 3])}
    assert found["contrast", 2].onward == pytest.approx(1.0)
    assert found["contrast", 0].onward < 1.0
    assert found["contrast", 0].variance > found["contrast", 2].variance > 0
    assert found["contrast", 3].variance == pytest.approx(0.0, abs=1e-12)


def test_the_table_has_shares_and_weighted_means() -> None:
    found = [
        Decided(taste="size", step=0, variance=3.0, expected=0.5, onward=0.1),
        Decided(taste="size", step=7, variance=1.0, expected=0.9, onward=0.5),
    ]
    assert table(found) == [["taste", "step 1", "step 8", "expected", "onward"], ["size", "75", "25", "0.60", "0.20"]]


def test_the_command_prints_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["decided", "--prompts", "1", "--pictures", "2", "--steps", "2", "--json", str(tmp_path / "all.json")])
    decided.main()
    assert "| contrast |" in capsys.readouterr().out
    assert {each["step"] for each in json.loads((tmp_path / "all.json").read_text())} == {0, 1}
