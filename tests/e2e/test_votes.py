"""Votes through the command line: in, out, looked at, merged."""

import json
import shutil
from pathlib import Path

import pytest

from d3po.config import RunConfig
from d3po.exchange.formats import FORMATS
from d3po.run.folder import create_run
from tests.e2e.conftest import d3po
from tests.unit.exchange.formats.items import png
from tests.unit.exchange.runs import ask_and_vote, ids, pair, sampled_store, wins


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with sampled pictures and three people's votes."""
    prompts = [f"prompt {number}" for number in range(100)]
    create_run(tmp_path / "run", RunConfig(), prompts=prompts, held_out=[f"held out {number}" for number in range(100)])
    store = sampled_store(tmp_path / "run")
    for who in ("ada", "bob", "cleo"):
        for prompt in (0, 1):
            images = ids(store, prompt)
            for a, b in ((0, 1), (1, 2), (2, 3), (0, 3)):
                winner = images[a] if who != "cleo" else images[b]
                ask_and_vote(store, who, pair(images[a], images[b]), wins(winner), rt_ms=100 if who == "cleo" else 1000)
    store.close()
    return tmp_path / "run"


@pytest.fixture
def copy(run: Path) -> Path:
    """The same run without its votes."""
    other = run.parent / "copy"
    other.mkdir()
    for name in ("run.toml", "prompts.txt", "held_out.txt"):
        shutil.copy(run / name, other / name)
    sampled_store(other).close()
    return other


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_goes_out_by_the_command_line(kind: str, run: Path) -> None:
    done = d3po("votes", "export", run, "--to", run.parent / "out", "--format", kind)
    assert done.returncode == 0, done.stderr
    held = kind not in ("likes_csv", "d3po_json")
    assert f"{24 if held else 0} judgements of 8 pictures" in done.stdout
    assert (f"{kind} cannot hold 24 win; jsonl holds everything" in done.stdout) == (not held)


def test_votes_go_out_and_come_home(run: Path, copy: Path) -> None:
    out = run.parent / "votes.jsonl"
    assert d3po("votes", "export", run, "--to", out, "--no-pictures").returncode == 0
    done = d3po("votes", "import", copy, out)
    assert "24 new votes, 0 already known\n0 new pictures, 8 already known" in done.stdout
    again = d3po("votes", "import", copy, out)
    assert "0 new votes, 24 already known" in again.stdout
    looks = [d3po("votes", "stats", each).stdout for each in (run, copy)]
    assert looks[0] == looks[1]


def test_merge_takes_over_votes_once(run: Path, copy: Path) -> None:
    assert "24 new votes" in d3po("votes", "merge", copy, run).stdout
    assert "0 new votes, 24 already known" in d3po("votes", "merge", copy, run).stdout
    assert "0 new votes, 24 already known" in d3po("votes", "merge", run, copy).stdout


def test_stats_say_how_far_people_agree_and_whom_to_look_at(run: Path) -> None:
    said = d3po("votes", "stats", run).stdout
    assert "24 votes: 24 train/pair/win" in said
    # Two of three agree on every pair, the third says the opposite: 16 of 24 ordered pairs of judges contradict each other.
    assert "agreement of people, Krippendorff's alpha: -0." in said
    assert "over 8 pairs, 3 annotators" in said
    assert "left picture chosen by people: 0." in said
    assert all(handle in said for handle in ("ada", "bob", "cleo"))


def test_stats_of_a_run_without_votes(copy: Path) -> None:
    said = d3po("votes", "stats", copy).stdout
    assert "0 votes: none" in said
    assert "alpha: unknown (0 pairs with two judges or more)" in said


def test_own_pictures_come_in_with_their_pairs(copy: Path) -> None:
    data = copy.parent / "data"
    data.mkdir()
    for number in (500, 501):
        (data / f"{number}.png").write_bytes(png(number, size=(16, 16)))
    lines = [{"prompt": "a fox", "chosen": "500.png", "rejected": "501.png"}] * 2
    (data / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = d3po("votes", "import", copy, data / "pairs.jsonl", "--format", "jsonl_pairs")
    assert "2 new votes, 0 already known\n2 new pictures" in done.stdout
    assert len(list((copy / "images/import/pairs").iterdir())) == 2
    assert "import:pairs#2" in d3po("votes", "stats", copy).stdout


def test_votes_on_held_out_prompts_stay_out(run: Path, copy: Path) -> None:
    for number in (500, 501):
        (run.parent / f"{number}.png").write_bytes(png(number, size=(16, 16)))
    prompts = ("a fox", "held out 3", "Held  Out\u00a04", "\ufeffheld out 5")
    lines = [{"prompt": prompt, "chosen": "500.png", "rejected": "501.png"} for prompt in prompts]
    (run.parent / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    told = d3po("votes", "import", run, run.parent / "pairs.jsonl", "--format", "jsonl_pairs").stdout
    assert "1 new votes" in told
    assert "3 votes left out: of held-out prompts" in told
    (copy / "held_out.txt").write_text("A CAT\n")
    told = d3po("votes", "merge", copy, run).stdout
    assert "12 new votes" in told
    assert "12 votes left out: of held-out prompts" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import", "RUN", "nowhere.jsonl"), "nowhere.jsonl does not exist"),
        (("import", "RUN", "RUN/run.toml"), "run.toml, line 1: not JSON"),
        (("import", "RUN", "RUN/run.toml", "--format", "pickapick"), "did you mean pickapic"),
        (("import", "RUN", "RUN/run.toml", "--kind", "robot"), "--kind robot: it must be one of human, model, rule"),
        (("import", "RUN", "RUN/run.toml", "--name", "../x"), "the name '../x' may have only letters"),
        (("export", "RUN", "--to", "RUN/out", "--purpose", "fun"), "--purpose fun: it must be one of train, gold, blind, repeat, all"),
        (("merge", "RUN", "RUN"), "is this same run"),
        (("merge", "RUN", "nowhere"), "nowhere"),
        (("stats", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_plain_line(words: tuple[str, ...], message: str, copy: Path) -> None:
    done = d3po("votes", *(word.replace("RUN", str(copy)) for word in words))
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_bad_in_a_file_is_one_line_and_the_rest_comes_in(copy: Path) -> None:
    data = copy.parent / "data"
    data.mkdir()
    for number in (500, 501):
        (data / f"{number}.png").write_bytes(png(number, size=(16, 16)))
    lines = [{"prompt": "a fox", "chosen": "500.png", "rejected": each} for each in ("501.png", "gone\x1b[2J\n.png")]
    (data / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = d3po("votes", "import", copy, data / "pairs.jsonl", "--format", "jsonl_pairs")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pairs.jsonl, line 2, field rejected: cannot read 'gone\\x1b[2J\\n.png'" in done.stderr
    assert "0 votes: none" in d3po("votes", "stats", copy).stdout
    done = d3po("votes", "import", copy, data / "pairs.jsonl", "--format", "jsonl_pairs", "--skip-bad")
    assert done.returncode == 0
    assert "1 new votes, 0 already known\n2 new pictures, 0 already known\n1 bad records skipped:\n  " in done.stdout
    assert "\x1b" not in done.stdout
