"""Text of others stays text in Markdown and in spreadsheets."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from d3po.escaping import from_spreadsheet_cell, markdown_block, markdown_code, markdown_text, spreadsheet_cell, terminal_line

MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})
HOSTILE = [
    "<script>alert(1)</script>",
    "# heading",
    "* item\n* item",
    "1. one",
    "a\n\n<img src=x onerror=alert(1)>",
    "[link](javascript:alert(1))",
    "![picture](https://example.org/beacon.png)",
    "`code` and ``more``",
    "`",
    "``",
    "```\nfence",
    "</code><b>",
    "&lt;b&gt; &amp; &#60;",
    "| a | b |",
    "~~gone~~ *so* _so_ **so**",
    "---",
    "> quote",
    "    indented",
    "a\u2028<b>b</b>",
    "\u202eesrever",
    "https://example.org www.example.org a@example.org @somebody",
    "",
    "\\`x",
]


def words(html: str) -> str:
    """What a page shows of inline HTML."""
    shown = re.sub(r"</?(?:p|h1|code|ul|li)>", "", html).strip("\n")
    assert "<" not in shown, shown
    return shown.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")


def one_line(text: str) -> str:
    return " ".join(re.sub("[\u2028\u202e\x00-\x1f\x7f-\x9f]", " ", text).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_it_is(text: str) -> None:
    assert words(MARKDOWN.render(f"# {markdown_text(text)}")) == one_line(text)
    assert words(MARKDOWN.render(f"* {markdown_code(text)}")).strip() == one_line(text)


@given(text=st.text(st.characters(codec="ascii"), max_size=30))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    assert words(MARKDOWN.render(f"x {markdown_text(text)}")) == f"x {one_line(text)}".strip()
    assert words(MARKDOWN.render(f"x {markdown_code(text)} x")).split() == f"x {one_line(text)} x".split()


@pytest.mark.parametrize("text", ["a = 1\n", "a = '''\n```\n# b\n````\n'''", "<b>"])
def test_a_block_ends_where_its_text_does(text: str) -> None:
    html = MARKDOWN.render(markdown_block(text, "toml") + "\n\nafter")
    assert html.count("<pre>") == 1
    assert html.endswith("</pre>\n<p>after</p>\n")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''-1", "-"])
def test_what_a_spreadsheet_would_run_is_text(cell: str) -> None:
    assert spreadsheet_cell(cell) == f"'{cell}"
    assert from_spreadsheet_cell(f"'{cell}") == cell


@pytest.mark.parametrize("cell", ["a fox", "", "'", "'quoted'", "a=1", "1-2", " =1"])
def test_other_cells_stay_as_they_are(cell: str) -> None:
    assert spreadsheet_cell(cell) == from_spreadsheet_cell(cell) == cell


@given(st.text(st.sampled_from("'=+-@\t a1"), max_size=6))
def test_cells_come_back(cell: str) -> None:
    assert from_spreadsheet_cell(spreadsheet_cell(cell)) == cell


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("one\ntwo\r\nthree", "one two three"),
        ("caf\udce9", "caf\\udce9"),
        ("a\x9bm\u202eb\x00", "a\\x9bm\\u202eb\\x00"),
        ("é 雪 'x' \\n", "é 雪 'x' \\n"),
        ("a\tb", "a\\tb"),
    ],
)
def test_a_terminal_is_told_nothing(text: str, shown: str) -> None:
    assert terminal_line(text) == shown
