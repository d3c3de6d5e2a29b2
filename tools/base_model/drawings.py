"""Captioned drawings: emoji of several vendors, composed over plain backgrounds.

A caption is true by construction: it names the subject that was drawn, sometimes the vendor's style and sometimes the background's colour.
The drawings come from npm packages that the `fetch` step installs; they are not kept in the repository.
"""

import io
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
import torch
import torch.nn.functional as F
from PIL import Image
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

# caption word -> (icon name in the iconify sets, Unicode code points of the emoji)
SUBJECTS = {
    "panda": ("panda", "1f43c"),
    "frog": ("frog", "1f438"),
    "fox": ("fox", "1f98a"),
    "penguin": ("penguin", "1f427"),
    "pig": ("pig-face", "1f437"),
    "koala": ("koala", "1f428"),
    "ladybug": ("lady-beetle", "1f41e"),
    "butterfly": ("butterfly", "1f98b"),
    "whale": ("spouting-whale", "1f433"),
    "apple": ("red-apple", "1f34e"),
    "banana": ("banana", "1f34c"),
    "strawberry": ("strawberry", "1f353"),
    "watermelon": ("watermelon", "1f349"),
    "carrot": ("carrot", "1f955"),
    "mushroom": ("mushroom", "1f344"),
    "cactus": ("cactus", "1f335"),
    "sunflower": ("sunflower", "1f33b"),
    "hamburger": ("hamburger", "1f354"),
    "donut": ("doughnut", "1f369"),
    "car": ("automobile", "1f697"),
    "star": ("star", "2b50"),
    "heart": ("red-heart", "2764-fe0f"),
    "cool face": ("smiling-face-with-sunglasses", "1f60e"),
    "tree": ("evergreen-tree", "1f332"),
}

BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (20, 20, 24),
    "red": (214, 48, 49),
    "orange": (245, 150, 40),
    "yellow": (250, 225, 90),
    "green": (90, 170, 95),
    "blue": (70, 135, 225),
    "purple": (145, 90, 205),
    "pink": (250, 165, 200),
    "gray": (140, 142, 148),
}

RENDER_SIZE = 128
IMAGE_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Composed training images with the indices their captions are made of."""

    images: Tensor  # (B, 3, 32, 32) in [-1, 1]
    subjects: Tensor  # (B,) index into SUBJECTS
    styles: Tensor  # (B,) index into STYLES
    backgrounds: Tensor  # (B,) index into BACKGROUNDS


def fetch(directory: Path) -> None:
    """Install the drawings' npm packages under `directory` (about 120 MB, once)."""
    directory.mkdir(parents=True, exist_ok=True)
    if all((directory / "node_modules" / package).exists() for package in NPM_PACKAGES):
        return
    specs = [f"{name}@{version}" for name, version in NPM_PACKAGES.items()]
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-save", "--prefix", str(directory), *specs], check=True)


def load_drawings(directory: Path) -> Tensor:
    """All drawings, premultiplied RGBA in [0, 1], shape (subjects, styles, 4, 128, 128)."""
    modules = directory / "node_modules"
    icons = {p: json.loads((modules / p / "icons.json").read_text()) for p in STYLES.values() if p.startswith("@iconify")}
    rows = [
        torch.stack([_premultiplied(_picture(modules, icons, package, *names)) for package in STYLES.values()])
        for names in SUBJECTS.values()
    ]
    return torch.stack(rows)


def compose(drawings: Tensor, subjects: Tensor, styles: Tensor, generator: torch.Generator, *, strength: float = 1.0) -> Batch:
    """Place drawings over plain backgrounds with a random pose; `strength` scales rotation, shift, zoom and colour jitter.

    drawings (S, V, 4, 128, 128); subjects and styles (B,) choose one of them each.
    """
    count = len(subjects)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle = uniform(-0.12, 0.12) * strength
    zoom = 1.0 + uniform(0.02, 0.18) * strength
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, -1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift_x, shift_y = uniform(-0.08, 0.08) * strength, uniform(-0.08, 0.08) * strength
    pose = torch.stack([torch.stack([cos * flip, -sin, shift_x], dim=1), torch.stack([sin * flip, cos, shift_y], dim=1)], dim=1)
    grid = F.affine_grid(pose, [count, 4, RENDER_SIZE, RENDER_SIZE], align_corners=False)
    posed = F.grid_sample(drawings[subjects, styles], grid, align_corners=False)
    small = F.avg_pool2d(posed, RENDER_SIZE // IMAGE_SIZE)
    backgrounds = torch.randint(len(BACKGROUNDS), (count,), generator=generator)
    palette = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32) / 255
    jitter = 0.04 * strength * torch.randn(count, 3, generator=generator)
    colour = (palette[backgrounds] + jitter).clamp(0, 1)[:, :, None, None]
    images = small[:, :3] + (1 - small[:, 3:]) * colour
    return Batch(images=images.clamp(0, 1) * 2 - 1, subjects=subjects, styles=styles, backgrounds=backgrounds)


def caption(subject: int, style: int | None, background: int | None) -> str:
    """The caption of a drawing; `None` leaves the style or the background unsaid."""
    words = [list(STYLES)[style]] if style is not None else []
    words.append(list(SUBJECTS)[subject])
    if background is not None:
        words += ["on", _article(list(BACKGROUNDS)[background]), list(BACKGROUNDS)[background], "background"]
    return " ".join([_article(words[0]), *words])


def vocabulary() -> list[str]:
    """Every word a caption can hold."""
    words = {"a", "an", "on", "background", *STYLES, *BACKGROUNDS}
    words.update(word for subject in SUBJECTS for word in subject.split())
    return sorted(words)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _picture(modules: Path, icons: dict[str, dict], package: str, icon: str, code_points: str) -> Image.Image:
    if package not in icons:
        image = Image.open(modules / package / "assets" / f"{code_points}.webp").convert("RGBA")
        return image.resize((RENDER_SIZE, RENDER_SIZE), Image.Resampling.LANCZOS)
    icon_set = icons[package]
    icon = icon_set.get("aliases", {}).get(icon, {}).get("parent", icon)
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
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
    return torch.cat([pixels[:3] * pixels[3:], pixels[3:]])
