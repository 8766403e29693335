"""How clips become samples: the reference and a window of frames that follow one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from ..datasets.clips import Clip
from .regions import THRESHOLD, face_shares, hand_shares
from .system import Rows

Reference = Literal["clip", "frame"]


def picture_rows(clip: Clip) -> Rows:
    """pictures and poses uint8 (1 + F, H, W, 3): of the reference (black where it has no pose) and the frames."""
    first = np.zeros_like(clip.reference) if clip.reference_pose is None else clip.reference_pose
    return {
        "pictures": torch.from_numpy(np.concatenate([clip.reference[None], clip.frames])),
        "poses": torch.from_numpy(np.concatenate([first[None], clip.pose_pictures])),
    }


@dataclass(frozen=True)
class WindowLayout:
    """Samples of `frames` frames that follow one another, from a random start in the clip.

    reference: "clip" is the data set's own picture of the person; "frame" any frame of the clip.
    latent_factor: pixels to a latent pixel.
    """

    region: ClassVar[str]
    """The rows of shares (h, w) in which the loss counts more."""
    opens: ClassVar[bool]
    """Whether the reference is frame 0 of its window, with its own pose, where that is known."""
    of_reference: ClassVar[dict[str, str]] = {"embeds": "image_embeds"}
    """Encoded rows that samples have of their reference alone, and what they are called there."""

    frames: int
    reference: Reference = "clip"
    latent_factor: int = 8

    @property
    def clip_frames(self) -> int:
        """Frames that a sample needs of a clip at least."""
        return self.frames

    def fingerprint(self) -> dict[str, str | float]:
        """What encoded rows depend on: which of them have an embedding."""
        return {"embeds": self.reference}

    def shares(self, clip: Clip, latent_size: tuple[int, int]) -> torch.Tensor:
        """(F, h, w) float32 in [0, 1]: how much of each latent pixel lies in a region."""
        raise NotImplementedError

    def rows(self, clip: Clip) -> Rows:
        """pictures, poses uint8 (1 + F, H, W, 3), shares of the region (1 + F, h, w), posed (1,): row 0 has a pose."""
        height, width = clip.reference.shape[:2]
        latent_size = (height // self.latent_factor, width // self.latent_factor)
        shares = torch.zeros(1 + len(clip.frames), *latent_size)
        shares[1:] = self.shares(clip, latent_size)
        return picture_rows(clip) | {self.region: shares, "posed": torch.tensor([clip.reference_pose is not None])}

    def referenced(self, rows: Rows) -> torch.Tensor:
        """The pictures uint8 (R, H, W, 3) of raw rows that can be a reference."""
        return rows["pictures"] if self.reference == "frame" else rows["pictures"][:1]

    def take(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """A window: its reference and its rows, raw (pictures) or encoded (moments, embeds)."""
        reference, window = self.choose(len(rows["poses"]) - 1, bool(rows["posed"]), rng)
        sample = {name: rows[name][window] for name in ("poses", self.region)}
        if "pictures" in rows:
            return sample | {"pictures": rows["pictures"][window], "reference": rows["pictures"][[reference]]}
        sample |= {"moments": rows["moments"][window], "image_latents": rows["moments"][reference, :4]}
        return sample | {new: rows[name][[reference]] for name, new in self.of_reference.items()}

    def choose(self, num_frames: int, posed: bool, rng: np.random.Generator) -> tuple[int, list[int]]:
        """(row of the reference, rows of the window) of a clip of num_frames frames, rows 1 to num_frames."""
        reference = 0 if self.reference == "clip" else 1 + int(rng.integers(num_frames))
        opening = [reference] if self.opens and (reference or posed) else []
        length = self.frames - len(opening)
        if num_frames < length:
            raise ValueError(f"A sample needs {length} frames, but the clip has {num_frames}.")
        start = 1 + int(rng.integers(num_frames - length + 1))
        return reference, [*opening, *range(start, start + length)]


@dataclass(frozen=True)
class HandWindows(WindowLayout):
    """MimicMotion's windows: as in inference the reference opens them, and hands count more.

    hand_threshold: scores that a hand needs to be trusted.
    """

    region: ClassVar[str] = "hands"
    opens: ClassVar[bool] = True

    hand_threshold: float = THRESHOLD

    def fingerprint(self) -> dict[str, str | float]:
        """What encoded rows depend on: which of them have an embedding, and which hands are trusted."""
        return {**super().fingerprint(), "hand_threshold": self.hand_threshold}

    def shares(self, clip: Clip, latent_size: tuple[int, int]) -> torch.Tensor:
        """(F, h, w) float32 in [0, 1]: how much of each latent pixel is hand; nothing without keypoints."""
        if clip.poses is None:
            return torch.zeros(len(clip.frames), *latent_size)
        return hand_shares(clip.poses, clip.reference.shape[:2], latent_size, self.hand_threshold)


@dataclass(frozen=True)
class FaceWindows(WindowLayout):
    """StableAnimator's windows: the reference is none of their frames, faces count more, references have identities."""

    region: ClassVar[str] = "faces"
    opens: ClassVar[bool] = False
    of_reference: ClassVar[dict[str, str]] = {"embeds": "image_embeds", "identities": "identity"}

    def shares(self, clip: Clip, latent_size: tuple[int, int]) -> torch.Tensor:
        """(F, h, w) float32 in [0, 1]: how much of each latent pixel is face."""
        return face_shares(clip, latent_size)
