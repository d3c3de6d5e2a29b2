"""The sampling phase: a round's rollouts, and pictures on fixed noise."""
