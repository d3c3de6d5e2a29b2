"""A file that is not what its format asks for is refused with its name, the line and the field; pictures are not trusted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from d3po.errors import FormatError
from d3po.exchange.formats import FORMATS, find_format
from d3po.exchange.formats.addresses import locate
from d3po.exchange.formats.neutral import handle_of
from d3po.exchange.formats.parsing import json_array
from tests.unit.exchange.formats.items import answered, name, png, read

PAIR = {"prompt": "a cat", "chosen": "1.png", "rejected": "2.png"}
TASK = {"data": {"prompt": "a cat", "left": "1.png", "right": "2.png"}, "annotations": []}
RECORD = {"fields": {"prompt": "a cat", "image_0": "1.png", "image_1": "2.png"}, "responses": {}}
HEAD = json.dumps({"format": "d3po-votes", "version": 1})
PICTURES = "\n".join(json.dumps({"picture": {"id": str(n), "prompt": "p", "sha256": name(n), "file": f"{n}.png"}}) for n in (1, 2))
VOTE: dict[str, Any] = {
    "prompt": "p",
    "kind": "pair",
    "pictures": ["1", "2"],
    "answer": {"outcome": "win", "winner": "1"},
    "annotator": "ada",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three pictures."""
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    return tmp_path


def tasks(result: Any) -> str:
    return json.dumps([TASK | {"annotations": [{"completed_by": 3, "result": [result]}]}])


def records(**responses: Any) -> str:
    return json.dumps([RECORD | {"responses": {question: [response] for question, response in responses.items()}}])


def own(**changed: Any) -> str:
    return "\n".join([HEAD, PICTURES, json.dumps({"judgement": VOTE | changed})])


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("jsonl_pairs", json.dumps(PAIR) + "\n{oops}\n", "file, line 2: not JSON"),
        ("jsonl_pairs", "3\n", "file, line 1: expected an object with fields, found 3"),
        ("jsonl_pairs", "[[1, 2]]\n", "file, line 1: expected an object with fields, found [1, 2]"),
        ("jsonl_pairs", json.dumps(PAIR | {"prompt": 3}), "file, line 1, field prompt: expected text, found 3"),
        ("jsonl_pairs", '{"prompt": "p", "chosen": "1.png"}', "file, line 1, field rejected: expected text, found nothing"),
        ("jsonl_pairs", json.dumps(PAIR | {"rejected": "9.png"}), "file, line 1, field rejected: cannot read"),
        ("jsonl_pairs", json.dumps(PAIR | {"chosen": "../../etc/passwd"}), "file, line 1, field chosen: ../../etc/passwd is not inside"),
        ("jsonl_pairs", json.dumps(PAIR | {"chosen": "https://a.example/1.png"}), "line 1, field chosen: https://a.example/1.png is elsewhere"),
        ("jsonl_pairs", '{"prompt": NaN}', "file, line 1: NaN is not JSON"),
        ("likes_csv", "image,like\n", "file, line 1, field prompt: no such column"),
        ("likes_csv", "image,prompt,like\n1.png,a cat,true\n2.png,a cat,maybe\n", 'file, line 3, field like: expected true or false, found "maybe"'),
        ("likes_csv", "image,prompt,like\n9.png,a cat,true\n", "file, line 2, field image: cannot read"),
        ("likes_csv", "image,prompt,like\n1.png,a cat\n", "file, line 2: not as many fields"),
        ("likes_csv", "image,prompt,like\n1.png,a,cat,true\n", "file, line 2: not as many fields"),
        ("label_studio", "data", "file, line 1: expected a JSON array"),
        ("label_studio", "{}", "file, line 1, field data: expected an object, found nothing"),
        ("label_studio", '[\n3]', "file, line 2: expected an object, a list or the end of the array, found '3'"),
        ("label_studio", '[\n{"data": {"left": "1.png"}}]', "file, line 2, field data: no two pictures"),
        ("label_studio", json.dumps([{"data": TASK["data"]}]), "file, line 1, field annotations: expected a list, found nothing"),
        ("label_studio", tasks({"type": "pairwise", "value": {"selected": "up"}}), "annotations[0].result[0], field value.selected: 'up' is none of"),
        ("label_studio", tasks({"type": "choices", "value": {"choices": ["a", "b"]}}), "result[0], field value.choices: '' is none of"),
        ("argilla", json.dumps([{"fields": {"prompt": "a cat", "image_0": "1.png"}}]), "line 1, field fields: fewer than two pictures"),
        ("argilla", records(preference={"value": "image_7", "user_id": "u"}), "responses.preference[0], field value: expected one of image_0, image_1, tie"),
        ("argilla", records(ranking={"value": [{"value": "image_0", "rank": 5}], "user_id": "u"}), "field rank: expected a place from 1 to 2, found 5"),
        ("argilla", records(preference={"value": "tie"}), "field user_id: expected who answered, found nothing"),
        ("argilla", json.dumps([{"fields": {"image_0": "data:image/png;base64,!!", "image_1": "1.png"}}]), "field image_0: not base64"),
        ("jsonl", "", "file, line 1, field format"),
        ("jsonl", '{"format": "d3po-votes", "version": 9}', "file, line 1, field version: 9 is not 1; update d3po"),
        ("jsonl", own(kind="triple"), 'file, line 4, field judgement, field kind: expected one of pair, best_worst, rank, grid, thumb, score, found "triple"'),
        ("jsonl", own(pictures=["1", "1"]), "file, line 4, field judgement, field pictures: expected a list of different picture ids"),
        ("jsonl", own(pictures=["1", "3"], answer={"outcome": "tie"}), "line 4, field judgement.pictures: picture 3 did not come before"),
        ("jsonl", own(answer={"outcome": "win", "winner": "3"}), "line 4, field judgement, field answer: it speaks of picture 3"),
        ("jsonl", own(answer=None), "field answer: expected an answer, or an event that supersedes one"),
        ("jsonl", own(event={"id": "a", "assignment": "b", "payload_hash": "c"}), "field event, field received_at: expected milliseconds since 1970"),
    ],
)  # fmt: skip
def test_message_names_file_line_and_field(kind: str, text: str, message: str, folder: Path) -> None:
    (folder / "file").write_text(text)
    with pytest.raises(FormatError) as caught:
        read(FORMATS[kind], folder / "file")
    assert message in str(caught.value)


def refusal(attempt: Callable[[], object], *, default: str) -> str:
    """The message of a refusal; any other error is a bug."""
    try:
        attempt()
    except FormatError as error:
        return str(error)
    return default


def row(**changed: Any) -> dict[str, Any]:
    return {"caption": "a cat", "jpg_0": png(1), "jpg_1": png(2), "label_0": 1.0, "label_1": 0.0, "has_label": True, "user_id": 7} | changed


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(label_0=0.4, label_1=0.4)], "file, line 2, field label_0: 0.4 and label_1 0.4 are no shares"),
        ([row(label_0=None)], "file, line 1, field label_0: expected a number, found null"),
        ([row(caption=None)], "file, line 1, field caption: expected text, found null"),
        ([row(jpg_1=b"")], "file, line 1, field jpg_1: expected a picture's bytes"),
        ([{key: value for key, value in row().items() if key != "jpg_1"}], "field jpg_1: no such column"),
    ],
)
def test_parquet_rows_are_checked(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "file")
    with pytest.raises(FormatError) as caught:
        read(FORMATS["pickapic"], tmp_path / "file")
    assert message in str(caught.value)


def test_published_rows_of_pick_a_pic_are_read(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist([row(), row(label_0=0.5, label_1=0.5, user_id=8), row(has_label=False)]), tmp_path / "file")
    items = read(FORMATS["pickapic"], tmp_path / "file")
    assert [(item.annotator, answer.outcome) for item, answer in answered(items)] == [("user-7", "win"), ("user-8", "tie")]


def test_something_else_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("caption,jpg_0")
    with pytest.raises(FormatError, match="not a readable parquet file"):
        read(FORMATS["pickapic"], tmp_path / "file")


def authors_layout(folder: Path, *, prompts: list[Any], pictures: int, labels: str) -> None:
    (folder / "images").mkdir()
    (folder / "json").mkdir()
    for number in range(pictures):
        (folder / "images" / f"{number:05}.png").write_bytes(png(number))
    (folder / "prompt.json").write_text(json.dumps(prompts))
    (folder / "json" / "ada.json").write_text(labels)


@pytest.mark.parametrize(
    ("prompts", "pictures", "labels", "message"),
    [
        (["a", "b"], 5, "[[0, -1], [0, 0]]", "has 5 pictures for 2 prompts"),
        (["a", "b"], 4, "[[0, -1]]", "ada.json: 1 rows for the 2 prompts"),
        (["a", "b"], 4, "[[0, -1],\n[0, 0],\n[0, 0]]", "ada.json, line 3: more rows than the 2 prompts"),
        (["a", "b"], 4, "[[0, -1],\n[0, 0, 0]]", "ada.json, line 2: expected a list of 2 marks"),
        (["a", "b"], 4, "[[0, -1],\n[0, 1]]", "ada.json, line 2, mark 2: expected 0 or -1, found 1"),
        (["a", "b"], 4, "[[0, -1], [0, true]]", "mark 2: expected 0 or -1, found true"),
        (["a", 3], 4, "[[0, -1], [0, 0]]", "prompt.json, entry 2: expected a text, found 3"),
        ([], 4, "[]", "prompt.json: expected a list of prompts"),
    ],
)
def test_labels_by_place_must_fit_exactly(prompts: list[Any], pictures: int, labels: str, message: str, tmp_path: Path) -> None:
    authors_layout(tmp_path, prompts=prompts, pictures=pictures, labels=labels)
    with pytest.raises(FormatError) as caught:
        read(FORMATS["d3po_json"], tmp_path)
    assert message in str(caught.value)


def test_layout_of_the_authors_is_read_as_they_wrote_it(tmp_path: Path) -> None:
    authors_layout(tmp_path, prompts=["a", "b"], pictures=6, labels="[[0, -1, 0], [-1.0, 0, -1.0]]")
    judged = answered(read(FORMATS["d3po_json"], tmp_path))
    assert [(item.prompt, item.pictures, set(answer.values)) for item, answer in judged] == [
        ("a", (name(0), name(1), name(2)), {name(1)}), ("b", (name(3), name(4), name(5)), {name(3), name(5)}),
    ]  # fmt: skip


def test_folders_need_partners(tmp_path: Path) -> None:
    for side, number in (("w", 1), ("w", 2), ("l", 1)):
        (tmp_path / side).mkdir(exist_ok=True)
        (tmp_path / side / f"{number}.png").write_bytes(png(number + (side == "l") * 10))
    with pytest.raises(FormatError, match="1 pictures are in one of w/ and l/ only, such as 2; each needs a partner"):
        read(FORMATS["folders"], tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
def test_missing_source_is_a_plain_message(kind: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nowhere"):
        read(FORMATS[kind], tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["jsonl", "jsonl_pairs", "likes_csv", "label_studio", "argilla"])
@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(kind: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes-{kind}"
    path.write_bytes(content)
    assert str(path) in refusal(lambda: read(FORMATS[kind], path), default=str(path))


def test_label_studio_export_of_a_project_is_read(folder: Path) -> None:
    task = TASK | {"annotations": [
        {"completed_by": 3, "was_cancelled": False, "result": [{"type": "pairwise", "from_name": "pw", "value": {"selected": "right"}}]},
        {"completed_by": {"id": 4, "email": "a@b.example"}, "result": [{"type": "choices", "value": {"choices": ["Both bad"]}}]},
        {"completed_by": {"email": "a@b.example"}, "was_cancelled": True, "result": []},
        {"completed_by": 6, "result": [{"type": "textarea", "value": {"text": ["hm"]}}]},
    ]}  # fmt: skip
    (folder / "file").write_text(json.dumps([task], indent=1))
    judged = answered(read(FORMATS["label_studio"], folder / "file"))
    assert [(item.annotator, answer.outcome, answer.winner) for item, answer in judged] == [
        ("user-3", "win", name(2)), ("user-4", "both_bad", None), (handle_of("a@b.example"), "skip", None),
    ]  # fmt: skip


def test_local_files_address_of_label_studio_is_a_path(folder: Path) -> None:
    assert locate(folder, "/data/local-files/?d=1.png", "here").path == folder / "1.png"


def test_link_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes(png(4))
    (folder / "link.png").symlink_to(outside)
    with pytest.raises(FormatError, match="is not inside"):
        locate(folder, "link.png", "here")


@pytest.mark.parametrize(
    ("who", "handle"),
    [(3, "user-3"), ("12", "user-12"), ("ada", "ada"), ("a@b.example", "person-"), ("x" * 90, "person-"), ("", "person-")],
)
def test_handles_hold_no_addresses(who: object, handle: str) -> None:
    assert handle_of(who).startswith(handle)
    assert "@" not in handle_of(who)
    assert handle_of(who) == handle_of(who)


def test_unknown_format_gets_a_hint() -> None:
    assert find_format("pickapic") is FORMATS["pickapic"]
    with pytest.raises(FormatError, match="did you mean pickapic"):
        find_format("pick_a_pic")
    with pytest.raises(FormatError, match="known are jsonl, pickapic"):
        find_format("zzz")


def test_json_array_is_read_in_pieces_with_lines(tmp_path: Path) -> None:
    values = [{"n": number, "text": "x" * 5000} for number in range(100)]
    (tmp_path / "file").write_text(json.dumps(values, indent=1))
    found = list(json_array(tmp_path / "file"))
    assert [element.parsed() for element in found] == values
    assert [element.where.rsplit(" ", 1)[1] for element in found][:3] == ["2", "6", "10"]
