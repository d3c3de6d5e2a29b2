"""By how much did it move: win rate with its interval, diversity, prompt-following, artefacts, and one report page."""
