"""One name, one meaning."""

import ast
from collections import Counter
from itertools import combinations
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "d3po"
TERMS = {"D3PO", "DDPO", "DGPO"}
"""Methods of the field whose published names differ by one letter."""
ROOMS = 16
"""Files and packages that a reader meets at once."""

CLASSES = Counter(
    node.name for path in SOURCE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)
)


def differ_by_one_letter(a: str, b: str) -> bool:
    a, b = sorted((a.strip("_"), b.strip("_")), key=len)
    if len(a) == len(b):
        return sum(x != y for x, y in zip(a, b, strict=True)) == 1
    return len(b) == len(a) + 1 and any(b[:i] + b[i + 1 :] == a for i in range(len(b)))


def test_no_two_classes_have_one_name() -> None:
    assert [name for name, count in CLASSES.items() if count > 1] == []


def test_no_two_classes_differ_by_one_letter() -> None:
    close = [{a, b} for a, b in combinations(sorted(CLASSES), 2) if differ_by_one_letter(a, b)]
    assert [names for names in close if not {name.removesuffix("Settings") for name in names} <= TERMS] == []


def test_the_comparison_of_names_sees_a_letter_changed_and_one_added() -> None:
    assert differ_by_one_letter("Vote", "Note")
    assert differ_by_one_letter("Vote", "Votes")
    assert not differ_by_one_letter("Vote", "VoteStore")
    assert not differ_by_one_letter("Vote", "Void")


def test_a_run_has_few_rooms() -> None:
    assert len([path for path in (SOURCE / "run").iterdir() if path.name[0] != "_"]) <= ROOMS
