"""Measured quantities that can stand in for a judge. A reward is `f(image: PIL.Image, prompt: str) -> float`, larger is better."""
