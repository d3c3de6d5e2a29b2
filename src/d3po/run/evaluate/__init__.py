"""The evaluation phase: win rate on held-out prompts, the report."""
