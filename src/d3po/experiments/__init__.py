"""Compares objectives: a grid of ordinary runs under equal budgets, and their results. See docs/comparing.md."""
