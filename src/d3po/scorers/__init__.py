"""Scorers: rewards of a picture and its prompt, `f(image: PIL.Image, prompt: str) -> float`, larger is better. Learned scorers are loaded on demand."""
