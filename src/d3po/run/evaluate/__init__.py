"""The evaluation phase: win rate on held-out prompts, the blind test, the report."""
