"""BRISQUE (Mittal et al. 2012): the distance of a picture's statistics from those of undistorted photographs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from brisque import BRISQUE  # pyright: ignore[reportMissingImports]
from PIL import Image


class _Brisque(BRISQUE):  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass] - if it is not installed
    """BRISQUE for NumPy 2.4 and later, which does not accept the package's features (arrays of one number each) as numbers."""

    def scale_features(self, features: Any) -> Any:
        return super().scale_features([np.asarray(feature).item() for feature in features])


def brisque(argument: str = "") -> Callable[[Image.Image, str], float]:
    """Make the reward that is minus the BRISQUE score, about -100 to 0. A picture of one colour has no statistics and scores `nan`, which is refused."""
    scorer = _Brisque(url=False)

    def score(image: Image.Image, prompt: str) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):
            return -float(scorer.score(np.asarray(image.convert("RGB"))))

    return score
