"""Adapters: each turns one family of diffusion models into an `AbstractPolicy`."""
