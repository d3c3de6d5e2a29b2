"""Learned scorers: each module makes a reward `f(image, prompt) -> float` from published weights.

They are found by name in `d3po.scorers.catalogue`, and imported only when a run asks for them. Pictures are scored one at a time, which costs little
compared with the many forward passes that sample a picture.
"""
