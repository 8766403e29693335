"""Choreo animates a person from one picture with the motion of a video.

The repository root is at once the ComfyUI node pack and the Python package ``choreo``; importing it
loads nothing else, so that a host starts as fast as before.
"""

__version__ = "0.1.0"
