"""The training phase: votes become labelled rows, rows become updates."""
