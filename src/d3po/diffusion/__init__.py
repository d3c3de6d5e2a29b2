"""Noise schedules, Gaussian reverse steps with log-probs, and rollouts. Pure maths on tensors: no I/O, no diffusers.

Shapes: B images, T denoising steps, `*latent` the shape of one latent (C, H, W for pictures).
"""
