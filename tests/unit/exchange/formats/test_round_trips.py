"""Each format gives back what it can hold: pictures byte for byte, judgements by content."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3po.exchange.formats import FORMATS
from d3po.exchange.formats.neutral import Event, ImportedAnswer, ImportedJudgement, ImportedPicture
from tests.unit.exchange.formats.items import contents, name, round_trip, said, stream, won

PROMPTS = ("a cat", 'a "dog", in rain\nand 雪', "")
HANDLES = ("ada", "bob b.", "model:x/y")
Plan = tuple[int, int, list[int]]
"""Which prompt, who, which pictures."""

PLANS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.lists(st.integers(0, 9), unique=True, min_size=4, max_size=4)), max_size=8
)

MAKE: dict[str, Callable[..., ImportedJudgement]] = {
    "win": lambda n, **who: won(n[0], n[1], **who),
    "tie": lambda n, **who: said("pair", n[:2], "tie", **who),
    "share": lambda n, **who: said("pair", n[:2], "share", values={n[0]: 0.3, n[1]: 0.7}, **who),
    "bad": lambda n, **who: said("pair", n[:2], "both_bad", **who),
    "skip": lambda n, **who: said("pair", n[:2], "skip", **who),
    "rank": lambda n, **who: said("rank", n, "rank", values={n[0]: 1, n[1]: 2, n[2]: 2, n[3]: 4}, **who),
    "marks": lambda n, **who: said("grid", n, "marks", values={n[1]: 1, n[2]: 1}, **who),
    "up": lambda n, **who: said("thumb", n[:1], "up", **who),
    "down": lambda n, **who: said("thumb", n[:1], "down", **who),
    "score": lambda n, **who: said("score", n[:1], "score", values={n[0]: 4}, **who),
    "best": lambda n, **who: said("best_worst", n, "best_worst", values={n[0]: 1, n[2]: -1}, **who),
}
EVERYTHING = tuple(MAKE)

HELD: dict[str, tuple[str, ...]] = {
    "jsonl": EVERYTHING,
    "pickapic": ("win", "tie", "share"),
    "jsonl_pairs": ("win",),
    "folders": ("win",),
    "likes_csv": ("up", "down"),
    "label_studio": ("win", "tie", "bad", "skip"),
    "argilla": ("win", "tie", "bad", "skip", "rank"),
}
"""What each format gives back as it was."""


def judgements_of(plans: list[Plan], kinds: Sequence[str]) -> list[ImportedJudgement]:
    return [
        MAKE[kinds[number % len(kinds)]](pictures, prompt=PROMPTS[prompt], annotator=HANDLES[who])
        for number, (prompt, who, pictures) in enumerate(plans)
    ]


def as_counted(judgements: Sequence[ImportedJudgement], *, with_annotators: bool = True) -> Counter[str]:
    """Judgements without their order, and without the order in which values are named."""

    def key(each: ImportedJudgement) -> str:
        answer = each.answer
        told = None if answer is None else (answer.outcome, answer.winner, sorted(answer.values.items()))
        return repr((each.prompt, each.kind, each.pictures, told, each.annotator if with_annotators else ""))

    return Counter(map(key, judgements))


@pytest.mark.parametrize("kind", HELD)
@settings(max_examples=25, deadline=None)
@given(plans=PLANS)
def test_what_a_format_holds_comes_back(kind: str, plans: list[Plan]) -> None:
    judgements = judgements_of(plans, HELD[kind])
    items = stream(judgements)
    back, pictures, written = round_trip(FORMATS[kind], items)
    named = kind != "folders"
    assert as_counted(back, with_annotators=named) == as_counted(judgements, with_annotators=named)
    assert pictures == contents(items)
    assert (written.judgements, sum(written.left_out.values())) == (len(judgements), 0)


@settings(max_examples=25, deadline=None)
@given(plans=PLANS)
def test_marks_come_back_from_the_layout_of_the_authors(plans: list[Plan]) -> None:
    once = {(prompt, frozenset(pictures), who): (prompt, who, pictures) for prompt, who, pictures in plans}
    judgements = judgements_of(list(once.values()), ("marks",))
    if not judgements:
        return
    items = stream(judgements)
    back, pictures, written = round_trip(FORMATS["d3po_json"], items)
    ordered = [replace(each, pictures=tuple(sorted(each.pictures))) for each in judgements]
    assert as_counted(back) == as_counted(ordered)
    assert pictures == contents(items)
    assert written.judgements == len(judgements)


@settings(max_examples=25, deadline=None)
@given(plans=PLANS)
def test_our_own_log_keeps_events(plans: list[Plan]) -> None:
    judgements = [
        replace(
            each,
            event=Event(
                id=f"event-{number}", assignment=f"turn-{number}", supersedes=f"event-{number - 1}" if number % 3 else None,
                rt_ms=None if number % 2 else 1200 + number, client="tab" if number % 2 else None, received_at=10**12 + number,
                payload_hash="f" * 64,
            ),
            answer=None if number % 3 == 2 else each.answer,
            purpose="gold" if number % 4 == 0 else "blind",
            expected=ImportedAnswer(outcome="win", winner=each.pictures[0]) if number % 4 == 0 else None,
            annotator_kind="model" if number % 2 else "human",
        )
        for number, each in enumerate(judgements_of(plans, EVERYTHING))
    ]  # fmt: skip
    known = {"series": "round-003", "number": 5, "policy": "base", "seed": 7, "origin": "sampled", "model": "m"}
    items = [replace(item, **known) if isinstance(item, ImportedPicture) else item for item in stream(judgements)]
    back, _, _ = round_trip(FORMATS["jsonl"], items)
    assert back == judgements


@pytest.mark.parametrize(
    ("kind", "answers", "left"),
    [
        ("pickapic", ("bad", "skip", "up", "score"), {"both bad": 1, "skip": 1, "up": 1, "score": 1}),
        ("jsonl_pairs", ("tie", "share", "skip"), {"tie": 1, "share": 1, "skip": 1}),
        ("folders", ("tie", "bad"), {"tie": 1, "both bad": 1}),
        ("likes_csv", ("win", "rank"), {"win": 1, "rank": 1}),
        ("d3po_json", ("win", "up"), {"win": 1, "up": 1}),
        ("label_studio", ("rank", "share", "up"), {"rank": 1, "share": 1, "up": 1}),
        ("argilla", ("best", "share", "marks"), {"best worst": 1, "share": 1, "marks": 1}),
    ],
)
def test_what_a_format_cannot_hold_is_counted(kind: str, answers: Sequence[str], left: dict[str, int], tmp_path: Path) -> None:
    written = FORMATS[kind].write(stream([MAKE[make]([1, 2, 3, 4]) for make in answers]), tmp_path / "file")
    assert (written.judgements, dict(written.left_out)) == (0, left)


def test_rankings_become_all_their_pairs_in_formats_of_pairs() -> None:
    ranked = said("rank", (1, 2, 3), "rank", values={1: 1, 2: 2, 3: 3})
    for kind in ("pickapic", "jsonl_pairs", "folders"):
        back, _, written = round_trip(FORMATS[kind], stream([ranked]))
        winners = sorted((each.answer.winner, set(each.pictures)) for each in back if each.answer)
        assert winners == sorted([(name(1), {name(1), name(2)}), (name(1), {name(1), name(3)}), (name(2), {name(2), name(3)})])
        assert written.judgements == 1


def test_ties_of_a_ranking_are_kept_where_the_format_has_ties() -> None:
    ranked = said("rank", (1, 2, 3), "rank", values={1: 1, 2: 2, 3: 2})
    back, _, _ = round_trip(FORMATS["pickapic"], stream([ranked]))
    assert sorted(each.answer.outcome for each in back if each.answer) == ["tie", "win", "win"]


def test_marks_become_thumbs_in_a_list_of_likes() -> None:
    back, _, _ = round_trip(FORMATS["likes_csv"], stream([MAKE["marks"]([1, 2, 3, 4])]))
    assert {each.pictures[0]: each.answer.outcome for each in back if each.answer} == {
        name(1): "up", name(2): "down", name(3): "down", name(4): "up",
    }  # fmt: skip


def test_annotator_who_did_not_see_a_row_is_not_taken_to_have_judged_it() -> None:
    judgements = [MAKE["marks"]([1, 2, 3, 4]), MAKE["marks"]([5, 6, 7, 8], prompt="a dog", annotator="bob")]
    back, _, _ = round_trip(FORMATS["d3po_json"], stream(judgements))
    assert [(each.annotator, each.prompt) for each in back] == [("ada", "a cat"), ("bob", "a dog")]


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_to_write_is_an_empty_file_that_reads_as_nothing(kind: str) -> None:
    if kind in ("folders", "d3po_json"):
        return  # no folder, no prompts
    assert round_trip(FORMATS[kind], [])[:2] == ([], {})
