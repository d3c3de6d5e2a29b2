"""The page on formats names them all, and its examples are read."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from d3po.exchange.formats import FORMATS
from d3po.exchange.formats.jsonl_pairs import JsonlPairs
from d3po.exchange.formats.likes_csv import COLUMNS
from tests.unit.exchange.formats.items import png, read

PAGE = (Path(__file__).parents[4] / "docs" / "formats.md").read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_row_and_a_section(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", PAGE, re.MULTILINE)
    assert re.search(rf"^## {name}$", PAGE, re.MULTILINE)


def test_examples_are_read(tmp_path: Path) -> None:
    (line,) = re.findall(r'^    (\{"prompt".*\})$', PAGE, re.MULTILINE)
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "pairs.jsonl").write_text(line)
    assert len(read(JsonlPairs(), tmp_path / "pairs.jsonl")) == 3
    assert json.loads(line)["annotator"] == "ada"


def test_columns_of_likes_are_those_of_the_page() -> None:
    (head,) = re.findall(r"^    (image,prompt,.*)$", PAGE, re.MULTILINE)
    assert tuple(next(csv.reader(io.StringIO(head)))) == COLUMNS
