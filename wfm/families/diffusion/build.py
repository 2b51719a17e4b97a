"""The network of the diffusion family with the encoders of its conditions."""

from wfm.conditions.action import Action
from wfm.conditions.condition import encoders
from wfm.conditions.extrapolation import Extrapolation
from wfm.conditions.past import Past
from wfm.conditions.text import Text
from wfm.models.diffusion.config import DenoiserConfig
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.slots import Geometry

OWN = (Past, Extrapolation, Text, Action)
"""Conditions that the configuration has fields for."""


def denoiser(config: DenoiserConfig) -> Denoiser:
    """A new denoiser of this configuration."""
    return Denoiser(config, encoders(config.slots, Geometry(config.temporal_compression, config.fps), OWN))
