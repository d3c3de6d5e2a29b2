"""Files as today's tools and people write them: other names, other encodings, other ways to say yes."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from d3po.errors import FormatError
from d3po.exchange.formats import FORMATS
from d3po.exchange.formats.base import Reading
from d3po.exchange.formats.neutral import BadRecord, ImportedJudgement, ImportedPicture, clean_handle
from tests.unit.exchange.formats.items import name, picture, png, read, said, stream

PAIR = {"prompt": "a fox", "chosen": "1.png", "rejected": "2.png"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three pictures."""
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    return tmp_path


def judged(kind: str, source: Path, **given: Any) -> list[ImportedJudgement]:
    return [item for item in read(FORMATS[kind], source, **given) if isinstance(item, ImportedJudgement)]


def argilla(value: object, *, pictures: int = 3, question: str = "ranking", **changes: Any) -> str:
    fields = {"prompt": "a fox"} | {f"image_{number}": f"{number + 1}.png" for number in range(pictures)}
    response = {"value": value, "user_id": "00000000-0000-4000-8000-000000000001"} | changes
    return json.dumps([{"id": "1", "fields": fields, "suggestions": {}, "responses": {question: [response]}, "_server_id": None}])


@pytest.mark.parametrize(
    ("value", "ranks"),
    [
        (["image_1", "image_0", "image_2"], {2: 1.0, 1: 2.0, 3: 3.0}),
        (["image_2", "image_0"], {3: 1.0, 1: 2.0}),
        ([{"value": "image_1", "rank": 1}, {"value": "image_0", "rank": 1}, {"value": "image_2", "rank": 3}], {2: 1.0, 1: 1.0, 3: 3.0}),
    ],
)
def test_rankings_of_argilla_are_names_in_order_or_with_their_ranks(value: object, ranks: dict[int, float], folder: Path) -> None:
    (folder / "file").write_text(argilla(value))
    (judgement,) = judged("argilla", folder / "file")
    assert judgement.answer is not None
    assert (judgement.kind, judgement.answer.values) == ("rank", {name(number): rank for number, rank in ranks.items()})


@pytest.mark.parametrize(
    "value",
    [["image_0", "image_7"], ["image_0", "image_0"], ["image_0", {"value": "image_1", "rank": 2}], ["image_0", 3], {"a": 1}, 7, True],
)
def test_rankings_that_are_none_are_bad(value: object, folder: Path) -> None:
    (folder / "file").write_text(argilla(value))
    with pytest.raises(FormatError, match=r"line 1, field responses\.ranking\[0\]"):
        judged("argilla", folder / "file")


@pytest.mark.parametrize(("changes", "count"), [({"status": "draft"}, 0), ({}, 0), ({"status": "discarded"}, 1)])
def test_drafts_of_argilla_are_no_answers(changes: dict[str, Any], count: int, folder: Path) -> None:
    (folder / "file").write_text(argilla("image_0" if changes else None, pictures=2, question="preference", **changes))
    reading = Reading(source=folder / "file", images=folder)
    items = list(FORMATS["argilla"].read(reading))
    assert sum(isinstance(item, ImportedJudgement) for item in items) == count
    assert reading.passed_over.total() == 1 - count


def test_another_question_is_read_where_it_is_named(folder: Path) -> None:
    (folder / "file").write_text(argilla("image_0", pictures=2, question="better"))
    reading = Reading(source=folder / "file", images=folder)
    assert not any(isinstance(item, ImportedJudgement | BadRecord) for item in FORMATS["argilla"].read(reading))
    assert dict(reading.passed_over) == {"responses to the question 'better' are not read": 1}
    assert len(judged("argilla", folder / "file", question="better")) == 1


@pytest.mark.parametrize("called", ["prompt", "text", "caption", "instruction"])
@pytest.mark.parametrize("kind", ["jsonl_pairs", "label_studio", "argilla"])
def test_a_prompt_goes_by_several_names(kind: str, called: str, folder: Path) -> None:
    result = [{"type": "pairwise", "value": {"selected": "left"}}]
    records: dict[str, Any] = {
        "jsonl_pairs": {called: " a fox\r\n", "chosen": "1.png", "rejected": "2.png"},
        "label_studio": {"data": {called: " a fox\r\n", "left": "1.png", "right": "2.png"}, "annotations": [{"result": result}]},
        "argilla": {
            "fields": {"image_0": "1.png", "image_1": "2.png", called: " a fox\r\n"},
            "responses": {"preference": [{"value": "image_0", "user_id": "u"}]},
        },
    }
    for text in (json.dumps(records[kind]), json.dumps([records[kind]]), json.dumps(records[kind], indent=1)):
        (folder / "file").write_text(text)
        assert [(each.prompt, each.answer and each.answer.winner) for each in judged(kind, folder / "file")] == [("a fox", name(1))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_three_ways_and_encodings_say_what_they_are(encoding: str, end: str, folder: Path) -> None:
    prompts = ["é 雪", "b\u2028c", "d\u0085e", "f\fg"]
    (folder / "file").write_bytes(end.join(json.dumps(PAIR | {"prompt": each}, ensure_ascii=False) for each in prompts).encode(encoding))
    assert [each.prompt for each in judged("jsonl_pairs", folder / "file")] == prompts
    (folder / "likes").write_bytes(end.join(["image,prompt,like", *(f"1.png,{each},true" for each in prompts)]).encode(encoding))
    assert [each.prompt for each in judged("likes_csv", folder / "likes")] == prompts


@pytest.mark.parametrize("kind", ["jsonl_pairs", "likes_csv", "label_studio"])
def test_a_byte_that_is_no_text_spoils_its_own_record_alone(kind: str, folder: Path) -> None:
    task = b'{"data": {"prompt": "%b", "left": "1.png", "right": "2.png"}, "annotations": [{"was_cancelled": true}]}'
    prompts = (b"a fox", b"caf\xe9", b"a cat")
    contents = {
        "jsonl_pairs": b"".join(b'{"prompt": "%b", "chosen": "1.png", "rejected": "2.png"}\n' % each for each in prompts),
        "likes_csv": b"image,prompt,like\n" + b"".join(b"1.png,%b,true\n" % each for each in prompts),
        "label_studio": b"[" + b",\n".join(task % each for each in prompts) + b"]",
    }
    (folder / "file").write_bytes(contents[kind])
    items = list(FORMATS[kind].read(Reading(source=folder / "file", images=folder)))
    assert [item.prompt for item in items if isinstance(item, ImportedJudgement)] == ["a fox", "a cat"]
    (bad,) = [item for item in items if isinstance(item, BadRecord)]
    line = {"jsonl_pairs": "line 2", "likes_csv": "line 3, field prompt", "label_studio": "line 2"}[kind]
    assert bad.message.startswith(f"{folder / 'file'}, {line}: byte 0xE9 is not UTF-8 text; save the file as UTF-8")


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_quoted_cell_that_is_never_closed_is_one_bad_row(end: str, folder: Path) -> None:
    (folder / "file").write_text(f'image,prompt,like\n1.png,a fox,true\n2.png,"a cat,true{end}')
    items = list(FORMATS["likes_csv"].read(Reading(source=folder / "file", images=folder)))
    assert [type(item) for item in items] == [ImportedPicture, ImportedJudgement, BadRecord]


@pytest.mark.parametrize(
    ("said", "labelled"),
    [(True, 1), (False, 0), (1, 1), (0, 0), (0.0, 0), ("True", 1), ("False", 0), ("0", 0), ("no", 0), (None, 1)],
)
def test_what_has_no_label_is_no_vote_however_it_is_said(said: object, labelled: int, folder: Path) -> None:
    row = {"caption": "a cat", "jpg_0": png(1), "jpg_1": {"bytes": png(2), "path": None}, "label_0": 1.0, "label_1": 0.0, "has_label": said}
    parquet.write_table(pa.Table.from_pylist([row]), folder / "file")
    assert len(judged("pickapic", folder / "file")) == labelled


def test_a_label_that_is_neither_is_bad(folder: Path) -> None:
    row = {"caption": "a cat", "jpg_0": png(1), "jpg_1": png(2), "label_0": 1.0, "label_1": 0.0, "has_label": "perhaps"}
    parquet.write_table(pa.Table.from_pylist([row]), folder / "file")
    with pytest.raises(FormatError, match='line 1, field has_label: expected true or false, found "perhaps"'):
        judged("pickapic", folder / "file")


def test_a_damaged_parquet_file_is_one_line(folder: Path) -> None:
    rows = [{"caption": f"a cat {n}", "jpg_0": png(1), "jpg_1": png(2), "label_0": 1.0, "label_1": 0.0} for n in range(50)]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "file", compression="zstd")
    whole = (folder / "file").read_bytes()
    (folder / "file").write_bytes(whole[:40] + bytes(200) + whole[240:])
    with pytest.raises(FormatError, match="file: damaged, or not a parquet file of these columns"):
        judged("pickapic", folder / "file")


@pytest.mark.parametrize(("cancelled", "outcome"), [("False", "win"), (0, "win"), (None, "win"), ("true", "skip"), (1, "skip")])
def test_a_cancelled_annotation_may_say_so_in_words(cancelled: object, outcome: str, folder: Path) -> None:
    annotation = {"was_cancelled": cancelled, "result": [{"type": "pairwise", "value": {"selected": "left"}}]}
    task = {"data": {"prompt": "p", "left": "1.png", "right": "2.png"}, "annotations": [annotation]}
    (folder / "file").write_text(json.dumps([task]))
    (judgement,) = judged("label_studio", folder / "file")
    assert judgement.answer is not None
    assert judgement.answer.outcome == outcome


def test_choices_of_another_question_beside_the_answer_are_passed_over(folder: Path) -> None:
    result = [{"type": "choices", "value": {"choices": ["blurry"]}}, {"type": "pairwise", "value": {"selected": "right"}}]
    task = {"data": {"prompt": "p", "image1": "1.png", "image2": "/data/upload/4/00aa11bb-2.png"}, "annotations": [{"result": result}]}
    (folder / "file").write_text(json.dumps(task))
    (judgement,) = judged("label_studio", folder / "file")
    assert judgement.answer is not None
    assert judgement.answer.winner == name(2)
    task["annotations"] = [{"result": result[:1]}]
    (folder / "file").write_text(json.dumps(task))
    with pytest.raises(FormatError, match="'blurry' is none of left, right, tie, both_bad, skip"):
        judged("label_studio", folder / "file")


@pytest.mark.parametrize(("declared", "fine"), [(name(1), True), (name(2), False), ("x", False)])
def test_a_hash_that_a_task_declares_is_held_against_its_file(declared: str, fine: bool, folder: Path) -> None:
    task = {"data": {"prompt": "p", "left": "1.png", "left_sha256": declared, "right": "2.png"}, "annotations": []}
    (folder / "file").write_text(json.dumps([task]))
    if fine:
        assert judged("label_studio", folder / "file") == []
    else:
        with pytest.raises(FormatError, match="field left_sha256"):
            judged("label_studio", folder / "file")


def test_names_that_were_found_are_said(folder: Path) -> None:
    for kind, text, found in (
        ("label_studio", '[{"data": {"prompt": "p", "img_l": "1.png"}, "annotations": []}]', "the fields are prompt, img_l"),
        ("argilla", '[{"fields": {"prompt": "p", "left": "1.png"}}]', "the fields are prompt, left"),
        ("likes_csv", "image;prompt;like\n", "here it is 'image;prompt;like'"),
    ):
        (folder / "file").write_text(text)
        with pytest.raises(FormatError) as caught:
            judged(kind, folder / "file")
        assert found in str(caught.value)


def test_cells_that_a_spreadsheet_would_run_are_written_as_text(folder: Path) -> None:
    prompts = ['=HYPERLINK("http://example.org")', "+1", "-1 degrees", "@home", "'=1", "plain"]
    judgements = [said("thumb", [1], "up", prompt=prompt, annotator="=cmd") for prompt in prompts]
    FORMATS["likes_csv"].write(stream(judgements), folder / "file.csv")
    with (folder / "file.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[1] for row in rows] == [f"'{prompt}" for prompt in prompts[:5]] + ["plain"]
    assert not any(cell[0] in "=+-@" for row in rows for cell in row)
    back = judged("likes_csv", folder / "file.csv")
    assert [(each.prompt, each.annotator) for each in back] == [(prompt, "=cmd") for prompt in prompts]


@pytest.mark.parametrize("who", ["ada@example.org", "Ada <ada@example.org>", "ada\uff20example.org", "a\u200bb", "\ud800", "a" * 65, ""])
def test_no_handle_is_an_address(who: str) -> None:
    assert clean_handle(who).startswith("person-")


def test_our_own_log_keeps_no_address(folder: Path) -> None:
    log = FORMATS["jsonl"]
    log.write(
        stream([said("pair", (1, 2), "tie", annotator="ada@example.org"), said("pair", (1, 2), "tie", annotator="7")]), folder / "log.jsonl"
    )
    assert [each.annotator for each in judged("jsonl", folder / "log.jsonl")] == [clean_handle("ada@example.org"), "7"]


def test_files_of_a_folder_that_lead_out_of_it_are_bad(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    for side in ("w", "l"):
        (data / side).mkdir(parents=True)
        (data / side / "1.png").write_bytes(png(1 if side == "w" else 2))
    outside.write_bytes(png(9))
    (data / "l" / "1.png").unlink()
    (data / "l" / "1.png").symlink_to(outside)
    with pytest.raises(FormatError, match=r"l/1\.png: .* is not inside"):
        judged("folders", data)


def test_labels_and_prompts_of_the_authors_layout_that_lead_out_of_it_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "json").mkdir()
    for number in range(2):
        (data / "images" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "outside.json").write_text('["a"]')
    (data / "prompt.json").symlink_to(tmp_path / "outside.json")
    (data / "json" / "ada.json").write_text("[[0, -1]]")
    with pytest.raises(FormatError, match=r"prompt\.json: .* is not inside"):
        judged("d3po_json", data)
    (data / "prompt.json").unlink()
    (data / "prompt.json").write_bytes(b'\xef\xbb\xbf["a fox\\r\\n"]')
    assert [each.prompt for each in judged("d3po_json", data)] == ["a fox"]
    (tmp_path / "outside.json").write_text("[[0, -1]]")
    (data / "json" / "bob.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(FormatError, match=r"bob\.json: .* is not inside"):
        judged("d3po_json", data)


def test_a_row_of_the_authors_layout_whose_pictures_cannot_be_read_is_bad(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "json").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "1.png").symlink_to("gone.png")
    (tmp_path / "prompt.json").write_text('["a", "b"]')
    (tmp_path / "json" / "ada.json").write_text("[[0, -1],\n[-1, 0]]")
    items = list(FORMATS["d3po_json"].read(Reading(source=tmp_path, images=tmp_path)))
    assert [item.prompt for item in items if isinstance(item, ImportedJudgement)] == ["b"]
    first, second = (item.message for item in items if isinstance(item, BadRecord))
    assert "1.png: cannot read" in first
    assert second == f"{tmp_path / 'json' / 'ada.json'}, line 1: its pictures could not be read"


def test_pictures_may_be_embedded_in_any_format(folder: Path) -> None:
    import base64

    uri = f"data:image/png;base64,{base64.b64encode(png(3)).decode()}"
    (folder / "file").write_text(json.dumps(PAIR | {"chosen": uri}))
    items = read(FORMATS["jsonl_pairs"], folder / "file")
    assert [item.sha256 for item in items if isinstance(item, ImportedPicture)] == [picture(3).sha256, picture(2).sha256]
