"""A run: its folder, its phases, and the loop over rounds. To resume a run, run the same command again."""
