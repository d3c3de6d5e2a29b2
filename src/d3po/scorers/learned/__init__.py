"""Learned scorers: each module turns somebody's published weights into a reward `f(image, prompt) -> float`.

They are found by name in `d3po.scorers.catalogue`, and imported only when a run asks for them. One picture is scored at a time, which
costs little beside the many network passes that made it.
"""
