"""Confidence of MediaPipe's hand and body detectors. A weak measure of anatomy: they were trained on real people, and do not detect what is wrong."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image

from d3po.scorers.learned.weights import web_file

STORE = "https://storage.googleapis.com/mediapipe-models"
HANDS = f"{STORE}/hand_landmarker/hand_landmarker/float16/1/hand_landmarker.task"
POSE = f"{STORE}/pose_landmarker/pose_landmarker_full/float16/1/pose_landmarker_full.task"
MOST = 4
"""The most hands, or people, that are detected in a picture."""


def hands(file: str = "") -> Callable[[Image.Image, str], float]:
    """Make the reward that is the mean confidence of the detected hands, 0 to 1; 0 if there is none."""
    vision, options = _mediapipe(file or str(web_file(HANDS)))
    detector = vision.HandLandmarker.create_from_options(vision.HandLandmarkerOptions(num_hands=MOST, **options))
    return lambda image, prompt: hand_confidence(detector.detect(_picture(image)))


def pose(file: str = "") -> Callable[[Image.Image, str], float]:
    """Make the reward that is the mean visibility of the landmarks of the detected people, 0 to 1; 0 if there is nobody."""
    vision, options = _mediapipe(file or str(web_file(POSE)))
    detector = vision.PoseLandmarker.create_from_options(vision.PoseLandmarkerOptions(num_poses=MOST, **options))
    return lambda image, prompt: landmark_visibility(detector.detect(_picture(image)))


def hand_confidence(found: Any) -> float:
    """The mean handedness score over the hands of a HandLandmarkerResult: how certain it is whether each is a left or a right hand."""
    return _mean(categories[0].score for categories in found.handedness)


def landmark_visibility(found: Any) -> float:
    """The mean visibility over all landmarks of all people in a PoseLandmarkerResult."""
    return _mean(landmark.visibility for person in found.pose_landmarks for landmark in person)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known) if known else 0.0


def _mediapipe(file: str) -> tuple[Any, dict[str, Any]]:
    from mediapipe.tasks.python import BaseOptions, vision  # pyright: ignore[reportMissingImports]

    return vision, {"base_options": BaseOptions(model_asset_path=file)}


def _picture(image: Image.Image) -> Any:
    import mediapipe  # pyright: ignore[reportMissingImports]

    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image.convert("RGB")))
