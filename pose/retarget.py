"""Retargeting limb by limb: the bone lengths of the reference with the motion of the driver (docs/alignment.md).

Everything is done in pixels, so that directions keep their angle whatever the ratios of the two pictures. Each body
joint hangs on its parent: new joint = new parent + (joint - parent) * (bone of the reference / bone of the driver).
A bone of the driver is its median length over the clip, so that foreshortening stays part of the motion.
"""

from __future__ import annotations

import numpy as np

from .poses import FACE, FEET, LEFT_HAND, RIGHT_HAND, VISIBLE, Poses

# (joint, parent) of OpenPose-18 from the neck outwards; head joints hang on the nose
BONES = (
    *((0, 1), (2, 1), (5, 1), (8, 1), (11, 1), (3, 2), (4, 3), (6, 5), (7, 6)),
    *((9, 8), (10, 9), (12, 11), (13, 12), (14, 0), (15, 0), (16, 14), (17, 15)),
)
PARENT = dict(BONES)
MIRRORED = {2: 5, 3: 6, 4: 7, 8: 11, 9: 12, 10: 13}
MIRRORED |= {right: left for left, right in MIRRORED.items()}
HEAD = (14, 15, 16, 17)
NAMES = dict.fromkeys((2, 5), "the shoulders") | dict.fromkeys((3, 6), "the upper arms")
NAMES |= dict.fromkeys((4, 7), "the forearms") | dict.fromkeys((8, 11), "the hips")
NAMES |= dict.fromkeys((9, 12), "the thighs") | dict.fromkeys((10, 13), "the shins") | {0: "the neck"}
RATIO_RANGE = (0.25, 4.0)  # of a bone against the whole figure; beyond, a bone of the reference points at the camera
HAND_RANGE = (0.5, 2.0)  # of a hand against its forearm
_KNUCKLES = [5, 9, 13, 17]  # of a hand, with 0 the wrist: the palm changes its size least
_LEAST_FACE = 8  # points that tell the size of a face
_FOOT = {13: slice(FEET.start, FEET.start + 3), 10: slice(FEET.start + 3, FEET.stop)}


def retarget_limbs(poses: Poses, reference: Poses, a: np.ndarray, b: np.ndarray, slot: int) -> tuple[np.ndarray, str]:
    """Points (frames, people, 134, 2), shares of the reference picture, and what the reference does not show.

    poses:     the driving clip; `slot` is the person whose median bones stand for the driver.
    reference: poses with a person in frame 0.
    a, b:      the fit (reference share = a * driving share + b) that places the root: the neck, or where it is not
               seen, the first seen joint of every limb. a must have the same scale on both axes in pixels.

    Hands hang on wrists, face, eyes and ears on the nose, feet on ankles, each scaled as one piece. A bone that the
    reference does not show takes the ratio of its mirror image, else the scale of the fit.
    """
    driver = poses.pixels()
    seen = (poses.scores > VISIBLE) & poses.present[..., None]
    points, scores = reference.frame(0)
    target = points[0] * reference.size[::-1]
    target_seen = scores[0] > VISIBLE
    scale = float(a[1] * reference.size[0] / poses.size[0])
    fitted = (poses.points * a + b) * reference.size[::-1]

    there = poses.present[:, slot]
    sizes = _Sizes(driver[there, slot], seen[there, slot], target, target_seen, scale)
    ratios, missing = sizes.bones()
    head = sizes.head()
    ratios.update(dict.fromkeys(HEAD, head))

    figure = _Figure(driver, seen, fitted)
    for joint, _ in BONES:
        figure.hang(joint, ratios[joint])
    figure.attach(FACE, 0, head)
    for hand, wrist in ((LEFT_HAND, 7), (RIGHT_HAND, 4)):
        figure.attach(hand, wrist, sizes.hand(hand, ratios[wrist]))
    for ankle, foot in _FOOT.items():
        figure.attach(foot, ankle, ratios[ankle])
    return figure.new / reference.size[::-1], missing


class _Sizes:
    """Sizes of the driver (medians over frames) against those of the reference, in pixels."""

    def __init__(
        self, driver: np.ndarray, seen: np.ndarray, target: np.ndarray, target_seen: np.ndarray, scale: float
    ) -> None:
        self.driver, self.seen, self.target, self.target_seen, self.scale = driver, seen, target, target_seen, scale

    def _ratio(self, joints: list[int], origin: int) -> float | None:
        """Mean distance of joints to an origin, reference against driver; None where either is not seen."""
        mine = [joint for joint in joints if self.target_seen[joint] and self.target_seen[origin]]
        lengths, wanted = [], []
        for joint in mine:
            frames = self.seen[:, joint] & self.seen[:, origin]
            if frames.any():
                lengths.append(np.median(_length(self.driver[frames, joint] - self.driver[frames, origin])))
                wanted.append(_length(self.target[joint] - self.target[origin]))
        if not lengths or min(sum(lengths), sum(wanted)) < 1:
            return None
        return float(sum(wanted) / sum(lengths))

    def bones(self) -> tuple[dict[int, float], str]:
        """Ratio of the bone that ends in each joint, and the names of those nothing is known of."""
        own = {joint: self._ratio([joint], parent) for joint, parent in BONES if joint not in HEAD}
        low, high = (bound * self.scale for bound in RATIO_RANGE)
        ratios, missing = {}, []
        for joint, ratio in own.items():
            known = ratio if ratio is not None else own.get(MIRRORED.get(joint, joint))
            if known is None:
                missing.append(NAMES[joint])
            ratios[joint] = self.scale if known is None else float(np.clip(known, low, high))
        return ratios, ", ".join(dict.fromkeys(missing))

    def head(self) -> float:
        """Ratio of the heads: by the face points about their middle, else by eyes and ears about the nose."""
        often = self.seen[:, FACE].mean(axis=0) > 0.5
        face = np.flatnonzero(often & self.target_seen[FACE]) + FACE.start
        frames = self.seen[:, face].all(axis=1)
        ratio = None
        if len(face) >= _LEAST_FACE and frames.any():
            size = float(np.median(_spread(self.driver[frames][:, face])))
            ratio = float(_spread(self.target[face])) / size if size >= 1 else None
        if ratio is None:
            ratio = self._ratio(list(HEAD), 0)
        low, high = (bound * self.scale for bound in RATIO_RANGE)
        return self.scale if ratio is None else float(np.clip(ratio, low, high))

    def hand(self, hand: slice, forearm: float) -> float:
        """Ratio of the palms (the other hand's where this one is not seen), else that of the forearm."""
        for side in (hand, RIGHT_HAND if hand == LEFT_HAND else LEFT_HAND):
            ratio = self._ratio([side.start + knuckle for knuckle in _KNUCKLES], side.start)
            if ratio is not None:
                return float(np.clip(ratio, forearm * HAND_RANGE[0], forearm * HAND_RANGE[1]))
        return forearm


class _Figure:
    """All people of all frames while they are put together: driver and new (frames, people, 134, 2) in pixels."""

    def __init__(self, driver: np.ndarray, seen: np.ndarray, fitted: np.ndarray) -> None:
        self.driver, self.seen, self.fitted, self.new = driver, seen, fitted, fitted.copy()

    def hang(self, joint: int, ratio: float) -> None:
        """Place a joint by its nearest ancestor that is seen.

        Where there is none, the fit places it, moved by what separates the two in other frames, so that a joint
        does not jump when the neck is hidden for a moment.
        """
        placed = np.zeros(self.seen.shape[:2], dtype=bool)
        ancestor: int | None = PARENT[joint]
        while ancestor is not None:
            here = self.seen[..., ancestor] & ~placed
            bone = self.driver[here, joint] - self.driver[here, ancestor]
            self.new[here, joint] = self.new[here, ancestor] + bone * ratio
            placed |= here
            ancestor = PARENT.get(ancestor)
        if placed.any():
            apart = self.new[placed, joint] - self.fitted[placed, joint]
            self.new[~placed, joint] += np.median(apart, axis=0)

    def attach(self, part: slice, joint: int, ratio: float) -> None:
        """Scale a part as one piece about the joint it hangs on; about its own middle where that is not seen."""
        held = self.seen[..., joint, None]
        old, new = self.driver[..., part, :], self.new[..., part, :]
        old_anchor = np.where(held, self.driver[..., joint, :], old.mean(axis=-2))
        new_anchor = np.where(held, self.new[..., joint, :], new.mean(axis=-2))
        self.new[..., part, :] = new_anchor[..., None, :] + (old - old_anchor[..., None, :]) * ratio


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)


def _spread(points: np.ndarray) -> np.ndarray:
    """Root mean square distance to the middle, (..., points, 2) -> (...)."""
    return np.sqrt(np.square(points - points.mean(axis=-2, keepdims=True)).sum(axis=-1).mean(axis=-1))
