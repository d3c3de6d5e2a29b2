"""What can be measured of a picture. A scorer is `f(image: PIL.Image, prompt: str) -> float`, larger is better; learned ones load when asked for."""
