"""`python -m tools.guard_runs LABEL RUN ... >> tests/golden/guard_runs.jsonl`: the metrics of runs that the guards read, one line for each run.

LABEL is `healthy`, or the names of the guards that must fire on such a run, joined by +. tests/golden/test_guard_runs.py tests the guards' thresholds on
these lines; how the runs were made is in docs/experiments.md.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from d3po.config import load_config
from d3po.objectives.registry import build
from d3po.run.evaluate.phase import read_evaluation
from d3po.run.folder import RunFolder, label_of
from d3po.run.opened import open_run
from d3po.run.session import Session
from d3po.training.guards import KLS
from d3po.training.trainer import BANDS

READ = (*KLS, *(f"{kl}/{band}" for kl in KLS for band in BANDS), "margin", "winner_log_ratio", "clip_fraction")
DIGITS = 5


def main(label: str, *runs: str) -> None:
    """Print a line for each run."""
    for run in runs:
        folder = RunFolder(path=Path(run))
        settings = folder.config().objective
        scale = build(settings.name, **settings.settings.model_dump()).reward_scale
        print(json.dumps({"label": label, "run": Path(run).name, "reward_scale": scale, "rounds": seen(folder)}))


def seen(folder: RunFolder) -> list[dict[str, Any]]:
    """For each round, the metrics of its updates that guards read, and the evaluation after it."""
    session = Session(open_run(folder, config=load_config(folder.config_path)))
    updates: dict[int, list[dict[str, float]]] = defaultdict(list)
    for line in folder.read_metrics():
        updates[line["round"]].append({key: round(line[key], DIGITS) for key in READ if key in line})
    rounds = [{"updates": _thinned(lines), **_evaluation(session, number + 1)} for number, lines in sorted(updates.items())]
    session.close()
    return rounds


def _thinned(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    """Reduce a round's updates to eight parts: the mean of each metric, but the largest value of each KL."""
    parts = [lines[i * len(lines) // 8 : (i + 1) * len(lines) // 8] for i in range(8)]
    keys = [sorted({key for line in part for key in line}) for part in parts]
    return [{key: _of(key, part) for key in mine} for part, mine in zip(parts, keys, strict=True) if part]


def _of(key: str, part: list[dict[str, float]]) -> float:
    values = [line[key] for line in part if key in line]
    return max(values) if key.startswith("kl") else round(sum(values) / len(values), DIGITS)


def _evaluation(session: Session, rounds: int) -> dict[str, Any]:
    if not session.run.folder.evaluation(label_of(rounds)).exists():
        return {"evaluation": None}
    result = read_evaluation(session.run, rounds)
    held_out = None if result.held_out_win_rate is None else round(result.held_out_win_rate.value, DIGITS)
    figures = {key: round(getattr(result, key), DIGITS) for key in ("diversity_kept", "checkerboard_ratio")}
    return {"evaluation": figures | {"win_rate": round(result.win_rate.value, DIGITS), "held_out_win_rate": held_out}}


if __name__ == "__main__":
    main(*sys.argv[1:])
