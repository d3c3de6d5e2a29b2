"""What a comparison comes to: over seeds, against the baseline, as a table, a curve and a page."""

import csv
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from d3po.evaluation.drawing import png, svg
from d3po.experiments.figures import curve, learning_figure, picture_figure, trade_figure
from d3po.experiments.findings import summaries, to_csv
from d3po.experiments.page import Chapter, Drawn, Page, render
from d3po.experiments.tables import cost_table, difference_table, result_table
from tests.unit.experiments.comparisons import cell, row

ROWS = [
    *cell("base", 0, 2),
    *cell("base", 1, 2),
    *cell("new", 0, 2, win_rate=0.8),
    *cell("new", 1, 2, win_rate=0.9, guards="kl"),
    *cell("short", 1, 1, is_stopped=True, guards="diversity kl"),
]
LABELS = ["base", "new", "short", "absent"]


def test_a_summary_by_hand() -> None:
    base, new, short = summaries(ROWS, "warmth", labels=LABELS, baseline="base")
    assert base.figures["win rate"] is not None
    assert base.figures["win rate"].value == pytest.approx((0.7 + 0.8) / 2)
    assert base.figures["subject accuracy"] is None
    assert base.costs == {"rounds": 2, "labels": 20, "images": 16, "forward passes": 200, "minutes": 1}
    assert base.differences == dict.fromkeys(base.differences)
    assert base.gains["brightness"].value == pytest.approx(0.2)
    difference = new.differences["win rate"]
    assert difference is not None
    assert difference.difference.value == pytest.approx(((0.8 - 0.7) + (0.9 - 0.8)) / 2)
    assert (short.seeds, short.stopped) == (1, 1)
    assert [base.guards, new.guards, short.guards] == [{}, {"kl": 1}, {"diversity": 1, "kl": 1}]
    assert short.differences["win rate"] is not None
    assert short.differences["win rate"].difference.value == pytest.approx(0.7 - 0.8), "only the seed that both have"


def test_cells_of_another_reward_have_no_part() -> None:
    assert summaries(ROWS, "brightness", labels=LABELS, baseline="base") == []


def test_the_csv_has_a_line_for_each_row_and_a_column_for_each_held_out_reward() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(ROWS))))
    assert len(lines) == len(ROWS)
    assert (
        lines[2] | {"label": "base", "rounds": "2", "is_result": "True", "subject_accuracy": "", "held_out:brightness": "0.2"} == lines[2]
    )
    assert float(lines[2]["held_out_gain:brightness"]) == pytest.approx(0.2)


def test_tables_say_intervals_and_p_values() -> None:
    found = summaries(ROWS, "warmth", labels=LABELS, baseline="base")
    result, difference, cost = result_table(found), difference_table(found, "base"), cost_table(found)
    assert result.header == ["", "seeds", "win rate", "score", "diversity kept", "subject accuracy", "brightness", "guards", "stopped"]
    assert result.rows[0][2] == "0.750\n[0.115, 1.000]", "0.75 -+ 12.706 * 0.05, cut to [0, 1]"
    assert result.rows[2] == ["short", "1", "0.700", "1.000", "0.950", "-", "+0.100", "diversity 1,\nkl 1", "1"]
    assert [row[0] for row in difference.rows] == ["new", "short"]
    assert difference.rows[1][1] == "-0.100\np - / 1.000"
    assert "With 2 seeds the sign-flip p cannot fall below 0.5." in difference.reading
    assert cost.rows[0] == ["base", "2", "20", "16", "200", "1"]
    assert "| base | 2 | 0.750 [0.115, 1.000] |" in result.markdown()
    assert "| diversity 1, kl 1 | 1 |" in result.markdown()
    assert "| base | 2 | 20 | 16 | 200 | 1 |" in cost.markdown()


def test_a_curve_is_over_seeds_and_a_stopped_cell_stays_where_it_was() -> None:
    drawn = curve([*cell("a", 0, 2), *cell("a", 1, 1)], lambda row: row.labels, lambda row: row.win_rate)
    assert drawn.x == [0, 10, pytest.approx(15)]
    assert drawn.y == pytest.approx([0.55, 0.65, (0.7 + 0.7) / 2])
    half, none = 12.706 * 0.05, float("nan")  # of two values 0.1 apart; where they are equal, nothing tells
    assert drawn.low == pytest.approx([0.55 - half, 0.65 - half, none], abs=1e-4, nan_ok=True)
    assert drawn.high == pytest.approx([0.55 + half, 0.65 + half, none], abs=1e-4, nan_ok=True)


def test_the_base_models_win_rate_is_known_in_tables_and_curves() -> None:
    base = [row("a", seed, 0, is_result=True, win_rate=0.5) for seed in range(3)]
    (found,) = summaries(base, "warmth", labels=["a"], baseline="a")
    assert result_table([found]).rows[0][2] == "0.500"
    assert math.isnan(curve(base, lambda row: row.labels, lambda row: row.win_rate).low[0])


def test_a_difference_of_shares_lies_between_minus_one_and_one() -> None:
    rows = [
        row("base", 0, 1, win_rate=0.4),
        row("base", 1, 1, win_rate=0.1),
        row("new", 0, 1, win_rate=0.9),
        row("new", 1, 1, win_rate=0.9),
    ]
    found = summaries([replace(each, is_result=True) for each in rows], "warmth", labels=["base", "new"], baseline="base")
    difference = found[1].differences["win rate"]
    assert difference is not None
    assert (difference.difference.low, difference.difference.high) == (-1.0, 1.0), "0.65 -+ 12.706 * 0.15"
    kept = found[0].figures["diversity kept"]
    assert kept is not None
    assert str(kept) == "0.950", "both seeds kept as much"


def test_figures_and_page_are_drawn_and_need_no_other_file() -> None:
    rows = {label: [row for row in ROWS if row.label == label] for label in ("base", "new", "short")}
    learning, trade = svg(learning_figure(rows, "base")), svg(trade_figure(rows, "base"))
    picture = png(picture_figure(["a cat"], {"base": [np.zeros((4, 4, 3), dtype=np.uint8)]}))
    table = cost_table(summaries(ROWS, "warmth", labels=LABELS, baseline="base"))
    figures = [
        Drawn(title=f"figure {i}", reading="how to read it", content=content) for i, content in enumerate((learning, trade, picture))
    ]
    page = render(
        Page(
            title="<objectives>",
            lead="",
            chapters=[Chapter(title="Trained for warmth", tables=[table], figures=figures)],
            failed={"new.warmth.3": "error: no <b>"},
            spec="baseline = 1",
            versions={},
        )
    )
    assert page.count("<svg") == 2
    assert "data:image/png;base64," in page
    assert "&lt;objectives&gt;" in page
    assert "no &lt;b&gt;" in page
    assert page.count("how to read it") == 3
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page) == []
