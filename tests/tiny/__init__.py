"""Tiny, randomly initialised pipelines of diffusers' real classes, saved to disk in a blink."""

from tests.tiny.pipelines import TINY, save_tiny, save_tiny_pipeline

__all__ = ["TINY", "save_tiny", "save_tiny_pipeline"]
