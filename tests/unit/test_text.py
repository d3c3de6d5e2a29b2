"""Text from anywhere: bytes, lines, prompts as they are kept, and prompts that count as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po.errors import FormatError, PromptError
from d3po.text import decode, encoding_of, fold, lines, prompt_of, read_text

ACCENTED = "naïve café — 雪の狐"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_every_encoding_that_says_what_it_is(encoding):
    assert decode(ACCENTED.encode(encoding), "a.txt", PromptError) == ACCENTED
    assert encoding_of(ACCENTED.encode(encoding)[:4]) == encoding


@pytest.mark.parametrize(("mark", "encoding"), [(b"\xfe\xff", "utf-16-be"), (b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be")])
def test_a_byte_order_mark_tells_the_order_of_bytes(mark, encoding):
    assert decode(mark + "a fox".encode(encoding), "a.txt", PromptError) == "a fox"


def test_marks_that_stand_there_twice_are_all_taken_off():
    assert decode(b"\xef\xbb\xbf\xef\xbb\xbfa fox", "a.txt", PromptError) == "a fox"


def test_text_in_an_encoding_that_nothing_declares_is_refused_with_its_place():
    with pytest.raises(FormatError, match=r"a\.txt, line 2: byte 9 \(0xE9\) is not UTF-8 text; save the file as UTF-8"):
        decode(b"a fox\ncaf\xe9", "a.txt", FormatError)
    with pytest.raises(FormatError, match=r"a\.txt: byte 2 \(0x00\) is not UTF-16 text"):
        decode(b"\xff\xfe\0", "a.txt", FormatError)


def test_nul_is_no_text():
    with pytest.raises(PromptError, match=r"a\.txt, line 2: a NUL character"):
        decode(b"a\r\nb\0", "a.txt", PromptError)
    with pytest.raises(PromptError, match="UTF-16 without a byte order mark"):
        decode("a fox".encode("utf-16-le"), "a.txt", PromptError)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(PromptError, match=r"none\.txt cannot be read: No such file"):
        read_text(tmp_path / "none.txt", PromptError)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_three_ends_of_lines(end):
    assert lines(f"a{end}{end}b") == ["a", "", "b"]
    assert lines(f"a{end}b{end}") == ["a", "b"]


@pytest.mark.parametrize("within", ["\u2028", "\u2029", "\u0085", "\f", "\v", "\x1c", "\x1d", "\x1e", "\t"])
def test_nothing_else_ends_a_line(within):
    assert lines(f"a fox{within}in snow\n") == [f"a fox{within}in snow"]


def test_no_text_has_no_lines():
    assert lines("") == []


@pytest.mark.parametrize("text", ["a fox\r\n", "\ufeffa fox", "\ufeff \ufeff a fox \u2028", "\ta fox\u00a0"])
def test_a_prompt_is_kept_without_what_nobody_sees_at_its_ends(text):
    assert prompt_of(text, "here", PromptError) == "a fox"


def test_lines_within_a_prompt_end_in_one_way():
    assert prompt_of("a fox\r\nin snow\rat night\n", "here", PromptError) == "a fox\nin snow\nat night"


@pytest.mark.parametrize(
    ("character", "said"), [("\0", r"U\+0000, a control"), ("\x1b", r"U\+001B, a control"), ("\ud83d", r"U\+D83D, half a surrogate")]
)
def test_what_cannot_be_kept_is_named(character, said):
    with pytest.raises(FormatError, match=rf"^a\.jsonl, line 3: the prompt holds {said}"):
        prompt_of(f"a {character} fox", "a.jsonl, line 3", FormatError)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A cat", "a  cat"),
        ("a cat", " a\u00a0cat\t"),
        ("a cat", "\ufeffa cat"),
        ("a cat", "\uff41 \uff43\uff41\uff54"),  # full width
        ("caf\u00e9", "cafe\u0301"),
        ("the \ufb01nest", "The Finest"),  # a ligature
        ("STRASSE", "straße"),
        ("a cat", "a c\u200bat"),
        ("❤️ heart", "❤ heart"),
        ("a fox\u2028in snow", "a fox\nin snow"),
        ("İstanbul", "i\u0307stanbul"),
    ],
)
def test_prompts_that_look_alike_fold_alike(one, other):
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("a cat", "a cot"), ("a cat", "acat"), ("cafe", "café"), ("a cat", "a cat.")])
def test_other_prompts_do_not(one, other):
    assert fold(one) != fold(other)


@given(st.text())
def test_folding_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)


@given(st.text())
def test_case_and_white_space_never_tell_prompts_apart(text):
    assert fold(f"\n {text}\t") == fold(text)
    assert fold(text.upper()) == fold(text.upper().lower().upper())
