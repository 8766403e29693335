"""Clips to train on and to be judged by: drawn puppets, folders of videos, published layouts; see docs/training.md."""
