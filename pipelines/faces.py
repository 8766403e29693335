"""Whose face a job keeps: a choice of pictures and networks, and the embedding that comes of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..media.pictures import load_picture
from ..model_loaders.catalogue import find_file, require_file, where_to_get
from ..pose.face import FaceAnalyser
from ..pose.identity import face_embedding
from ..quirks import CLEAN, Quirks

log = logging.getLogger(__name__)

ANTELOPE = "antelopev2"
FOLDERS = ("", f"{ANTELOPE}/", f"{ANTELOPE}/{ANTELOPE}/")  # its archive unpacks into a folder of the same name


@dataclass(frozen=True)
class Identity:
    """The face to keep; see docs/stableanimator.md."""

    keep_face: Literal["auto", "required", "never"] = "auto"
    """Whether the face is kept: "auto" goes on without where there is none or its networks are missing, "required"
    stops, "never" does not look for it."""
    face_pictures: tuple[Path, ...] = ()
    """Pictures of the person's face in place of the reference; the identities of several are averaged."""
    face_detector: str = "scrfd_10g_bnkps.onnx"
    """Network that finds faces, of antelopev2 (for research and other non-commercial use only)."""
    face_recogniser: str = "glintr100.onnx"
    """Network that recognises faces, of antelopev2."""

    def embedding(
        self, reference: np.ndarray, folders: tuple[Path, ...], provider: str = "auto", quirks: Quirks = CLEAN
    ) -> np.ndarray | None:
        """Raw ArcFace embedding (512,) float32, zeros without a face, or None: no face was looked for.

        reference: the whole reference picture, uint8 (H, W, 3) RGB. folders: models folders to look in first.
        Raises FileNotFoundError or ValueError when a face is required and its networks or it are missing. Warns of
        doubtful faces as :func:`..pose.identity.face_embedding` does.
        """
        if self.keep_face == "never":
            return None
        found = [find_network(name, folders) for name in (self.face_detector, self.face_recogniser)]
        if None in found:
            return self._without(folders)
        pictures = [load_picture(path) for path in self.face_pictures] or [reference]
        without_face = "stop" if self.keep_face == "required" else "zeros"
        channel_order = "released" if quirks.swapped_face_channels else "bgr"
        with FaceAnalyser(*found, provider) as analyser:
            return face_embedding(pictures, analyser, without_face=without_face, channel_order=channel_order)

    def _without(self, folders: tuple[Path, ...]) -> None:
        if self.keep_face == "required":
            for name in (self.face_detector, self.face_recogniser):
                if find_network(name, folders) is None:
                    require_file(f"{ANTELOPE}/{name}", folders)
        log.warning(
            "The video does not keep an identity, because %s or %s was not found. %s",
            *(self.face_detector, self.face_recogniser, where_to_get(ANTELOPE)),
        )


def find_network(name: str, folders: Iterable[str | Path] = ()) -> Path | None:
    """A network of antelopev2 in the models folders, in both layouts that its archive leaves behind."""
    folders = list(folders)
    return next((path for folder in FOLDERS if (path := find_file(f"{folder}{name}", folders))), None)
