"""The network of the autoregressive family with the encoders of its conditions."""

from wfm.conditions.action import Action
from wfm.conditions.condition import encoders
from wfm.conditions.extrapolation import Extrapolation
from wfm.conditions.past import Past
from wfm.conditions.text import Text
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.slots import Geometry

OWN = (Past, Extrapolation, Text, Action)
"""Conditions that the configuration has fields for."""


def transformer(config: AutoregressiveConfig) -> AutoregressiveTransformer:
    """A new transformer of this configuration."""
    return AutoregressiveTransformer(
        config, encoders(config.slots, Geometry(config.temporal_compression, config.fps), OWN)
    )
