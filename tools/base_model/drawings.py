"""Captioned drawings: emoji of several vendors, posed over plain backgrounds.

A caption is true by construction: it names the subject that was drawn, and sometimes its view, the vendor's style, its size, tilt and place, and the
background's colour. The drawings come from npm packages that the `fetch` step installs; they are not kept in the repository.
"""

import io
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

NPM_PACKAGES = {
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@lobehub/fluent-emoji-3d": "1.1.0",
}

STYLES = {
    "soft": "@iconify-json/noto",
    "retro": "@iconify-json/noto-v1",
    "simple": "@iconify-json/twemoji",
    "cartoon": "@iconify-json/emojione",
    "glossy": "@iconify-json/fluent-emoji",
    "flat": "@iconify-json/fluent-emoji-flat",
    "3d": "@lobehub/fluent-emoji-3d",
}

# subject -> view, said after the subject ("" is never said) -> icon name in the iconify sets, Unicode code points of the emoji
SUBJECTS: dict[str, dict[str, tuple[str, str]]] = {
    "panda": {"": ("panda", "1f43c")},
    "frog": {"": ("frog", "1f438")},
    "fox": {"": ("fox", "1f98a")},
    "penguin": {"": ("penguin", "1f427")},
    "pig": {"": ("pig", "1f416"), "face": ("pig-face", "1f437")},
    "koala": {"": ("koala", "1f428")},
    "ladybug": {"": ("lady-beetle", "1f41e")},
    "butterfly": {"": ("butterfly", "1f98b")},
    "whale": {"": ("whale", "1f40b"), "spouting": ("spouting-whale", "1f433")},
    "apple": {"": ("red-apple", "1f34e")},
    "banana": {"": ("banana", "1f34c")},
    "strawberry": {"": ("strawberry", "1f353")},
    "watermelon": {"": ("watermelon", "1f349")},
    "carrot": {"": ("carrot", "1f955")},
    "mushroom": {"": ("mushroom", "1f344")},
    "cactus": {"": ("cactus", "1f335")},
    "sunflower": {"": ("sunflower", "1f33b")},
    "hamburger": {"": ("hamburger", "1f354")},
    "donut": {"": ("doughnut", "1f369")},
    "car": {"": ("automobile", "1f697"), "front": ("oncoming-automobile", "1f698")},
    "star": {"": ("star", "2b50")},
    "heart": {"": ("red-heart", "2764-fe0f")},
    "cool face": {"": ("smiling-face-with-sunglasses", "1f60e")},
    "tree": {"": ("evergreen-tree", "1f332")},
    "cat": {"": ("cat", "1f408"), "face": ("cat-face", "1f431")},
    "dog": {"": ("dog", "1f415"), "face": ("dog-face", "1f436")},
    "rabbit": {"": ("rabbit", "1f407"), "face": ("rabbit-face", "1f430")},
    "tiger": {"": ("tiger", "1f405"), "face": ("tiger-face", "1f42f")},
    "cow": {"": ("cow", "1f404"), "face": ("cow-face", "1f42e")},
    "horse": {"": ("horse", "1f40e"), "face": ("horse-face", "1f434")},
    "chick": {"": ("baby-chick", "1f424"), "front": ("front-facing-baby-chick", "1f425")},
    "owl": {"": ("owl", "1f989")},
    "turtle": {"": ("turtle", "1f422")},
    "fish": {"": ("tropical-fish", "1f420")},
    "octopus": {"": ("octopus", "1f419")},
    "snail": {"": ("snail", "1f40c")},
    "bee": {"": ("honeybee", "1f41d")},
    "elephant": {"": ("elephant", "1f418")},
    "pear": {"": ("pear", "1f350")},
    "cherries": {"": ("cherries", "1f352")},
    "pizza": {"": ("pizza", "1f355")},
    "ice cream": {"": ("soft-ice-cream", "1f366")},
    "house": {"": ("house", "1f3e0")},
    "rocket": {"": ("rocket", "1f680")},
    "sailboat": {"": ("sailboat", "26f5")},
    "umbrella": {"": ("umbrella", "2602-fe0f")},
    "crown": {"": ("crown", "1f451")},
    "guitar": {"": ("guitar", "1f3b8")},
    "snowman": {"": ("snowman-without-snow", "26c4")},
    "moon": {"": ("crescent-moon", "1f319")},
}
VIEWS = ("", "face", "front", "spouting")

BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (20, 20, 24),
    "red": (214, 48, 49),
    "orange": (245, 150, 40),
    "yellow": (250, 225, 90),
    "green": (90, 170, 95),
    "blue": (70, 135, 225),
    "purple": (140, 80, 190),
    "pink": (250, 150, 185),
    "gray": (150, 150, 155),
}

# word -> range of the share of the drawing's own square that fills the picture; "" is never said
SIZES = {"": (0.74, 0.86), "small": (0.48, 0.58), "large": (0.94, 1.0)}
# words -> range of the turn in radians, counter-clockwise; "" is never said
TILTS = {"": (-0.08, 0.08), "tilted left": (0.28, 0.48), "tilted right": (-0.48, -0.28)}
# words -> direction, x to the right and y down, of a shift that uses most of the room the drawing leaves; "" is never said
PLACES = {"": (0.0, 0.0), "at the top": (0.0, -1.0), "at the bottom": (0.0, 1.0), "on the left": (-1.0, 0.0), "on the right": (1.0, 0.0)}
LARGE = 2
"""Drawings of this size fill the picture and are never shifted."""

RENDER_SIZE, IMAGE_SIZE = 128, 64


@dataclass(frozen=True, kw_only=True)
class Posing:
    """How drawings are posed at random."""

    sizes: tuple[float, ...]
    """How often each of `SIZES` is drawn; likewise of `TILTS` and `PLACES`."""
    tilts: tuple[float, ...]
    places: tuple[float, ...]
    jitter: float = 1.0
    """Share of the tables' ranges, around their middle, that is used."""
    turns: float = 1.0
    """What the angle is multiplied by."""
    recoloured: float = 1.0
    """Strength of the background's random change of colour."""
    mirrored: bool = True
    """Whether half the drawings are mirrored."""


FREE = Posing(sizes=(0.6, 0.2, 0.2), tilts=(0.7, 0.15, 0.15), places=(0.6, 0.1, 0.1, 0.1, 0.1))
"""For those that learn to see: the autoencoder and the classifiers."""
GENTLE = Posing(
    sizes=(0.8, 0.1, 0.1), tilts=(0.84, 0.08, 0.08), places=(0.76, 0.06, 0.06, 0.06, 0.06), jitter=0.3, recoloured=0.5, mirrored=False
)
"""For those that learn to draw: half the pictures are posed plainly, and what no caption says varies little."""
HELD_OUT_EVERY = 16
"""Of the other things, whose drawings only the autoencoder sees, every sixteenth is held out for measuring it."""


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """Premultiplied RGBA pictures of 128x128, 0 to 255, and what each shows."""

    pixels: Tensor  # (D, 4, 128, 128) uint8
    subjects: Tensor  # (D,) index into SUBJECTS
    styles: Tensor  # (D,) index into STYLES
    views: Tensor  # (D,) index into VIEWS

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices of drawings: subjects and styles drawn evenly, then one of the views that exist."""
        subjects = torch.randint(len(SUBJECTS), (count,), generator=generator)
        styles = torch.randint(len(STYLES), (count,), generator=generator)
        return self.of(subjects, styles, generator)

    def of(self, subjects: Tensor, styles: Tensor, generator: torch.Generator) -> Tensor:
        """A random view's drawing for each subject (B,) and style (B,)."""
        fits = (self.subjects == subjects[:, None]) & (self.styles == styles[:, None])
        return torch.multinomial(fits.float(), 1, generator=generator)[:, 0]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Posed pictures and the parts of their captions."""

    images: Tensor  # (B, 3, 64, 64) in [-1, 1]
    parts: Tensor  # (B, 7): subject, view, style, background, size, tilt, place; each an index into the table of that name


def fetch(directory: Path) -> None:
    """Install the drawings' npm packages under `directory` (about 120 MB, once)."""
    directory.mkdir(parents=True, exist_ok=True)
    if all((directory / "node_modules" / package).exists() for package in NPM_PACKAGES):
        return
    specs = [f"{name}@{version}" for name, version in NPM_PACKAGES.items()]
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-save", "--prefix", str(directory), *specs], check=True)


def render(directory: Path) -> None:
    """Draw all that training needs, once: the captioned subjects, and other things for the autoencoder alone."""
    if (directory / "drawings.safetensors").exists():
        return
    icons = _icon_sets(directory)
    rows = [
        (_render(directory, icons, package, *names), subject, style, VIEWS.index(view))
        for subject, views in enumerate(SUBJECTS.values())
        for view, names in views.items()
        for style, package in enumerate(STYLES.values())
    ]
    tensors = {"pixels": torch.stack([row[0] for row in rows])}
    tensors |= {name: torch.tensor([row[i] for row in rows]) for i, name in enumerate(("subjects", "styles", "views"), start=1)}
    names = [name for number, name in enumerate(_others(icons)) if number % HELD_OUT_EVERY]
    kept_back = [name for number, name in enumerate(_others(icons)) if number % HELD_OUT_EVERY == 0]
    for key, chosen in (("others", names), ("held_out", kept_back)):
        tensors[key] = torch.stack([_render(directory, icons, package, name, "") for name in chosen for package in icons])
    save_file(tensors, directory / "drawings.safetensors")


def load_drawings(directory: Path) -> Drawings:
    """The drawings of the captioned subjects that `render` made."""
    tensors = load_file(directory / "drawings.safetensors")
    return Drawings(**{name: tensors[name] for name in ("pixels", "subjects", "styles", "views")})


def load_others(directory: Path, *, held_out: bool = False) -> Tensor:
    """Drawings (D, 4, 128, 128) of other things, which no caption names; or those of the things that training never sees."""
    return load_file(directory / "drawings.safetensors")["held_out" if held_out else "others"]


def compose(pixels: Tensor, generator: torch.Generator, posing: Posing) -> tuple[Tensor, Tensor]:
    """Place drawings (B, 4, 128, 128) over plain backgrounds, in a random pose.

    Returns pictures (B, 3, 64, 64) in [-1, 1] and the indices (B, 4) of background, size, tilt and place.
    """
    count = len(pixels)
    size, tilt, place = (_drawn(shares, count, generator) for shares in (posing.sizes, posing.tilts, posing.places))
    place = torch.where(size == LARGE, torch.zeros_like(place), place)
    share = _within(list(SIZES.values()), size, posing.jitter, generator)
    angle = posing.turns * _within(list(TILTS.values()), tilt, posing.jitter, generator)
    reach = torch.tensor(list(PLACES.values()))[place] * _within([(0.7, 1.0)], torch.zeros_like(place), posing.jitter, generator)[:, None]
    shift = (1 - share)[:, None] * (reach + 0.25 * posing.jitter * (2 * torch.rand(count, 2, generator=generator) - 1))
    mirrored = (torch.rand(count, generator=generator) >= 0.5) & torch.tensor(posing.mirrored)
    flip = torch.where(mirrored, -1.0, 1.0)
    backgrounds = torch.randint(len(BACKGROUNDS), (count,), generator=generator)
    palette = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32) / 255
    colour = (palette[backgrounds] + 0.03 * posing.recoloured * torch.randn(count, 3, generator=generator)).clamp(0, 1)
    small = posed(pixels, share=share, angle=angle, shift=shift, flip=flip)
    images = small[:, :3] + (1 - small[:, 3:]) * colour.to(small)[:, :, None, None]
    return images.clamp(0, 1) * 2 - 1, torch.stack([backgrounds, size, tilt, place], dim=1)


def random_batch(drawings: Drawings, count: int, generator: torch.Generator) -> Batch:
    """Captioned pictures, their parts drawn at random."""
    chosen = drawings.random(count, generator)
    images, pose = compose(drawings.pixels[chosen], generator, GENTLE)
    shown = torch.stack([drawings.subjects[chosen], drawings.views[chosen], drawings.styles[chosen]], dim=1)
    return Batch(images=images, parts=torch.cat([shown, pose], dim=1))


def caption(subject: int, view: int, style: int | None, background: int | None, size: int, tilt: int, place: int) -> str:
    """The caption of a picture. `None` leaves out the style or the background, 0 leaves out the view, size, tilt or place."""
    words = [list(SIZES)[size]] if size else []
    words += [list(STYLES)[style]] if style is not None else []
    words += [list(SUBJECTS)[subject], VIEWS[view], list(TILTS)[tilt], list(PLACES)[place]]
    if background is not None:
        colour = list(BACKGROUNDS)[background]
        words += ["on", _article(colour), colour, "background"]
    words = [word for word in words if word]
    return " ".join([_article(words[0]), *words])


def vocabulary() -> list[str]:
    """All words that can occur in a caption."""
    said: list[str] = ["a", "an", "on", "background", *VIEWS]
    tables: list[Mapping[str, Any]] = [SUBJECTS, STYLES, BACKGROUNDS, SIZES, TILTS, PLACES]
    said += [words for table in tables for words in table]
    return sorted({word for words in said for word in words.split()})


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def posed(pixels: Tensor, *, share: Tensor, angle: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Drawings scaled, turned counter-clockwise, moved and mirrored, at 64x64; shift (B, 2) in units of half a picture."""
    cos, sin = torch.cos(angle) / share, torch.sin(angle) / share
    x, y = shift[:, 0], shift[:, 1]
    rows = [[cos * flip, -sin * flip, (sin * y - cos * x) * flip], [sin, cos, -(sin * x + cos * y)]]
    pose = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1).to(pixels.device)
    grid = F.affine_grid(pose, [len(pixels), 4, RENDER_SIZE, RENDER_SIZE], align_corners=False)
    return F.avg_pool2d(F.grid_sample(pixels.float() / 255, grid, align_corners=False), RENDER_SIZE // IMAGE_SIZE)


def _drawn(shares: tuple[float, ...], count: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)


def _within(ranges: list[tuple[float, float]], chosen: Tensor, jitter: float, generator: torch.Generator) -> Tensor:
    """A random number of each chosen range, from its middle `jitter` parts of it."""
    low, high = torch.tensor(ranges)[chosen].unbind(dim=1)
    return (low + high) / 2 + jitter * (high - low) * (torch.rand(len(chosen), generator=generator) - 0.5)


def _icon_sets(directory: Path) -> dict[str, dict[str, Any]]:
    modules = directory / "node_modules"
    return {p: json.loads((modules / p / "icons.json").read_text()) for p in STYLES.values() if p.startswith("@iconify")}


def _others(icons: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Icons that all sets have, but for the captioned subjects', and for people in several skin colours, which are many and alike."""
    common = set[str].intersection(*({*icon_set["icons"], *icon_set.get("aliases", {})} for icon_set in icons.values()))
    captioned = {icon for views in SUBJECTS.values() for icon, _ in views.values()}
    yield from sorted(name for name in common - captioned if "skin" not in name and not name.startswith("flag"))


def _render(directory: Path, icons: dict[str, dict[str, Any]], package: str, icon: str, code_points: str) -> Tensor:
    return _premultiplied(_picture(directory / "node_modules", icons, package, icon, code_points))


def _picture(modules: Path, icons: dict[str, dict[str, Any]], package: str, icon: str, code_points: str) -> Image.Image:
    if package not in icons:
        image = Image.open(modules / package / "assets" / f"{code_points}.webp").convert("RGBA")
        return image.resize((RENDER_SIZE, RENDER_SIZE), Image.Resampling.LANCZOS)
    icon_set = icons[package]
    while icon in icon_set.get("aliases", {}):
        icon = icon_set["aliases"][icon]["parent"]
    entry = icon_set["icons"][icon]
    width, height = entry.get("width", icon_set["width"]), entry.get("height", icon_set["height"])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{entry.get("left", 0)} {entry.get("top", 0)} {width} {height}" '
        f'width="{RENDER_SIZE}" height="{RENDER_SIZE}">{entry["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=RENDER_SIZE, height=RENDER_SIZE))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _premultiplied(image: Image.Image) -> Tensor:
    """(4, 128, 128) uint8, colours multiplied by alpha."""
    pixels = np.asarray(image, dtype=np.float32)
    pixels = np.concatenate([pixels[..., :3] * pixels[..., 3:] / 255, pixels[..., 3:]], axis=-1)
    return torch.from_numpy(pixels.round().astype(np.uint8)).permute(2, 0, 1).contiguous()
