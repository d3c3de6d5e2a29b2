"""The models inside this package: small enough for a CPU, and loaded without a network."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

DEFAULT = "emoji"
FORMER = "emoji-32"
"""The model of runs that name `emoji` and do not record its content: they were made before there was another."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedModel:
    """One model inside the package: a diffusers pipeline, prompts for it, and classifiers that read its pictures."""

    folder: str
    """Its folder's name within the package's assets."""
    pixels: int
    """Width and height of its pictures."""

    @property
    def directory(self) -> Path:
        """The pipeline's folder, in diffusers' layout."""
        return Path(str(files("d3po"))) / "assets" / self.folder

    @property
    def prompts(self) -> Path:
        """The file of prompts to train on."""
        return self.directory / "prompts.txt"

    @property
    def held_out(self) -> Path:
        """The file of prompts for evaluation only, about other subjects."""
        return self.directory / "held_out.txt"

    @property
    def subjects(self) -> Path:
        """The weights of the classifier of subjects."""
        return self.directory / "subjects.safetensors"

    @property
    def styles(self) -> Path:
        """The weights of the classifier of styles; `emoji-32` has none."""
        return self.directory / "styles.safetensors"


EMBEDDED = {DEFAULT: EmbeddedModel(folder="emoji-32", pixels=32), FORMER: EmbeddedModel(folder="emoji-32", pixels=32)}
"""The embedded models by the name that run.toml calls them."""


def for_pictures(width: int) -> EmbeddedModel:
    """The embedded model whose pictures are nearest in size to those of this width."""
    return min(EMBEDDED.values(), key=lambda model: abs(model.pixels - width))
