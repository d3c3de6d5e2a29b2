"""Votes from files into a run: all is read before anything is written, and who is in a file is nobody here."""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from PIL import Image

from d3po.config import RunConfig
from d3po.errors import FormatError
from d3po.exchange.importing import Imported
from d3po.progress import Narrator
from d3po.run.feedback.exchange import Source, export_votes, import_votes, merge_votes
from d3po.run.folder import RunFolder, create_run
from d3po.store import Store
from tests.unit.exchange.formats.items import png
from tests.unit.exchange.runs import ask_and_vote, ids, pair, sampled_store, wins

TEMPLATES = TemporaryDirectory(prefix="d3po-runs-")


@cache
def template(sampled: bool) -> Path:
    """A run's folder to copy, which is faster than making one."""
    path = Path(TEMPLATES.name) / f"sampled-{sampled}"
    create_run(path, RunConfig(), prompts=[f"prompt {n}" for n in range(100)], held_out=[f"held out {n}" for n in range(100)])
    (sampled_store(path) if sampled else Store.in_folder(path)).close()
    return path


class Run:
    """A run with a store, and a folder beside it with data from elsewhere."""

    def __init__(self, path: Path, *, sampled: bool = False) -> None:
        copytree(template(sampled), path)
        self.folder, self.store = RunFolder(path=path), Store.in_folder(path)
        self.data = path.with_name(f"{path.name}-data")
        self.data.mkdir()

    def lay(self, name: str, number: int) -> None:
        """A picture file, another one for each number."""
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))

    def bring(
        self, file: str, text: str | bytes | None = None, *, kind: str = "jsonl_pairs", skip_bad: bool = False, **given: Any
    ) -> Imported:
        path = self.data / file
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return import_votes(self.folder, self.store, Source(format=kind, path=path, **given), Narrator(), skip_bad=skip_bad)

    def refusal(self, file: str, text: str | bytes | None = None, **given: Any) -> str:
        """What an import is refused with, that has written nothing."""
        with pytest.raises(FormatError) as caught:
            self.bring(file, text, **given)
        assert (self.store.votes.count(), self.store.pictures.imported(), self.store.pictures.prompts()) == (0, [], {})
        assert not (self.folder.path / "images" / "import").exists()
        return str(caught.value)

    def pictures(self) -> dict[str, tuple[int, ...]]:
        """The imported pictures' first pixels by prompt and number."""
        return {f"{each.prompt} {each.number}": first_pixel(self.folder.path / each.path) for each in self.store.pictures.imported()}


def first_pixel(picture: Path) -> tuple[int, ...]:
    found = Image.open(picture).getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "run")
    for number in (1, 2, 3):
        run.lay(f"{number}.png", number)
    yield run
    run.store.close()


def pairs(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps({"prompt": "a fox", "chosen": "1.png", "rejected": "2.png"} | line) + "\n" for line in lines)


BAD: dict[str, tuple[dict[str, Any] | str, str]] = {
    "no JSON": ("{oops}\n", "line 2: not JSON"),
    "a missing picture": ({"chosen": "9.png"}, "line 2, field chosen: cannot read 9.png"),
    "a damaged picture": ({"rejected": "damaged.png"}, "line 2, field rejected: not a whole PNG"),
    "half a surrogate pair": ({"prompt": "a \ud83d fox"}, "line 2, field prompt: U+D83D is half a surrogate pair"),
    "NUL": ({"prompt": "a\0fox"}, "line 2, field prompt: U+0000 is NUL"),
    "half a surrogate pair in a name": ({"annotator": "\udc00"}, "line 2, field annotator: U+DC00 is half a surrogate pair"),
    "a number too long": ('{"prompt": ' + "9" * 5000 + "}\n", "line 2: not JSON"),
    "a path with NUL": ({"chosen": "1.png\0"}, "line 2, field chosen: U+0000 is NUL"),
    "a link out of the folder": ({"chosen": "link.png"}, "line 2, field chosen: link.png is not inside"),
    "a folder": ({"chosen": "folder.png"}, "line 2, field chosen: cannot read"),
    "a broken address": ({"chosen": "http://["}, "line 2, field chosen: http://[ is no address"),
    "a broken path": ({"chosen": "//["}, "line 2, field chosen: //[ is not inside"),
    "an address of nothing": ({"chosen": "/data/local-files/?d="}, "names no file"),
    "a drive": ({"chosen": "C:\\pics\\1.png"}, "line 2, field chosen: cannot read C:\\pics\\1.png"),
    "a long name": ({"chosen": "x" * 5000}, "line 2, field chosen: xxx"),
}


def bad_file(run: Run, kind: str) -> str:
    """Three lines of which the second is bad."""
    (run.data / "damaged.png").write_bytes(png(7)[:50])
    (run.data / "folder.png").mkdir()
    (run.data / "link.png").symlink_to(run.folder.config_path)
    line = BAD[kind][0]
    return pairs({}) + (line if isinstance(line, str) else pairs(line)) + pairs({"rejected": "3.png"})


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_record_stops_an_import_before_anything_is_written_or_is_left_out(kind: str, run: Run) -> None:
    said = run.refusal("a.jsonl", bad_file(run, kind))
    assert BAD[kind][1] in said
    assert said.startswith(f"{run.data / 'a.jsonl'}, line 2")
    assert said.endswith("nothing was imported; fix it, or pass --skip-bad to skip it")
    assert "\n" not in said
    done = run.bring("a.jsonl", skip_bad=True)
    assert (done.new_votes, done.bad, len(done.first_bad)) == (2, 1, 1)
    assert BAD[kind][1] in done.first_bad[0]


def test_many_bad_records_are_counted_and_the_first_is_told(run: Run) -> None:
    said = run.refusal("a.jsonl", pairs({}, *[{"chosen": f"{number}9.png"} for number in range(7)]))
    assert f"{run.data / 'a.jsonl'}: 7 records are bad, the first of them: " in said
    done = run.bring("a.jsonl", skip_bad=True)
    assert (done.new_votes, done.bad, len(done.first_bad)) == (1, 7, 5)


def test_a_picture_that_was_named_by_a_bad_record_first_still_comes(run: Run) -> None:
    done = run.bring("a.jsonl", pairs({"rejected": "9.png"}, {}), skip_bad=True)
    assert (done.new_votes, done.new_pictures) == (1, 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_waited_for_nowhere(run: Run) -> None:
    os.mkfifo(run.data / "pipe.png")
    assert "line 1, field chosen: cannot read" in run.refusal("a.jsonl", pairs({"chosen": "pipe.png"}))
    os.mkfifo(run.data / "pipe.jsonl")
    for kind in ("jsonl", "jsonl_pairs", "likes_csv", "label_studio", "argilla", "pickapic"):
        assert "a pipe or a device" in run.refusal("pipe.jsonl", kind=kind)


def test_pictures_with_the_same_pixels_are_left_out_and_stop_nothing(run: Run) -> None:
    with Image.open(run.data / "1.png") as picture:
        picture.save(run.data / "1.webp", lossless=True)
    twins = {"rejected": "1.webp"}
    assert "no votes to import" in (said := run.refusal("a.jsonl", pairs(twins)))
    assert f"1 votes left out: two of their pictures have the same pixels (first: {run.data / 'a.jsonl'}, line 1)" in said
    done = run.bring("a.jsonl", pairs(twins, {"rejected": "1.png"}, {}))
    assert (done.new_votes, done.bad, done.left_out.counts.total()) == (1, 0, 2)


def test_a_path_is_no_address(run: Run) -> None:
    run.lay("a%20b.png", 11)
    run.lay("a b.png", 12)
    run.lay("50%25off?d=1#x.png", 13)
    done = run.bring("a.jsonl", pairs({"chosen": "a%20b.png"}, {"prompt": "q", "chosen": "50%25off?d=1#x.png"}))
    assert done.new_votes == 2
    assert run.pictures() == {"a fox 0": (11, 0, 7), "a fox 1": (2, 0, 7), "q 0": (13, 0, 7), "q 1": (2, 0, 7)}


@pytest.mark.parametrize("answer", ["preference", "is_better"])
def test_no_vote_is_an_error_that_says_what_was_found_and_what_is_read(answer: str, run: Run) -> None:
    record = {
        "fields": {"text": "a fox", "image_0": "1.png", "image_1": "2.png"},
        "responses": {answer: [{"value": "image_1", "user_id": "u"}]},
    }
    if answer == "is_better":
        said = run.refusal("a.json", json.dumps([record]), kind="argilla")
        assert "argilla reads responses to the questions preference and ranking (--question NAME reads another)" in said
        assert "1 responses to the question 'is_better' are not read" in said
        assert run.bring("a.json", kind="argilla", question="is_better").new_votes == 1
    else:
        assert run.bring("a.json", json.dumps([record]), kind="argilla").new_votes == 1
    assert set(run.store.pictures.prompts().values()) == {"a fox"}


def test_a_question_is_named_only_where_there_are_several(run: Run) -> None:
    assert "records of the format jsonl_pairs answer only one question" in run.refusal("a.jsonl", pairs({}), question="preference")


@pytest.mark.parametrize(
    ("kind", "text"),
    [("jsonl_pairs", ""), ("label_studio", "[]"), ("argilla", "[]"), ("likes_csv", "image,prompt,like\n"), ("jsonl_pairs", "[]")],
)
def test_an_empty_file_is_an_error(kind: str, text: str, run: Run) -> None:
    assert f"there are no votes to import: {kind} reads" in run.refusal("file", text, kind=kind)


def lay_pair(run: Run, name: str, **captions: bytes) -> None:
    run.lay(f"w/{name}.png", len(name) + 20)
    run.lay(f"l/{name}.png", len(name) + 40)
    for ending, caption in captions.items():
        (run.data / "w" / f"{name}.{ending}").write_bytes(caption)


def test_captions_are_read_as_people_have_them(run: Run) -> None:
    lay_pair(run, "a", txt=b"\xef\xbb\xbfa fox\r\n")
    lay_pair(run, "bb", caption="a café\u2028now".encode())
    lay_pair(run, "ccc", txt="two\r\nlines".encode("utf-16"))
    done = run.bring(".", kind="folders", name="data")
    assert set(run.store.pictures.prompts().values()) == {"a fox", "a café\u2028now", "two\nlines"}
    assert not done.passed_over


def test_pairs_without_captions_are_counted(run: Run) -> None:
    lay_pair(run, "a")
    lay_pair(run, "bb", txt=b"a fox")
    assert run.bring(".", kind="folders", name="data").passed_over == {
        "pairs have no caption (w/NAME.txt or w/NAME.caption), so that their prompt is empty": 1
    }


@pytest.mark.parametrize("what", ["link", "pipe", "cp1252", "nul"])
def test_a_caption_that_is_none_never_becomes_a_prompt(what: str, run: Run, tmp_path: Path) -> None:
    lay_pair(run, "a", txt={"cp1252": b"a caf\xe9", "nul": b"a\0b"}.get(what, b"a fox"))
    caption, secret = run.data / "w" / "a.txt", tmp_path / "secret"
    secret.write_text("a private key")
    if what in ("link", "pipe"):
        caption.unlink()
        caption.symlink_to(secret) if what == "link" else os.mkfifo(caption)
    wanted = {"link": "is not inside", "pipe": "cannot read", "cp1252": "byte 5 (0xE9) is not UTF-8", "nul": "a NUL character"}
    said = run.refusal(".", kind="folders", name="data")
    assert str(caption) in said
    assert wanted[what] in said
    assert "private" not in said


def test_records_without_a_prompt_are_counted(run: Run) -> None:
    line = json.dumps({"question": "a fox", "chosen": "1.png", "rejected": "2.png"})
    assert list(run.bring("a.jsonl", line).passed_over) == [
        "records have no prompt or text or caption or instruction, so that their prompt is empty (found chosen, question, rejected)"
    ]


@pytest.mark.parametrize("name", ["owner", "Owner", " owner ", "\uff4fwner", "boss"])
@pytest.mark.parametrize("kind", ["jsonl_pairs", "jsonl"])
def test_nobody_in_a_file_is_an_administrator(kind: str, name: str, run: Run, tmp_path: Path) -> None:
    run.store.people.annotator("boss", "human", "admin")
    if kind == "jsonl":
        other = Run(tmp_path / "other", sampled=True)
        ask_and_vote(other.store, name.strip() if name != " owner " else "owner", pair(*ids(other.store)[:2]), wins(ids(other.store)[0]))
        export_votes(
            other.folder,
            other.store,
            format="jsonl",
            target=run.data / "a.jsonl",
            round=None,
            purpose=None,
            pictures=True,
            narrator=Narrator(),
        )
        other.store.close()
        run.bring("a.jsonl", kind="jsonl")
        assert run.bring("a.jsonl", kind="jsonl").known_votes == 1
    else:
        run.bring("a.jsonl", pairs({"annotator": name}))
        assert run.bring("a.jsonl").known_votes == 1
    (vote,) = run.store.votes.current()
    (who,) = [each for each in run.store.people.annotators() if each.id == vote.annotator]
    assert (who.handle, who.role) == (f"{name.strip()}:a", "annotator")
    assert run.store.people.owner().role == "admin"


def test_a_log_of_the_owners_votes_comes_home_as_known(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", sampled=True)
    run.store.people.owner()
    ask_and_vote(run.store, "owner", pair(*ids(run.store)[:2]), wins(ids(run.store)[0]))
    log = run.data / "a.jsonl"
    export_votes(run.folder, run.store, format="jsonl", target=log, round=None, purpose=None, pictures=False, narrator=Narrator())
    done = run.bring("a.jsonl", kind="jsonl")
    assert (done.new_votes, done.known_votes) == (0, 1)
    assert [each.handle for each in run.store.people.annotators()] == ["owner"]
    copy = Run(tmp_path / "copy", sampled=True)
    assert merge_votes(copy.folder, copy.store, str(run.folder.path), Narrator()).new_votes == 1
    assert [each.handle for each in copy.store.people.annotators()] == ["owner"]
    for each in (run, copy):
        each.store.close()


def exported(tmp_path: Path) -> tuple[Run, list[dict[str, Any]]]:
    """A run with one vote, and its log's lines."""
    run = Run(tmp_path / "run", sampled=True)
    ask_and_vote(run.store, "ada", pair(*ids(run.store)[:2]), wins(ids(run.store)[0]))
    log = run.data / "a.jsonl"
    export_votes(run.folder, run.store, format="jsonl", target=log, round=None, purpose=None, pictures=True, narrator=Narrator())
    return run, [json.loads(line) for line in log.read_text().splitlines()]


def text_of(lines: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


CHANGES: dict[str, tuple[str, Any]] = {
    "the winner": ("answer", None),
    "the annotator": ("annotator", "bob"),
    "the payload's hash": ("payload_hash", "0" * 64),
    "the time": ("received_at", 5),
    "the order shown": ("pictures", None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_known_event_with_other_words_is_a_conflict(what: str, tmp_path: Path) -> None:
    run, lines = exported(tmp_path)
    said = lines[-1]["judgement"]
    field, value = CHANGES[what]
    if field == "answer":
        (other,) = set(said["pictures"]) - {said["answer"]["winner"]}
        said["answer"]["winner"] = other
    elif field == "pictures":
        said["pictures"].reverse()
    else:
        (said["event"] if field in said["event"] else said)[field] = value
    with pytest.raises(FormatError, match=r"line 4, field sha256: it is not the hash of the line's content"):
        run.bring("a.jsonl", text_of(lines), kind="jsonl")
    del lines[-1]["sha256"]
    with pytest.raises(
        FormatError, match=r"no vote was imported; 1 votes left out: an event of the same id says something else here .*line 4"
    ):
        run.bring("a.jsonl", text_of(lines), kind="jsonl")
    run.store.close()


def test_an_event_that_stands_twice_in_a_file_with_other_words_counts_once(tmp_path: Path) -> None:
    run, lines = exported(tmp_path)
    taker = Run(tmp_path / "taker", sampled=True)
    again = json.loads(json.dumps(lines[-1]))
    (again["judgement"]["answer"]["winner"],) = set(again["judgement"]["pictures"]) - {again["judgement"]["answer"]["winner"]}
    for line in (lines[-1], again):
        del line["sha256"]
    (taker.data / "a-pictures").symlink_to(run.data / "a-pictures")
    done = taker.bring("a.jsonl", text_of([*lines, lines[-1], again]), kind="jsonl", images=run.data)
    assert (done.new_votes, done.known_votes) == (1, 1)
    assert done.left_out.counts == {"an event of the same id says something else here": 1}
    for each in (run, taker):
        each.store.close()


def test_a_picture_whose_file_is_another_than_declared_is_bad(tmp_path: Path) -> None:
    run, lines = exported(tmp_path)
    first, second = (run.data / line["picture"]["file"] for line in lines[1:3])
    first.write_bytes(second.read_bytes())
    with pytest.raises(FormatError, match="line 2, field picture, field sha256: it is not the hash of a-pictures/"):
        run.bring("a.jsonl", kind="jsonl")
    run.store.close()


def test_a_line_may_be_written_anew_with_other_spaces_and_order(tmp_path: Path) -> None:
    run, lines = exported(tmp_path)
    text = "".join(json.dumps({key: line[key] for key in reversed(line)}, separators=(",", ":")) + "\r\n" for line in lines)
    assert run.bring("a.jsonl", text, kind="jsonl").known_votes == 1
    run.store.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": {"outcome": "win"}}, "line 4, field judgement: a win names its winner"),
        ({"kind": "thumb"}, "line 4, field judgement: a thumb question is about 1 pictures, but this one has 2"),
        ({"answer": {"outcome": "share", "values": {}}}, "line 4, field judgement: an answer 'share' has the share"),
        ({"purpose": "gold"}, "line 4, field judgement: a gold question has an expected answer"),
        ({"event": {"client": "x" * 201}}, "line 4, field judgement: a client's name has 201 characters"),
        ({"event": {"received_at": 10**18}}, "received_at is 1000000000000000000"),
        ({"event": {"rt_ms": -1}}, "rt_ms is -1"),
        ({"event": {"id": "1"}}, "a vote's id is a UUID"),
    ],
)
def test_votes_that_make_no_sense_are_named_by_their_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    run, lines = exported(tmp_path)
    said = lines[-1]["judgement"]
    del lines[-1]["sha256"]
    said["event"] |= changes.pop("event", {})
    said |= changes
    with pytest.raises(FormatError) as caught:
        run.bring("a.jsonl", text_of(lines), kind="jsonl")
    assert message in str(caught.value)
    assert "a.jsonl, line 4" in str(caught.value)
    run.store.close()


def test_a_name_that_belongs_to_something_that_is_no_person_is_named_by_its_line(run: Run) -> None:
    run.store.people.annotator("clip", "model")
    assert "line 1: annotator 'clip' is of kind model here, not human" in run.refusal("a.jsonl", pairs({"annotator": "clip"}))


@pytest.mark.parametrize("handle", ["ada@example.org", "ada\uff20example.org", "x" * 57, "a\nb"])
def test_a_handle_for_nobody_named_is_no_address(handle: str, run: Run) -> None:
    assert "is not an e-mail address" in run.refusal("a.jsonl", pairs({}), annotator=handle)


def test_a_ranking_is_a_list_of_names(run: Run) -> None:
    fields = {"prompt": "a fox"} | {f"image_{number}": f"{number + 1}.png" for number in range(3)}
    ranking = [{"value": ["image_1", "image_0", "image_2"], "user_id": "u"}]
    assert run.bring("a.json", json.dumps({"fields": fields, "responses": {"ranking": ranking}}), kind="argilla").new_votes == 1
    (vote,) = run.store.votes.current()
    pixels = {each.id: first_pixel(run.folder.path / each.path)[0] for each in run.store.pictures.imported()}
    assert {pixels[image]: rank for image, rank in vote.answer.values.items()} == {2: 1.0, 1: 2.0, 3: 3.0}
