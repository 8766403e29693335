"""Losses, loops and checkpoints; see docs/training.md."""
