"""Imported pictures as latents: cut, scaled, encoded once, and held against what was imported."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from d3po.artifacts.files import sha256
from d3po.errors import CorruptFileError, ModelError
from d3po.run.sample import encoding
from d3po.run.sample.encoding import encoded
from d3po.run.session import Session
from d3po.store.pictures import NewPicture
from tests.unit.run.conftest import SessionWith
from tests.unit.run.toy import policy_of

IMPORTED = {"feedback.source": "imported", "objective.name": "diffusion_dpo"}


def bring(session: Session, pictures: dict[str, list[Image.Image]]) -> list[Path]:
    """Import the pictures of each prompt; their files."""
    run, paths = session.run, []
    for prompt, images in pictures.items():
        (id,) = run.store.pictures.add_prompts([prompt])
        mine = [run.folder.path / "images" / f"{prompt}-{i}.png" for i in range(len(images))]
        for path, image in zip(mine, images, strict=True):
            path.parent.mkdir(exist_ok=True)
            image.save(path)
        new = [NewPicture(prompt=id, number=i, path=run.folder.relative(path), sha256=sha256(path)) for i, path in enumerate(mine)]
        run.store.pictures.add_pictures(series="mine", origin="imported", model="", policy="", seed=None, pictures=new)
        paths += mine
    return paths


def flat(value: int, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new("RGB", size, (value,) * 3)


def latents(session: Session) -> list[torch.Tensor]:
    """Of all that was imported, in order."""
    pictures = session.run.store.pictures.imported()
    where = encoded(session, pictures)
    return [where[picture.id][0].clean()[where[picture.id][1]].clone() for picture in pictures]


def kept(session: Session) -> list[Path]:
    return sorted((session.run.folder.path / "encoded").glob("*.safetensors"))


def test_each_picture_has_the_latent_of_its_pixels(session_with: SessionWith) -> None:
    session = session_with(IMPORTED, sampled=False)
    bring(session, {"a fox": [flat(0), flat(51)], "an owl": [flat(255)]})
    assert [latent.unique().tolist() for latent in latents(session)] == [[-1.0], pytest.approx([-0.6]), [1.0]]


def test_a_picture_of_another_shape_is_cut_to_its_middle_and_scaled(session_with: SessionWith) -> None:
    """A wide one, black left and right and white in the middle, twice as high as the model's."""
    wide = flat(0, (16, 8))
    wide.paste((255, 255, 255), (4, 0, 12, 8))
    session = session_with(IMPORTED, sampled=False)
    bring(session, {"a fox": [wide.convert("L")]})
    (latent,) = latents(session)
    assert latent.shape == (3, 4, 4)
    assert (latent > 0.8).all(), "but for what scaling smears over the edge"


def test_pictures_are_encoded_once_and_again_where_the_kept_file_has_changed(session_with: SessionWith) -> None:
    session = session_with(IMPORTED, sampled=False)
    bring(session, {"a fox": [flat(0), flat(51)]})
    before, calls = latents(session), policy_of(session).encoded
    (path,) = kept(session)
    content = path.read_bytes()
    latents(session)
    assert calls == [2]
    path.write_bytes(content[:-1] + b"?")
    assert all(torch.equal(now, then) for now, then in zip(latents(session), before, strict=True))
    assert (calls, path.read_bytes()) == ([2, 2], content)


def test_more_pictures_are_encoded_beside_those_that_were(session_with: SessionWith, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fit into a file and into a call, but no prompt is divided between files."""
    monkeypatch.setattr(encoding, "PICTURES_PER_SHARD", 2)
    monkeypatch.setattr(encoding, "PICTURES_PER_CALL", 2)
    session = session_with(IMPORTED, sampled=False)
    bring(session, {"a fox": [flat(0), flat(51), flat(102)]})
    latents(session)
    bring(session, {"an owl": [flat(204)]})
    assert [latent.unique().tolist() for latent in latents(session)] == [pytest.approx([2 * v / 255 - 1]) for v in (0, 51, 102, 204)]
    assert policy_of(session).encoded == [2, 1, 1]
    assert len(kept(session)) == 2


def test_pictures_of_a_prompt_take_the_nearest_of_the_runs_sizes(session_with: SessionWith) -> None:
    session = session_with(IMPORTED | {"sampling.buckets": "[[8, 4], [4, 8]]"}, sampled=False)
    paths = bring(session, {"a fox": [flat(0, (20, 10))], "an owl": [flat(0, (10, 30))]})
    assert [tuple(latent.shape) for latent in latents(session)] == [(3, 4, 8), (3, 8, 4)]
    paths[0].write_bytes(b"no picture")
    with pytest.raises(CorruptFileError, match=r"picture .*a fox-0\.png cannot be read .*import it again with `d3po votes import`"):
        latents(session)


@pytest.mark.parametrize(("change", "words"), [("gone", "is gone"), ("other", "is not what was written")])
def test_a_picture_that_is_not_what_was_imported_is_refused(session_with: SessionWith, change: str, words: str) -> None:
    session = session_with(IMPORTED, sampled=False)
    (path,) = bring(session, {"a fox": [flat(0)]})
    path.unlink() if change == "gone" else flat(1).save(path)
    with pytest.raises(CorruptFileError, match=rf"a fox-0\.png {words}.*or import it again with `d3po votes import`"):
        latents(session)
    assert kept(session) == []


def test_an_encoder_that_gives_no_numbers_is_named(session_with: SessionWith, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_with(IMPORTED, sampled=False)
    bring(session, {"a fox": [flat(0)]})
    monkeypatch.setattr(policy_of(session), "encode", lambda pictures: pictures * float("nan"))
    with pytest.raises(
        ModelError, match="the encoder of pictures of toy gives values that are infinite or not a number, for 1 of 1 inputs"
    ):
        latents(session)
    assert kept(session) == []
