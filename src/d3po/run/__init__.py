"""A run is a folder: its state, its phases, and the round loop. To resume, run the same command again."""
