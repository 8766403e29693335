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

import av
import numpy as np

from ..figures import draw
from .clips import ONE, detector
from .harness import Host, Value, open_host

SIZE, SMALL = (1080, 1920), (192, 256)  # height, width; what is drawn and enlarged
LENGTHS = (300, 1000)
PERIOD, FPS = 50, 25
FITTED = {"width": 256, "height": 144}  # of Draw Poses, whose IMAGE would hide everything else


def write_clip(host: Host, number: int) -> Value:
    """A VIDEO in a file: a figure that walks to and fro, encoded once and repeated."""
    from comfy_api.latest import InputImpl

    rows, columns = (np.arange(large) * small // large for large, small in zip(SIZE, SMALL, strict=True))
    once, path = (host.folder / "input" / name for name in ("once.mp4", f"{number}.mp4"))
    with host.module("media.write").VideoWriter(once, SIZE, FPS) as video:
        for index in range(PERIOD):
            video.write(draw(SMALL, [ONE.moved(abs(index - PERIOD // 2))])[rows][:, columns])
    with av.open(str(path), "w") as target:
        stream = None
        for start in range(0, number, PERIOD):
            with av.open(str(once)) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0], opaque=True)
                for packet in source.demux(source.streams.video[0]):
                    if packet.dts is not None:
                        shift = round(start / FPS / packet.time_base)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        target.mux(packet)
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


def measure(number: int) -> Iterator[tuple[str, float]]:
    """(node, MB) for a clip of so many frames."""
    host = open_host()
    host._watch = lambda *_run: None  # it keeps every preview
    eyes = detector(host)
    for clip, frames in ((write_clip(host, PERIOD), 8), (write_clip(host, number), 0)):  # the first warms up
        inputs = {"frames": clip, "detector": eyes, "max_frames": frames}
        found, grown = added(lambda inputs=inputs: host.run("ChoreoExtractPoses", **inputs)[0])
        if not frames:
            yield "Extract Poses", grown
        poses = Value(found)
        jobs = {
            "Pose Video over the clip": ("ChoreoPoseVideo", {"poses": poses, "frames": clip}),
            "Draw Poses, 256x144": ("ChoreoDrawPoses", {"poses": poses, **FITTED}),
        }
        for name, (node, inputs) in jobs.items():
            grown = added(lambda node=node, inputs=inputs: host.run(node, **inputs))[1]
            host.fresh()
            if not frames:
                yield name, grown
    host.close()


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
        for row, megabytes in measure(int(sys.argv[1])):
            print(f"{row}\t{megabytes}", flush=True)
    else:
        main()
