"""Drawn characters that move: an endless, seeded data set with exact keypoints; see docs/training.md."""

from .source import Puppets, render

__all__ = ["Puppets", "render"]
