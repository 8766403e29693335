"""Choreo's nodes: one file per topic, each listing its classes in NODES; see :class:`Choreo`."""

from __future__ import annotations

import logging
from importlib import import_module

from comfy_api.latest import ComfyExtension, io

TOPICS = (
    *("pose", "pose_edit", "pose_draw", "pose_files", "faces"),
    *("loaders", "conditioning", "sampling", "stableanimator", "face_optimisation", "magicpose", "video", "demo"),
)


class Choreo(ComfyExtension):
    """What the host asks for the nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes of all topics; a topic whose packages are not installed is left out with a warning."""
        from ..host import folders

        folders.register()
        nodes: list[type[io.ComfyNode]] = []
        for topic in TOPICS:
            try:
                nodes += import_module(f".{topic}", __name__).NODES
            except ImportError as error:
                logging.warning(
                    "Choreo: the %s nodes are missing because a package is (%s); install the pack's requirements.txt.",
                    topic,
                    error,
                )
        return nodes
