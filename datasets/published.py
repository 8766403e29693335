"""Data sets as the published trainers lay them out, read as they are (docs/datasets.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..media.clips import natural_order
from ..media.numbered import count_frames, numbered_frames
from ..media.pictures import PICTURE_SUFFIXES, load_picture, picture_size
from ..media.video import probe
from ..pose.poses import BODY, LEFT_HAND, NUM_POINTS, RIGHT_HAND, Poses
from ..pose.skeletons import channel_order
from ..pose.styles import find_style
from .clips import Clip
from .frame_filter import keep_frames
from .framing import Framing
from .reading import Reading, check_request, clip_fps
from .sampling import random_clip, random_reference

VIDEOS, POSE_VIDEOS, SCORES, REFERENCES = "videos", "dwpose", "pose_score", "ref"
IMAGES, LANDMARKS, FACES = ("imgs", "images"), ("lmks", "poses"), ("faces",)
TRAIN_SET, TEST_SET = (("train_set", "pose_map_train_set"), ("disco_test_set", "pose_map_disco_test_set"))
STORED_ORDER = "straight"  # the published tool draws for a network that knows "reversed", and its writer swaps
_DEPTH = 3  # folders of pictures lie at most so deep: set/rec/video


class VideoPairs:
    """The layout of MimicMotion's trainer: videos/*.mp4, dwpose/*.mp4, pose_score/*.json, ref/*.png.

    The list is that of ref/*.png, each named like its video; without any, all videos that have a pose video count and
    the reference is another frame of the video. Frames of both videos are counted, not timed, as the published tool
    did. The scores choose the frames; their points of body and hands become `Clip.poses` (faces are not in them and
    count as not found). Without scores all frames are kept and `Clip.poses` is None.
    """

    def __init__(self, folder: str | Path, reading: Reading | None = None) -> None:
        self.folder, self.reading = Path(folder), reading or Reading()
        self.names, self.references = self._list()
        if self.reading.min_frames > 1:
            self.names = [name for name in self.names if len(self._kept(name)) >= self.reading.min_frames]
        if not self.names:
            raise ValueError(
                f"{self.folder} has no video with a pose video of the same name and {self.reading.min_frames} usable "
                f"frames: looked for {VIDEOS}/*.mp4 and {POSE_VIDEOS}/*.mp4."
            )

    def __len__(self) -> int:
        return len(self.names)

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        """See :class:`.clips.ClipSource`; the published sampling."""
        check_request(num_frames, size)
        name, generator = self.names[index], np.random.default_rng([seed, index])
        video, drawn = self.folder / VIDEOS / name, self.folder / POSE_VIDEOS / name
        info, kept = probe(video), self._kept(name)
        if not len(kept):
            raise ValueError(f"{video}: none of its frames passed the filter of scores.")
        numbers = random_clip([kept], num_frames, self.reading.rate_for(float(info.fps)), generator)
        framing = self.reading.framing((info.height, info.width), size, generator)
        pictures = framing.pictures(numbered_frames(drawn, numbers))
        reference_pose = None
        if name in self.references:
            picture = load_picture(self.references[name])
            reference = self.reading.framing(picture.shape[:2], size).picture(picture)
        else:
            number = random_reference(kept, numbers, round(info.fps), generator, self.reading.within)
            reference = framing.pictures(numbered_frames(video, [number]))[0]
            reference_pose = framing.pictures(numbered_frames(drawn, [number]))
            reference_pose = straightened([*pictures, *reference_pose], self.reading)[-1]
        poses = self._poses(name, (info.height, info.width), numbers, float(info.fps))
        return Clip(
            reference,
            framing.pictures(numbered_frames(video, numbers)),
            straightened(pictures, self.reading),
            None if poses is None else framing.poses(poses),
            clip_fps(numbers, float(info.fps)),
            f"{name}, frame {numbers[0]}",
            reference_pose,
        )

    def _list(self) -> tuple[list[str], dict[str, Path]]:
        """Names of the videos, and the reference picture of each that has one."""
        paired = {path.name for path in (self.folder / VIDEOS).iterdir() if path.suffix.lower() == ".mp4"}
        paired &= {path.name for path in (self.folder / POSE_VIDEOS).iterdir()}
        folder = self.folder / REFERENCES
        pictures = sorted(folder.glob("*.png")) if folder.is_dir() else []
        references = {}
        for picture in pictures:
            names = [f"{stem}.mp4" for stem in (picture.stem, picture.name.split(".")[0])]
            name = next((name for name in names if name in paired), None)
            if name is not None:
                references.setdefault(name, picture)
        return sorted(references or paired), references

    def _scores(self, name: str) -> list[Mapping[str, Any]] | None:
        path = self.folder / SCORES / f"{name.removesuffix('.mp4')}.json"
        return _load_scores(path, path.stat().st_mtime_ns) if path.is_file() else None

    def _kept(self, name: str) -> np.ndarray:
        """Numbers of the frames that pass the filter and that both videos have."""
        frames = min(count_frames(self.folder / kind / name) for kind in (VIDEOS, POSE_VIDEOS))
        scores = self._scores(name)
        kept = np.arange(frames) if scores is None else kept_numbers(scores)
        return kept[kept < frames]

    def _poses(self, name: str, size: tuple[int, int], numbers: np.ndarray, fps: float) -> Poses | None:
        scores = self._scores(name)
        if scores is None:
            return None
        rows = {int(row["frame_idx"]): row for row in scores}
        return Poses.from_frames([pose_of(rows[number]) for number in numbers.tolist()], size, clip_fps(numbers, fps))


@lru_cache(maxsize=32)
def _load_scores(path: Path, modified: int) -> list[Mapping[str, Any]]:
    """The frames of a score file; `modified` is there for the cache."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["pose_score"]
        for row in rows:
            pose_of(row)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} is no file of pose scores ({error!r}): expected "pose_score", a list of frames with frame_idx, '
            "body, hands, body_score, hands_score and faces_score."
        ) from None
    return rows


def kept_numbers(frames: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """The frame numbers of a score file that pass the published filter, rising.

    frames: of each `frame_idx`, `body_score` (n, 18), `hands_score` (2n, 21) and `faces_score` (n, 68).
    """
    frames = list(frames)
    means = [
        np.array([np.mean(frame[f"{part}_score"]) for frame in frames], dtype=np.float64)
        for part in ("body", "hands", "faces")
    ]
    numbers = np.array([frame["frame_idx"] for frame in frames], dtype=np.int64)
    return np.sort(numbers[keep_frames(*means)])


def pose_of(frame: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(points (n, 134, 2) in shares, scores (n, 134)) of a frame of a score file; feet and face are not in it."""
    body_scores = np.asarray(frame["body_score"], dtype=np.float64).reshape(-1, 18)
    people = len(body_scores)
    points, scores = np.zeros((people, NUM_POINTS, 2)), np.zeros((people, NUM_POINTS))
    points[:, BODY] = np.asarray(frame["body"], dtype=np.float64).reshape(people, 18, 2)
    hands = np.asarray(frame["hands"], dtype=np.float64).reshape(2, people, 21, 2)
    hand_scores = np.asarray(frame["hands_score"], dtype=np.float64).reshape(2, people, 21)
    points[:, LEFT_HAND], points[:, RIGHT_HAND] = hands
    scores[:, BODY], (scores[:, LEFT_HAND], scores[:, RIGHT_HAND]) = body_scores, hand_scores
    return points, scores


def straightened(pictures: Iterable[np.ndarray], reading: Reading) -> np.ndarray:
    """Ready pose pictures, uint8 (F, H, W, 3), in the channel order of the style; see `Reading.colours`.

    Pictures that do not tell are taken for what the published tool writes.
    """
    pictures = np.stack(list(pictures))
    found = reading.colours
    if found == "as stored":
        return pictures
    if found == "auto":
        found = channel_order(pictures)
    stored = STORED_ORDER if found == "unknown" else found
    return pictures if stored == find_style(reading.style).channel_order else np.ascontiguousarray(pictures[..., ::-1])


@dataclass(frozen=True)
class PictureVideo:
    """A video as folders of pictures: frames, drawings of poses, and face masks where there are any."""

    name: str
    frames: Path
    drawings: Path
    faces: Path | None = None


class PictureFolders:
    """A folder for each video with its frames and ready pose pictures: imgs/ and lmks/, or images/ and poses/.

    folder: they are looked for up to three levels deep; or a text file that names one a line, as seen from the file or
        from the working directory.
    A pose picture has the name of its frame; where none has, both are taken in their natural order. Face masks (faces/)
    likewise; only folders that have them give `Clip.faces`. A missing picture is black. The reference is a random frame
    outside the clip where there is one. Clips play at `reading.source_fps` / rate.
    """

    def __init__(self, folder: str | Path, reading: Reading | None = None) -> None:
        self.folder, self.reading = Path(folder), reading or Reading()
        self.videos = [video for video in self._list() if len(_pictures(video.frames)) >= self.least]
        if not self.videos:
            raise ValueError(
                f"{self.folder} has no folder of {self.least} or more frames with pose pictures: looked for "
                f"{self._looked_for()}."
            )

    @property
    def least(self) -> int:
        """Frames that a video needs."""
        return self.reading.min_frames

    def _list(self) -> list[PictureVideo]:
        listed = listed_folders(self.folder) if self.folder.is_file() else picture_folders(self.folder)
        parts = (IMAGES, LANDMARKS, FACES)
        return [PictureVideo(self._name(path), *(_sub(path, names) for names in parts)) for path in listed]

    def _looked_for(self) -> str:
        return f"{IMAGES[0]}/ and {LANDMARKS[0]}/, or {IMAGES[1]}/ and {LANDMARKS[1]}/"

    def __len__(self) -> int:
        return len(self.videos)

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        """See :class:`.clips.ClipSource`; the published sampling."""
        check_request(num_frames, size)
        video, generator = self.videos[index], np.random.default_rng([seed, index])
        frames, fps = _pictures(video.frames), self.reading.source_fps
        drawings, masks = (_partners(frames, folder) for folder in (video.drawings, video.faces))
        numbers, number = self.choose(len(frames), num_frames, generator)
        framing = self.reading.framing(picture_size(frames[numbers[0]]), size, generator)
        chosen = [*numbers.tolist(), number]
        pictures = framing.pictures(load_picture(frames[n]) for n in chosen)
        poses = straightened((_partner(drawings[n], framing) for n in chosen), self.reading)
        faces = np.stack([_partner(masks[n], framing)[..., 0] for n in numbers]) if any(masks) else None
        name = f"{video.name}, frame {numbers[0]}"
        return Clip(pictures[-1], pictures[:-1], poses[:-1], None, clip_fps(numbers, fps), name, poses[-1], faces)

    def choose(self, available: int, num_frames: int, generator: np.random.Generator) -> tuple[np.ndarray, int]:
        """Numbers of the frames of a clip, and of its reference, in a video of so many frames."""
        everything = np.arange(available)
        numbers = random_clip([everything], num_frames, self.reading.rate_for(self.reading.source_fps), generator)
        return numbers, random_reference(everything, numbers, 0, generator, self.reading.within)

    def _name(self, folder: Path) -> str:
        inside = folder.is_relative_to(self.folder)
        return (folder.relative_to(self.folder) if inside else folder).as_posix()


class TikTok(PictureFolders):
    """The layout of MagicPose's trainer: train_set/ and pose_map_train_set/ with a folder for each video, and the same
    for disco_test_set/.

    Everything is as in :class:`PictureFolders`; the folders of a video have the same name on both sides.
    held_out: the test set, in which the reference is a video's first frame, and a clip the frames that follow it.
    """

    def __init__(self, folder: str | Path, reading: Reading | None = None, *, held_out: bool = False) -> None:
        self.held_out = held_out
        super().__init__(folder, reading)

    @property
    def least(self) -> int:
        """Frames that a video needs."""
        return max(self.reading.min_frames, 2 if self.held_out else 1)

    def _list(self) -> list[PictureVideo]:
        frames, drawings = (self.folder / name for name in (TEST_SET if self.held_out else TRAIN_SET))
        if not frames.is_dir():
            return []
        videos = sorted((path for path in frames.iterdir() if path.is_dir()), key=natural_order)
        found = [PictureVideo(path.name, path, drawings / path.name) for path in videos]
        return [video for video in found if video.drawings.is_dir()]

    def _looked_for(self) -> str:
        return " with ".join(f"{name}/VIDEO/" for name in (TEST_SET if self.held_out else TRAIN_SET))

    def choose(self, available: int, num_frames: int, generator: np.random.Generator) -> tuple[np.ndarray, int]:
        """As in :class:`PictureFolders`; of the test set the first frame, and those behind it."""
        if not self.held_out:
            return super().choose(available, num_frames, generator)
        return np.arange(1, min(num_frames + 1, available)), 0


def is_tiktok(folder: Path) -> bool:
    """Whether a folder has the layout of :class:`TikTok`."""
    return any(all((folder / name).is_dir() for name in names) for names in (TRAIN_SET, TEST_SET))


def listed_folders(file: Path) -> list[Path]:
    """The folders of frames and pose pictures that a text file names, one a line; ValueError for one that is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no list of folders: a text file with one folder a line was expected.") from None
    named = [line.strip() for line in lines if line.strip()]
    found = [file.parent / name if (file.parent / name).is_dir() else Path(name) for name in named]
    for path in found:
        if _sub(path, IMAGES) is None or _sub(path, LANDMARKS) is None:
            raise ValueError(
                f"{file} names {path}, which has no {IMAGES[0]}/ and {LANDMARKS[0]}/, nor {IMAGES[1]}/ and "
                f"{LANDMARKS[1]}/."
            )
    return found


def picture_folders(folder: Path) -> list[Path]:
    """Folders at most three levels below `folder`, or itself, that hold frames and pose pictures; sorted."""
    levels = ["*/" * depth for depth in range(1, _DEPTH + 1)]
    candidates = [folder, *sorted(path for level in levels for path in folder.glob(level.rstrip("/")) if path.is_dir())]
    return [path for path in candidates if _sub(path, IMAGES) is not None and _sub(path, LANDMARKS) is not None]


def _sub(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _pictures(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES), key=natural_order)


def _partners(frames: list[Path], folder: Path | None) -> list[Path | None]:
    """The picture of a folder that belongs to each frame, or None."""
    pictures = _pictures(folder) if folder is not None else []
    by_name = {path.stem: path for path in pictures}
    if any(frame.stem in by_name for frame in frames):
        return [by_name.get(frame.stem) for frame in frames]
    return [*pictures, *[None] * len(frames)][: len(frames)]


def _partner(path: Path | None, framing: Framing) -> np.ndarray:
    if path is None:
        return np.zeros((*framing.size, 3), dtype=np.uint8)
    return framing.picture(load_picture(path, background=(0, 0, 0)))
