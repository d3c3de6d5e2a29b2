"""What leaves a run: weights, pictures, a model card, a repository on the hub."""
