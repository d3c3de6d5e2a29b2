"""Preference objectives: pure functions from log-probs to per-pair losses."""
