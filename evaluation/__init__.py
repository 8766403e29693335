"""Metrics with their protocols; see docs/evaluation.md."""
