"""The sampling phase: a round's rollouts, and pictures from fixed noise."""
