"""Measures how much a policy has changed: win rate with its interval, diversity, subject accuracy, artefacts; and renders the report page."""
