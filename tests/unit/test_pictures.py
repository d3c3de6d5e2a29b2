"""The one reader of pictures that others made: as they look, nothing but pixels, and refused plainly."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d3po.errors import FormatError
from d3po.pictures import LARGEST, decode, encode_anew, read_picture


def png(number: int) -> bytes:
    """A small picture of one colour."""
    return saved(Image.new("RGB", (2, 2), (number, 0, 7)))


def saved(picture: Image.Image, kind: str = "PNG", **given: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **given)
    return buffer.getvalue()


def grey16(values: Any) -> Image.Image:
    return Image.fromarray(np.asarray(values, dtype=np.uint16))


def refusal(attempt: Callable[[], object], *, default: str) -> str:
    """The message of a refusal; any other error is a bug."""
    try:
        attempt()
    except FormatError as error:
        return str(error)
    return default


def test_grey_of_sixteen_bits_is_grey_of_its_upper_eight() -> None:
    seen = decode(saved(grey16([[0, 255, 256, 117 * 257, 200 << 8, 65535]])), "here")
    assert (seen.mode, list(np.asarray(seen)[0, :, 0])) == ("RGB", [0, 0, 1, 117, 200, 255])
    assert np.array_equal(np.asarray(seen)[..., 0], np.asarray(seen)[..., 2])


def test_sixteen_bits_give_what_the_same_picture_of_eight_gives() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert encode_anew(saved(grey16(values.astype(np.uint16) * 257)), "a") == encode_anew(saved(Image.fromarray(values)), "b")


def test_the_grey_of_sixteen_bits_that_is_transparent_is_white() -> None:
    seen = decode(saved(grey16([[1000, 20000]]), transparency=1000), "here")
    assert list(np.asarray(seen)[0, :, 0]) == [255, 20000 >> 8]


def test_colour_of_sixteen_bits_is_colour_of_its_upper_eight() -> None:
    rows = b"\0" + struct.pack(">3H", 0x1234, 0xFFFF, 0x80FF)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    assert decode(b"\x89PNG\r\n\x1a\n" + b"".join(parts), "here").getpixel((0, 0)) == (0x12, 0xFF, 0x80)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (2, (3, 0)), (3, (3, 1)), (4, (0, 1)), (6, (1, 0)), (8, (0, 3))])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_stand_as_their_exif_tag_turns_them(kind: str, orientation: int, corner: tuple[int, int]) -> None:
    """A red pixel in the upper left corner of a picture 4 wide and 2 high, as stored, is in that corner as shown."""
    picture, exif = Image.new("RGB", (64, 32), "blue"), Image.Exif()
    picture.paste((255, 0, 0), (0, 0, 16, 16))
    exif[0x0112] = orientation
    seen = decode(saved(picture, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})), "here")
    assert seen.size == ((32, 64) if orientation in (6, 8) else (64, 32))
    pixel = seen.getpixel((corner[0] * 16 + 8, corner[1] * 16 + 8))
    assert isinstance(pixel, tuple)
    red, _, blue = pixel
    assert red > 200 > 100 > blue


def test_a_mask_that_is_transparent_shows_white_there() -> None:
    layered = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    layered.putpixel((1, 0), (0, 0, 0, 0))
    assert list(np.asarray(decode(saved(layered), "here").convert("L"))[0]) == [0, 255]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"GIF89a..", "it begins with b'GIF89a..'"), (b"\x89PNG\r\n\x1a\n", "it begins with")],
)
def test_a_damaged_file_is_named_and_no_address_in_memory(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    said = refusal(lambda: read_picture(tmp_path / "a.png", "pairs.jsonl, line 3, field chosen"), default="fine")
    assert said.startswith("pairs.jsonl, line 3, field chosen: not a whole PNG, JPEG or WebP picture (")
    assert reason in said
    assert "0x" not in said


def test_a_picture_cut_short_is_refused() -> None:
    whole = saved(Image.effect_noise((40, 40), 60))
    for kind, content in (("png", whole), ("jpeg", saved(Image.effect_noise((40, 40), 60), "JPEG"))):
        assert refusal(lambda content=content: decode(content[: len(content) // 2], "a"), default="fine").startswith("a: not a whole"), kind


def test_encoding_anew_keeps_pixels_and_drops_everything_else() -> None:
    buffer = io.BytesIO()
    original = Image.effect_noise((9, 5), 60).convert("RGB")
    original.save(buffer, format="PNG", pnginfo=_text_chunk())
    clean = encode_anew(buffer.getvalue(), "here")
    with Image.open(io.BytesIO(clean)) as back:
        assert back.tobytes() == original.tobytes()
        assert back.info == {}
    assert b"secret" in buffer.getvalue()
    assert b"secret" not in clean
    assert encode_anew(clean, "here") == clean


def _text_chunk() -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "secret")
    return info


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "CMYK", "I;16"])
def test_pictures_of_all_modes_become_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (3, 3)).save(buffer, format="JPEG" if mode == "CMYK" else "PNG")
    with Image.open(io.BytesIO(encode_anew(buffer.getvalue(), "here"))) as back:
        assert (back.mode, back.size) == ("RGB", (3, 3))


def test_turned_photograph_stands_upright() -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(buffer, format="JPEG", exif=exif)
    with Image.open(io.BytesIO(encode_anew(buffer.getvalue(), "here"))) as back:
        assert back.size == (2, 4)


@pytest.mark.parametrize("side", [7100, 9_000, 20_000, 100_000])
def test_small_file_that_claims_to_be_huge_is_refused(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png(1)[33:]
    assert side * side > LARGEST
    with pytest.raises(FormatError, match="pixels"):
        encode_anew(bomb, "here")


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 80), junk=st.binary(max_size=30))
def test_damaged_pictures_are_refused_plainly(cut: int, junk: bytes) -> None:
    assert refusal(lambda: encode_anew(png(3)[:cut] + junk, "here"), default="here: fine").startswith("here: ")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_only_the_usual_three_kinds_are_read(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, format=kind)
    with pytest.raises(FormatError, match="not a whole PNG, JPEG or WebP"):
        encode_anew(buffer.getvalue(), "here")
