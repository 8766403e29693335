"""Who is who: following people through a clip, and choosing the one who drives the result (docs/pose.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .boxes import box_around, overlaps
from .poses import BODY, VISIBLE, Poses

CHOICES = ("largest", "centre", "index", "tracked", "all")
CUT_OVERLAP = 0.1  # a person whose box overlaps the one before by less was not there before: a cut, or somebody else
MOST_LOST = 30  # frames that somebody may be out of sight and still be the same person
_AHEAD = 5  # frames that a lost person is thought to keep moving on
_SAME_SIZE = 2.0  # somebody who appears after another was lost may be the same if their areas agree by this factor


def person_boxes(poses: Poses) -> np.ndarray:
    """(frames, people, 4) boxes x1, y1, x2, y2 in pixels, NaN for empty slots.

    The box around the visible points (score above 0.3), enlarged 1.25 times; around all points found, or all
    points, where fewer than two are visible.
    """
    points, boxes = poses.pixels(), np.full((*poses.present.shape, 4), np.nan)
    for slot in np.argwhere(poses.present):
        at = tuple(slot)
        scores = poses.scores[at]
        seen = next(mask for mask in (scores > VISIBLE, scores > 0, np.ones_like(scores, bool)) if mask.sum() > 1)
        boxes[at] = box_around(points[at][seen])
    return boxes


def find_breaks(poses: Poses, boxes: np.ndarray | None = None) -> np.ndarray:
    """(frames, people) bool: where a slot's person does not continue that slot's last one (cut, or somebody else).

    True where the box (see :func:`person_boxes`, or as given) overlaps the slot's last box by less than 0.1, and
    at the slot's first appearance.
    """
    boxes = person_boxes(poses) if boxes is None else boxes
    breaks = np.zeros(poses.present.shape, dtype=bool)
    for slot in range(poses.num_people):
        frames = np.flatnonzero(poses.present[:, slot])
        for before, frame in zip([None, *frames], frames, strict=False):
            breaks[frame, slot] = before is None or _overlap(boxes[before, slot], boxes[frame, slot]) < CUT_OVERLAP
    return breaks


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    return float(overlaps(box[None], other[None])[0, 0])


def track_people(poses: Poses) -> Poses:
    """The same people with one slot for each person through the clip, in order of first appearance.

    Greedy: of all pairs of a known and a newly found person the most alike are joined first; alike is box overlap
    plus closeness of the joints seen in both, relative to the size of the person, where a known person is thought
    to move on steadily. Nobody is joined with less than 0.1 of overlap, across a cut (a frame in which no box
    overlaps any of the last frame by 0.1), or after 30 frames out of sight. Nobody found is left out.
    """
    tracks, num_tracks = _follow(poses, person_boxes(poses))
    return _take(poses, [tracks == track for track in range(num_tracks)])


def choose_people(poses: Poses, choice: str = "largest", index: int = 0) -> Poses:
    """One person of every frame, the same through the clip; or everybody.

    choice: "largest": who covers most of the picture over the clip. "centre": who is nearest to the middle.
        "index": people are ordered by their confidence over the clip, the surest first, and number `index` (from
        0) is taken. "tracked": number `index` of :func:`track_people`, who appear in this order. "all": everybody,
        each person in one slot.

    All but "tracked" and "all" choose anew after a cut, and within a shot stay with one person; when that person
    was lost for good, somebody of about the same size who appears later is taken for the same. The result has one
    slot (but "all"); it is empty in frames without that person (see `gaps.py`). Raises ValueError when there is no
    person of this number.
    """
    if choice not in CHOICES:
        raise ValueError(f"Unknown choice of people {choice!r}; choose one of {', '.join(CHOICES)}.")
    if poses.num_people <= 1 and index == 0:
        return poses
    if choice == "all":
        return track_people(poses)
    boxes = person_boxes(poses)
    tracks, num_tracks = _follow(poses, boxes)
    if choice == "tracked":
        _check_index(index, num_tracks, "over the whole clip")
        return _take(poses, [tracks == index])
    weights = _weights(poses, boxes, choice)
    chosen = np.zeros_like(poses.present)
    shots = [_Shot(tracks, weights, boxes, frames) for frames in _shots(boxes)]
    if choice == "index":
        _check_index(index, max((len(shot.ranking) for shot in shots), default=0), "between two cuts")
    for shot in shots:
        chosen |= shot.person(index if choice == "index" else 0)
    return _take(poses, [chosen])


def _check_index(index: int, found: int, where: str) -> None:
    if not 0 <= index < found:
        people = {0: "nobody was", 1: "only 1 person was"}.get(found, f"{found} people were")
        hint = f"; choose 0{'' if found == 1 else f' to {found - 1}'}" if found else ""
        raise ValueError(f"There is no person number {index} (counted from 0): {people} found {where}{hint}.")


def _take(poses: Poses, masks: list[np.ndarray]) -> Poses:
    """A slot for each mask (frames, people) with at most one person in a frame."""
    frames = np.arange(len(poses))
    shape = len(poses), len(masks)
    points, scores = np.zeros((*shape, *poses.points.shape[2:])), np.zeros((*shape, *poses.scores.shape[2:]))
    present = np.zeros(shape, dtype=bool)
    for slot, mask in enumerate(masks if poses.num_people else []):
        there = mask.any(axis=1)
        place = mask.argmax(axis=1)[there]
        points[there, slot], scores[there, slot] = (
            poses.points[frames[there], place],
            poses.scores[frames[there], place],
        )
        present[:, slot] = there
    return replace(poses, points=points, scores=scores, present=present)


def _weights(poses: Poses, boxes: np.ndarray, choice: str) -> np.ndarray:
    """(frames, people) how much somebody counts in a frame; 0 for empty slots."""
    size = np.array(poses.size[::-1], dtype=np.float64)
    confidence = np.clip(poses.scores[..., BODY], 0, 1).mean(axis=-1)
    if choice == "index":
        weights = confidence
    elif choice == "largest":
        low, high = np.clip(boxes[..., :2], 0, size), np.clip(boxes[..., 2:], 0, size)
        weights = confidence * (high - low).prod(axis=-1)
    else:
        away = (boxes[..., :2] + boxes[..., 2:]) / 2 / size - 0.5
        weights = np.clip(1 - np.linalg.norm(away, axis=-1), 0, 1) ** 2
    return np.where(poses.present, weights, 0.0)


def _shots(boxes: np.ndarray) -> list[slice]:
    """Frames between cuts."""
    starts, last = [0], None
    for frame, slots in enumerate(boxes):
        found = slots[~np.isnan(slots[:, 0])]
        if len(found) and last is not None and overlaps(last, found).max() < CUT_OVERLAP:
            starts.append(frame)
        last = found if len(found) else last
    return [slice(*pair) for pair in zip(starts, [*starts[1:], len(boxes)], strict=True)]


class _Shot:
    """The people of one shot, ranked by their summed weight."""

    def __init__(self, tracks: np.ndarray, weights: np.ndarray, boxes: np.ndarray, frames: slice) -> None:
        self.tracks = np.full_like(tracks, -1)
        self.tracks[frames] = tracks[frames]
        areas = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
        present = [int(track) for track in np.unique(self.tracks) if track >= 0]
        self.weight = {track: weights[self.tracks == track].sum() for track in present}
        self.area = {track: float(np.median(areas[self.tracks == track])) for track in present}
        rows = {track: np.flatnonzero((self.tracks == track).any(axis=1)) for track in present}
        self.span = {track: (found[0], found[-1]) for track, found in rows.items()}
        self.ranking = sorted(present, key=lambda track: (-self.weight[track], track))

    def person(self, rank: int) -> np.ndarray:
        """(frames, people) bool of the person of this rank; nowhere when there are fewer."""
        if rank >= len(self.ranking):
            return np.zeros(self.tracks.shape, dtype=bool)
        best = self.ranking[rank]
        same = [best]
        for other in self.ranking:
            apart = all(self.span[other][0] > self.span[t][1] or self.span[other][1] < self.span[t][0] for t in same)
            ratio = self.area[other] / self.area[best] if self.area[best] else 0
            if apart and 1 / _SAME_SIZE <= ratio <= _SAME_SIZE:
                same.append(other)
        return np.isin(self.tracks, same)


@dataclass
class _Track:
    """Somebody who is being followed: where they were seen last, in pixels."""

    number: int
    frame: int
    points: np.ndarray
    seen: np.ndarray
    box: np.ndarray
    velocity: np.ndarray

    def moved(self, frame: int) -> np.ndarray:
        """(2) pixels from the last position to that of a frame, at the same speed."""
        return self.velocity * min(frame - self.frame, _AHEAD)

    def closeness(self, frame: int, points: np.ndarray, seen: np.ndarray, box: np.ndarray) -> float:
        """1 where the joints of somebody found are where they are expected, 0 a quarter of the figure away."""
        both, size = self.seen & seen, np.linalg.norm(box[2:] - box[:2])
        if not both.any() or size == 0:
            return 0.0
        distance = np.linalg.norm(self.points[both] + self.moved(frame) - points[both], axis=-1).mean()
        return max(0.0, 1 - 4 * distance / size)

    def see(self, frame: int, points: np.ndarray, seen: np.ndarray, box: np.ndarray) -> None:
        """Go on from where this person was found in a frame."""
        both = self.seen & seen
        if both.any():
            step = (points[both] - self.points[both]).mean(axis=0) / (frame - self.frame)
            self.velocity = (self.velocity + step) / 2
        self.frame, self.points, self.seen, self.box = frame, points, seen, box


def _follow(poses: Poses, boxes: np.ndarray) -> tuple[np.ndarray, int]:
    """(frames, people) number of the track of everybody, -1 for empty slots; and how many tracks there are."""
    points, seen = poses.pixels(), poses.scores > VISIBLE
    numbers = np.full(poses.present.shape, -1)
    count = 0
    for shot in _shots(boxes):
        tracks: list[_Track] = []
        for frame in range(shot.start, shot.stop):
            slots = np.flatnonzero(poses.present[frame])
            people = [(points[frame, slot], seen[frame, slot], boxes[frame, slot]) for slot in slots]
            tracks = [track for track in tracks if frame - track.frame <= MOST_LOST]
            for track, person in _join(tracks, people, frame):
                tracks[track].see(frame, *people[person])
                numbers[frame, slots[person]] = tracks[track].number
            for slot, person in zip(slots, people, strict=True):
                if numbers[frame, slot] < 0:
                    tracks.append(_Track(count, frame, *person, np.zeros(2)))
                    numbers[frame, slot] = count
                    count += 1
    return numbers, count


def _join(tracks: list[_Track], people: list[tuple[np.ndarray, ...]], frame: int) -> list[tuple[int, int]]:
    """Pairs (track, person) of the most alike, each at most once."""
    if not tracks or not people:
        return []
    last, expected = (np.stack([track.box + np.tile(track.moved(frame), 2) * k for track in tracks]) for k in (0, 1))
    found = np.stack([box for _, _, box in people])
    overlap = np.maximum(overlaps(last, found), overlaps(expected, found))
    likeness = {
        (t, p): overlap[t, p] + tracks[t].closeness(frame, *people[p]) for t, p in np.argwhere(overlap >= CUT_OVERLAP)
    }
    pairs: list[tuple[int, int]] = []
    for t, p in sorted(likeness, key=likeness.__getitem__, reverse=True):
        if all(t != track and p != person for track, person in pairs):
            pairs.append((t, p))
    return pairs
