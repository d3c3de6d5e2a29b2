"""Comparing objectives: a grid of ordinary runs under equal budgets, and what came of them. See docs/comparing.md."""
