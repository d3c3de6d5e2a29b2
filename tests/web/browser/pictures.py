"""Small landscapes, drawn by identity: the same name is the same picture."""

import hashlib
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

Colour = tuple[int, ...]
SKIES = [
    ((252, 204, 144), (88, 96, 160)),
    ((250, 232, 214), (112, 166, 200)),
    ((244, 176, 152), (58, 52, 98)),
    ((226, 236, 232), (92, 142, 148)),
]


def paint(path: Path, *, size: int, name: str, layers: int = 4) -> str:
    """Draw a landscape of some layers of hills into a file; returns the SHA-256 of the file."""
    chance = random.Random(name)
    low, high = chance.choice(SKIES)
    picture = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(picture)
    for y in range(size):
        draw.line(((0, y), (size, y)), fill=_mix(high, low, y / size))
    _sun(draw, size, chance)
    for layer in range(layers):
        _hills(draw, size, chance, depth=layer / 3, far=low)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sun(draw: ImageDraw.ImageDraw, size: int, chance: random.Random) -> None:
    x, y, r = chance.uniform(0.2, 0.8) * size, chance.uniform(0.2, 0.45) * size, chance.uniform(0.05, 0.11) * size
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 246, 224))


def _hills(draw: ImageDraw.ImageDraw, size: int, chance: random.Random, *, depth: float, far: Colour) -> None:
    waves = [(chance.uniform(1, 3) * 2**k, chance.uniform(0, 6.3), 0.09 / 2**k) for k in range(5)]
    base = 0.5 + 0.32 * depth
    ridge = [
        (x, size * (base + sum(a * math.sin(f * x / size * 3 + p) for f, p, a in waves))) for x in range(0, size + 1, max(1, size // 128))
    ]
    draw.polygon([(0, size), *ridge, (size, size)], fill=_mix(far, (28, 48, 56), 0.25 + 0.7 * depth))


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
