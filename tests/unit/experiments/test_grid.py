"""A whole comparison on a model that costs nothing: what is run, what is written, what goes on, and what it will take."""

import csv
import io
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from d3po.errors import ConfigError, RunFolderError
from d3po.experiments import grid, scales, writing
from d3po.experiments.budget import Work
from d3po.experiments.cells import Cell, cells_of
from d3po.experiments.grid import compare, plan_lines
from d3po.experiments.jobs import Job
from d3po.experiments.scales import Scale, scales_of
from d3po.experiments.spec import Spec, load_spec
from d3po.experiments.writing import Done, heading, tables_of, write_page, write_tables
from d3po.progress import Narrator
from d3po.run.cost.counting import Shape
from d3po.run.cost.probe import Probe
from d3po.run.folder import RunFolder, locked
from d3po.run.loop import run_rounds
from d3po.run.opened import open_run
from d3po.run.session import Session
from tests.unit.experiments.comparisons import cell as rows_of_cell
from tests.unit.run.toy import ToyPolicy

HEAD = 'model = "custom:toy:make"\nprompts = "prompts.txt"\nheld_out = "held_out.txt"\n'
GRID = 'objectives = ["d3po", "ipo_step"]\nrewards = ["brightness"]\nseeds = [0]\nbaseline = "d3po"\n'
SMALL = """
[settings]
sampling.steps = 2
sampling.guidance = 2.0
sampling.images_per_prompt = 2
sampling.prompts_per_round = 1
evaluation.prompts = 1
evaluation.images_per_prompt = 2
training.epochs = 1
objective.reference = "per_round"
guards.action = "warn"
tracking.tensorboard = false
"""
InTurn = Callable[..., list[tuple[str, bool]]]
COST = Probe(sampling_seconds=60.0, training_seconds=600.0, decoding_seconds=6.0, peak_bytes=0)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ToyPolicy]:
    """The models that were loaded; figures are not drawn, which would take longer than everything else."""
    loaded: list[ToyPolicy] = []

    def load(*_: object, **__: object) -> ToyPolicy:
        loaded.append(ToyPolicy())
        return loaded[-1]

    monkeypatch.setattr("d3po.run.session.load_policy", load)
    for module in ("d3po.evaluation.report", "d3po.experiments.writing"):
        monkeypatch.setattr(f"{module}.svg", lambda figure: "<svg></svg>")
    monkeypatch.setattr(writing, "png", lambda figure: b"png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    (tmp_path / "held_out.txt").write_text("a bee\n")
    return loaded


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> InTurn:
    """Run the jobs one after another in this process, but for some that fail; the list that it returns has the names of all, each with
    whether anything could be read of the cells before it.
    """

    def put(*fail: str) -> list[tuple[str, bool]]:
        asked: list[tuple[str, bool]] = []

        def run_jobs(jobs: Iterable[Job], *, at_once: int, on_end: Callable[[Job, int], None], while_waiting: Callable[..., None]) -> None:
            for job in jobs:
                asked.append((job.name, (job.log.parents[1] / "comparison.csv").exists()))
                job.log.parent.mkdir(exist_ok=True)
                if job.name in fail:
                    job.log.write_text("working\nerror: no <memory>\n")
                else:
                    with closing(open_run(RunFolder(path=job.run), Narrator(Console(quiet=True)))) as run:
                        run_rounds(Session(run))
                while_waiting([job])
                on_end(job, 1 if job.name in fail else 0)

        monkeypatch.setattr(grid, "run_jobs", run_jobs)
        return asked

    return put


def spec_file(tmp_path: Path, budget: str = "labels = 1", head: str = GRID, rest: str = SMALL) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(f"{HEAD}{head}[budget]\n{budget}\n{rest}")
    return path


def narrator() -> tuple[Narrator, io.StringIO]:
    heard = io.StringIO()
    return Narrator(Console(file=heard, width=300)), heard


def lines(path: Path) -> list[tuple[str, str, str]]:
    return [
        (line["label"], line["rounds"], line["is_result"]) for line in csv.DictReader(io.StringIO((path / "comparison.csv").read_text()))
    ]


def test_every_cell_is_brought_to_its_end_and_what_failed_is_run_again(tmp_path: Path, in_turn: InTurn) -> None:
    file, path = spec_file(tmp_path), tmp_path / "comparison"
    first, (telling, heard) = in_turn("ipo_step.brightness.0"), narrator()
    assert compare(file, path, telling, at_once=1) == {"ipo_step.brightness.0": "error: no <memory>"}
    assert first == [("d3po.brightness.0", False), ("ipo_step.brightness.0", True)]
    assert lines(path) == [("d3po", "0", "False"), ("d3po", "1", "True")]
    assert "## Cells that failed\n\n* ipo_step.brightness.0: error: no <memory>" in (path / "comparison.md").read_text()
    assert "no &lt;memory&gt;" in (path / "comparison.html").read_text()
    assert "d3po.brightness.0: round-000: win rate" in heard.getvalue()
    assert (
        f"ipo_step.brightness.0: failed: error: no <memory> (full output: {path / 'logs' / 'ipo_step.brightness.0.log'})"
        in heard.getvalue()
    )
    assert (path / "comparison.toml").read_bytes() == file.read_bytes()
    second = in_turn()
    assert compare(file, path, narrator()[0], at_once=1) == {}
    assert second == [("ipo_step.brightness.0", True)]
    assert lines(path) == [("d3po", "0", "False"), ("d3po", "1", "True"), ("ipo_step", "0", "False"), ("ipo_step", "1", "True")]
    assert "Cells that failed" not in (path / "comparison.md").read_text()
    assert sorted(file.name for file in (path / "figures").iterdir()) == [
        "learning-brightness.svg", "pictures-brightness.png", "trade-brightness.svg",
    ]  # fmt: skip
    third = in_turn()
    assert compare(file, path, narrator()[0], at_once=1) == {}
    assert third == []


def test_a_budget_for_not_one_round_is_refused_before_anything_is_written(tmp_path: Path, in_turn: InTurn) -> None:
    asked = in_turn()
    with pytest.raises(ConfigError, match=r"budget\.labels is 1, but one round of 'kto' takes 2 labels"):
        compare(spec_file(tmp_path, head=GRID.replace("ipo_step", "kto")), tmp_path / "comparison", narrator()[0], at_once=1)
    assert asked == []
    assert not (tmp_path / "comparison").exists()


def test_two_comparisons_do_not_work_in_one_folder(tmp_path: Path, in_turn: InTurn) -> None:
    in_turn()
    (tmp_path / "comparison").mkdir()
    with locked(tmp_path / "comparison"), pytest.raises(RunFolderError, match="comparison is in use by another d3po process"):
        compare(spec_file(tmp_path), tmp_path / "comparison", narrator()[0], at_once=1)


def test_a_plan_says_what_each_label_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of 2 images, 2 steps of which one has a density, each image two forward passes: 16 sampled and 8 trained; 3 evaluations of 2 pictures."""
    monkeypatch.setattr(scales, "probe_run", lambda session, shape: COST)
    head, *each, total = plan_lines(spec_file(tmp_path, "labels = 2", GRID.replace("[0]", "[0, 1, 2]")), narrator()[0])
    assert head.split() == ["cells", "rounds", "labels", "images", "forward", "passes", "with", "gradient", "minutes", "a", "cell"]
    minutes = (60 * (16 + 3 * 2 * 2 * 2) + 600 * 8 + 6 * (4 + 6)) / 60
    assert [line.split() for line in each] == [[label, "3", "2", "2", "4", "24", "8", f"{minutes:.1f}"] for label in ("d3po", "ipo_step")]
    assert total == f"all 6 cells one after another: {6 * minutes:.0f} min, estimated from measured steps on this machine, without loading"


def test_of_a_budget_of_minutes_no_rounds_are_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "probe_run", lambda session, shape: COST)
    _, *each = plan_lines(spec_file(tmp_path, "minutes = 2.5"), narrator()[0])
    assert [" ".join(line.split()) for line in each] == [f"{label} 1 as many as fit into 2.5 minutes" for label in ("d3po", "ipo_step")]


def test_seconds_by_hand() -> None:
    work = Work(rounds=1, labels=1, images=3, forwards=10, training_forwards=4, evaluated_images=5, evaluation_forwards=7)
    shape = Shape(steps=1, stochastic=1, trained=1, guided_forwards=1)
    assert Scale(shape=shape, cost=COST).seconds(work) == 60 * (6 + 7) + 600 * 4 + 6 * (3 + 5)
    assert str(Scale(shape=shape, cost=None).seconds(work)) == "nan"


def cells(tmp_path: Path, objectives: str) -> list[Cell]:
    head = f'objectives = {objectives}\nrewards = ["brightness"]\nseeds = [0, 1]\nbaseline = "a"\n'
    return cells_of(load_spec(spec_file(tmp_path, head=head)))


def test_a_model_is_loaded_once_for_all_labels_that_ask_the_same_of_it(tmp_path: Path, toys: list[ToyPolicy]) -> None:
    objectives = '[{label = "a"}, {label = "b", settings = {sampling.steps = 3}}, {label = "c", settings = {weights = "bfloat16"}}]'
    found = scales_of(cells(tmp_path, objectives), narrator()[0], measure=False)
    assert {label: (scale.shape.steps, scale.shape.stochastic, scale.cost) for label, scale in found.items()} == {
        "a": (2, 1, None),
        "b": (3, 2, None),
        "c": (2, 1, None),
    }
    assert len(toys) == 2


def test_an_objective_for_other_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"objective\.name is 'flow_dpo', but the model is not a flow model; set it to 'diffusion_dpo'"):
        scales_of(cells(tmp_path, '[{label = "a", name = "flow_dpo"}]'), narrator()[0], measure=False)


def spec(tmp_path: Path) -> Spec:
    return load_spec(
        spec_file(tmp_path, "labels = 1500", GRID.replace('["brightness"]', '["brightness", "warmth"]').replace("[0]", "[0, 1]"))
    )


def test_a_comparison_is_headed_by_what_was_compared(tmp_path: Path) -> None:
    assert heading(spec(tmp_path)) == (
        "2 objectives on the model custom:toy:make, recipe default, each with 1,500 labels; 2 seeds; baseline d3po."
    )


def test_tables_are_of_the_rewards_whose_cells_are_done(tmp_path: Path) -> None:
    made, rows = spec(tmp_path), rows_of_cell("d3po", 0, 1)
    both = [*rows, *rows_of_cell("ipo_step", 0, 1)]
    assert [len(tables_of(made, some, "warmth")) for some in ([], rows, both)] == [0, 2, 3], "one alone is different from nothing"
    assert tables_of(made, both, "brightness") == []
    done = [Done(cell=cells_of(made)[2], folder=RunFolder(path=tmp_path), rows=both)]
    write_tables(made, tmp_path, done, {})
    text = (tmp_path / "comparison.md").read_text()
    assert text.index("## Trained for brightness\n\nNo cell is finished yet.") < text.index("## Trained for warmth\n\n")
    assert "failed" not in text
    assert len(lines(tmp_path)) == 4


def test_pictures_are_of_the_seed_that_most_labels_are_done_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, shown = spec(tmp_path), list[Any]()
    by_name = {cell.name: cell for cell in cells_of(made)}
    names = ["d3po.warmth.0", "d3po.warmth.1", "ipo_step.warmth.1"]
    done = [
        Done(cell=by_name[name], folder=RunFolder(path=tmp_path / name), rows=rows_of_cell(by_name[name].label, by_name[name].seed, 3))
        for name in names
    ]
    monkeypatch.setattr(writing, "open_run", lambda folder, _: SimpleNamespace(name=folder.path.name, close=lambda: None))
    monkeypatch.setattr(writing, "first_pictures", lambda run, rounds, prompts: (run.name, rounds, prompts))
    monkeypatch.setattr(writing, "picture_figure", lambda prompts, pictures: shown.append((prompts, pictures)))
    write_tables(made, tmp_path, done, {})
    (tmp_path / "comparison.toml").write_text("baseline = 1\n")
    write_page(made, tmp_path, done, {})
    assert shown == [
        (
            ["a bee"],
            {"base": ("d3po.warmth.1", 0, 1), "d3po": ("d3po.warmth.1", 3, 1), "ipo_step": ("ipo_step.warmth.1", 3, 1)},
        )
    ]
    page = (tmp_path / "comparison.html").read_text()
    assert "Trained for warmth" in page
    assert "Trained for brightness" not in page, "of which nothing is done"
    assert "baseline = 1" in page
