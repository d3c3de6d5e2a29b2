"""Exports the result of a run: weights, pictures, a model card, a repository on the hub."""
