"""A made-up comparison: what is drawn and tabulated can be worked out by hand."""

from typing import Any

from d3po.experiments.findings import Row


def row(label: str, seed: int, rounds: int, **changes: Any) -> Row:
    """After so many rounds a label has moved by as much, seeds apart by a tenth."""
    values: dict[str, Any] = {
        "label": label,
        "reward": "warmth",
        "seed": seed,
        "rounds": rounds,
        "is_result": False,
        "is_stopped": False,
        "guards": "",
        "labels": 10 * rounds,
        "images": 8 * rounds,
        "network_rows": 100 * rounds,
        "seconds": 30.0 * rounds,
        "win_rate": 0.5 + 0.1 * rounds + 0.1 * seed,
        "score": float(rounds),
        "diversity_kept": 1 - 0.05 * rounds,
        "checkerboard_ratio": 1.0,
        "subject_accuracy": None,
        "gain": 0.5 * rounds,
        "held_out": {"brightness": 0.2},
        "held_out_gain": {"brightness": 0.1 * rounds},
    }
    return Row(**(values | changes))


def cell(label: str, seed: int, rounds: int, **changes: object) -> list[Row]:
    """All rows of a cell; the changes are those of its result."""
    return [*(row(label, seed, r) for r in range(rounds)), row(label, seed, rounds, is_result=True, **changes)]
