"""A path is the file of that name, an address is decoded once, and neither leads out of the folder."""

from pathlib import Path

import pytest

from d3po.errors import FormatError
from d3po.exchange.formats.addresses import locate
from d3po.exchange.formats.base import NamedPictures
from tests.unit.exchange.formats.items import name, png

FILES = (
    "a.png",
    "a b.png",
    "a%20b.png",
    "a+b.png",
    "50%.png",
    "%2e%2e",
    "q?d=1#f.png",
    "sub/a.png",
    "back\\slash.png",
    "upload/1/3f2a91c0-u.png",
    "media/upload/2/0123abcd-m.png",
    "00ff00ff-flat.png",
    "original.png",
    "é 雪.png",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for each in FILES:
        (root / each).parent.mkdir(parents=True, exist_ok=True)
        (root / each).write_bytes(png(1))
    (tmp_path / "secret.png").write_bytes(png(2))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "loop.png").symlink_to("loop.png")
    return root


@pytest.mark.parametrize(
    ("said", "file"),
    [
        *((each, each) for each in FILES),
        ("./sub/../a.png", "a.png"),
        ("sub\\a.png", "sub/a.png"),
        ("ROOT/a%20b.png", "a%20b.png"),
        ("file://ROOT/a%20b.png", "a b.png"),
        ("file://localhostROOT/a%2520b.png", "a%20b.png"),
        ("/data/local-files/?d=a%20b.png", "a b.png"),
        ("/data/local-files/?d=a+b.png", "a+b.png"),
        ("/data/local-files/?d=%C3%A9%20%E9%9B%AA.png", "é 雪.png"),
        ("/data/local-files?x=1&d=sub%2Fa.png", "sub/a.png"),
        ("http://localhost:8080/data/local-files/?d=sub/a.png", "sub/a.png"),
        ("HTTPS://label.example.org/data/local-files/?d=/a.png", "a.png"),
        ("/data/upload/1/3f2a91c0-u.png", "upload/1/3f2a91c0-u.png"),
        ("/data/upload/2/0123abcd-m.png", "media/upload/2/0123abcd-m.png"),
        ("http://localhost:8080/data/upload/9/00ff00ff-flat.png", "00ff00ff-flat.png"),
        ("/data/upload/9/99aa99aa-original.png", "original.png"),
        ("/data/upload/9/99aa99aa-a%20b.png", "a b.png"),
    ],
)
def test_what_is_named_is_found(said: str, file: str, folder: Path) -> None:
    found = locate(folder, said.replace("ROOT", folder.as_posix()), "here")
    assert found.path == folder / file
    assert found.original == (said.rsplit("/", 1)[-1].startswith("99aa99aa"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "is no path of a picture"),
        ("  ", "is no path of a picture"),
        (None, "is no path of a picture"),
        (7, "is no path of a picture"),
        ("gone.png", "cannot read gone.png: there is no such file"),
        ("a%2520b.png", "cannot read"),
        ("../secret.png", "is not inside"),
        ("..\\secret.png", "cannot read"),
        ("sub\\..\\..\\secret.png", "cannot read"),
        ("%2e%2e/secret.png", "cannot read"),
        ("link.png", "is not inside"),
        ("loop.png", ""),
        ("a.png\0", "is no path of a file here"),
        ("\udcff.png", "cannot read"),
        ("x" * 300, ""),
        ("//[", "is not inside"),
        ("//host/a.png", "is not inside"),
        ("/etc/passwd", "is not inside"),
        ("file:///etc/passwd", "is not inside"),
        ("file://elsewhere/a.png", "is elsewhere; download it"),
        ("file://%00", "is elsewhere; download it"),
        ("http://[", "is no address"),
        ("http://[::1", "is no address"),
        ("https://a.example/1.png", "is elsewhere; download it"),
        ("s3://bucket/1.png", "is elsewhere; download it"),
        ("gs://bucket/1.png", "is elsewhere; download it"),
        ("javascript://a", "is elsewhere; download it"),
        ("/data/local-files/?d=", "names no file"),
        ("/data/local-files/?d=%2F", "names no file"),
        ("/data/local-files/", "names no file"),
        ("/data/local-files/?d=../secret.png", "is not inside"),
        ("/data/local-files/?d=..%2Fsecret.png", "is not inside"),
        ("/data/local-files/?d=%252e%252e/secret.png", "cannot read"),
        ("/data/local-files/?d=a.png%00", "is no path of a file here"),
        ("/data/upload/../../../../../secret.png", "cannot read"),
        ("/data/upload/1/..%2f..%2f..%2fsecret.png", "cannot read"),
        ("C:\\pics\\1.png", "cannot read"),
    ],
)
def test_everything_else_is_refused_in_one_line(said: object, message: str, folder: Path) -> None:
    with pytest.raises(FormatError) as caught:
        locate(folder, said, "list.jsonl, line 3, field chosen")
    assert str(caught.value).startswith("list.jsonl, line 3, field chosen: ")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_two_uploads_of_one_name_are_not_guessed(folder: Path) -> None:
    files = NamedPictures(folder)
    assert files.read("/data/upload/1/aaaaaaaa-original.png", "p", "line 1") == name(1)
    assert files.read("/data/upload/1/aaaaaaaa-original.png", "q", "line 2") == name(1)
    with pytest.raises(FormatError, match=r"line 3: original\.png may be the file of /data/upload/1/bbbbbbbb-original\.png or of"):
        files.read("/data/upload/1/bbbbbbbb-original.png", "p", "line 3")


def test_pictures_of_a_bad_record_are_told_when_a_sound_one_names_them(folder: Path) -> None:
    files = NamedPictures(folder)
    files.read("a.png", "p", "line 1")
    files.forget()
    assert files.told() == []
    files.read("a.png", "p", "line 2")
    (picture,) = files.told()
    assert (picture.where, picture.sha256) == ("line 2", name(1))
    files.read("a.png", "p", "line 3")
    assert files.told() == []
