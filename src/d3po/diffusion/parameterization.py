"""Parameterizations: what a discrete-time network predicts, which is the noise, the clean latent, or v.

A latent at noise level alpha_bar is x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) epsilon, so that x_t and any of the three give the other two.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class Parameterization(ABC):
    """The interface of parameterizations: conversion between the network's output and (x0, epsilon)."""

    needs_signal: bool = False
    """Whether the output contains nothing about x0 if alpha_bar is 0."""

    @abstractmethod
    def split(
        self, prediction: Float[Tensor, "*any"], x_t: Float[Tensor, "*any"], alpha_bar: Float[Tensor, "*broadcast"]
    ) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
        """The clean latent and the noise that a network output implies: (x0, epsilon)."""

    @abstractmethod
    def target(
        self, x0: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], alpha_bar: Float[Tensor, "*broadcast"]
    ) -> Float[Tensor, "*any"]:
        """The exact network output for a clean latent and its noise; `split` is the inverse."""


class Epsilon(Parameterization):
    """The network predicts the noise (Ho et al. 2020, arXiv 2006.11239, eq. 11)."""

    needs_signal = True

    def split(
        self, prediction: Float[Tensor, "*any"], x_t: Float[Tensor, "*any"], alpha_bar: Float[Tensor, "*broadcast"]
    ) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
        return (x_t - (1 - alpha_bar).sqrt() * prediction) / alpha_bar.sqrt(), prediction

    def target(
        self,
        x0: Float[Tensor, "*any"],  # noqa: ARG002
        noise: Float[Tensor, "*any"],
        alpha_bar: Float[Tensor, "*broadcast"],  # noqa: ARG002
    ) -> Float[Tensor, "*any"]:
        return noise


class CleanSample(Parameterization):
    """The network predicts the clean latent."""

    def split(
        self, prediction: Float[Tensor, "*any"], x_t: Float[Tensor, "*any"], alpha_bar: Float[Tensor, "*broadcast"]
    ) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
        return prediction, (x_t - alpha_bar.sqrt() * prediction) / (1 - alpha_bar).sqrt()

    def target(
        self,
        x0: Float[Tensor, "*any"],
        noise: Float[Tensor, "*any"],  # noqa: ARG002
        alpha_bar: Float[Tensor, "*broadcast"],  # noqa: ARG002
    ) -> Float[Tensor, "*any"]:
        return x0


class Velocity(Parameterization):
    """The network predicts v = sqrt(alpha_bar) epsilon - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D)."""

    def split(
        self, prediction: Float[Tensor, "*any"], x_t: Float[Tensor, "*any"], alpha_bar: Float[Tensor, "*broadcast"]
    ) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return signal * x_t - noise * prediction, signal * prediction + noise * x_t

    def target(
        self, x0: Float[Tensor, "*any"], noise: Float[Tensor, "*any"], alpha_bar: Float[Tensor, "*broadcast"]
    ) -> Float[Tensor, "*any"]:
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0
