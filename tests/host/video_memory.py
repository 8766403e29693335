"""python -m tests.host.environment run tests.host.video_memory: what a long VIDEO of 1920x1080 takes, as a table.

The figures of the tests, drawn large, go through the nodes that take a VIDEO, each clip in a process of its own. The
numbers are the most that a node added to the memory of the process (Linux tells), its result counted.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..figures import draw
from .clips import ONE, detector
from .harness import Host, Value, open_host

SIZE, SMALL = (1080, 1920), (192, 256)  # height, width; what is drawn and enlarged
LENGTHS = (300, 1000)
FITTED = {"width": 256, "height": 144}  # of Draw Poses, whose IMAGE would hide everything else


def pictures(number: int) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3) of a figure that walks to and fro."""
    rows, columns = (np.arange(large) * small // large for large, small in zip(SIZE, SMALL, strict=True))
    for index in range(number):
        yield draw(SMALL, [ONE.moved(abs(index % 40 - 20))])[rows][:, columns]


def write_clip(host: Host, number: int) -> Value:
    """A VIDEO in a file."""
    from comfy_api.latest import InputImpl

    path = host.folder / "input" / f"{number}.mp4"
    with host.module("media.write").VideoWriter(path, SIZE, 30) as video:
        for picture in pictures(number):
            video.write(picture)
    return Value(InputImpl.VideoFromFile(str(path)))


def added(job: Callable[[], object]) -> tuple[object, float]:
    """What a job gives, and how many MB (10^6 bytes) the process grew by at the most."""
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    result = job()
    return result, (_status("VmHWM") - before) * 1024 / 1e6


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def measure(number: int) -> dict[str, float]:
    """MB by node for a clip of so many frames."""
    host = open_host()
    warm, video = write_clip(host, 8), write_clip(host, number)
    eyes = detector(host)
    found = {}
    for clip, keep in ((warm, False), (video, True)):  # imports and first use are not counted
        poses, grown = added(lambda clip=clip: host.run("ChoreoExtractPoses", frames=clip, detector=eyes)[0])
        poses = Value(poses)
        rows = {"Extract Poses": grown}
        jobs = {
            "Pose Video": ("ChoreoPoseVideo", {"poses": poses}),
            "Pose Video over the clip": ("ChoreoPoseVideo", {"poses": poses, "frames": clip}),
            "Draw Poses, 256x144": ("ChoreoDrawPoses", {"poses": poses, **FITTED}),
            "Import Skeleton Pictures, 256x144": ("ChoreoSkeletonPictures", {"pictures": clip, **FITTED}),
            "Video Sound": ("ChoreoVideoSound", {"video": clip}),
        }
        for name, (node, inputs) in jobs.items():
            rows[name] = added(lambda node=node, inputs=inputs: host.run(node, **inputs))[1]
            host.fresh()
        found = rows if keep else found
    host.close()
    return found


def main(lengths: tuple[int, ...] = LENGTHS) -> None:
    """Print Markdown."""
    columns = []
    for number in lengths:
        with tempfile.TemporaryFile("w+") as output:
            command = [sys.executable, "-m", "tests.host.video_memory", str(number)]
            subprocess.run(command, check=True, stdout=output)
            output.seek(0)
            columns.append(dict(line.rsplit("\t", 1) for line in output.read().splitlines() if "\t" in line))
    print("| node | " + " | ".join(f"{number} frames" for number in lengths) + " |\n|---|" + "---|" * len(lengths))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(f"{float(column[name]):.0f} MB" for column in columns) + " |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for row, grown in measure(int(sys.argv[1])).items():
            print(f"{row}\t{grown}")
    else:
        main()
