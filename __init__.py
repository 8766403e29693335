"""Choreo animates a person from one picture with the motion of a video.

The repository root is at once the ComfyUI node pack and the Python package ``choreo``; importing it
loads nothing else, so that a host starts as fast as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import Choreo

__version__ = "0.1.0"
WEB_DIRECTORY = "./web"  # help pages of the nodes


async def comfy_entrypoint() -> Choreo:
    """What ComfyUI calls for the nodes; the first moment anything of the pack is imported."""
    from .nodes import Choreo

    return Choreo()
