"""Nodes that choose, repair, smooth and place poses."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..host.progress import on_host, tell
from ..pose.align import METHODS as ALIGNMENTS
from ..pose.gaps import POLICIES
from ..pose.people import CHOICES
from ..pose.poses import Poses
from ..pose.smooth import METHODS as SMOOTHINGS
from .sockets import ChoreoDetector, DetectorFiles, as_poses, check_images, poses_input, poses_output, to_frame

CATEGORY = "Choreo/Pose"


class ChoreoPickPerson(io.ComfyNode):
    """Choose who drives the result."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoPickPerson",
            display_name="Pick Person",
            category=CATEGORY,
            description="Follows people through the clip and keeps one of them, or everybody in an order that lasts.",
            inputs=[
                poses_input("Poses of one or more people."),
                io.Combo.Input(
                    "who",
                    options=list(CHOICES),
                    default="largest",
                    tooltip="largest: who covers most of the picture. centre: who is nearest to the middle. index: by "
                    "confidence, the surest is 0. tracked: by order of appearance. all: everybody. The first three "
                    "choose anew after a cut.",
                ),
                io.Int.Input(
                    "person", default=0, min=0, max=63, tooltip="With index and tracked: which person, from 0."
                ),
                io.Float.Input(
                    "min_score",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Points with less confidence than this count as not found; 0 keeps all, as published.",
                ),
            ],
            outputs=[poses_output("The chosen people.")],
        )

    @classmethod
    def execute(cls, poses: Any, who: str, person: int, min_score: float) -> io.NodeOutput:
        """Choose, then drop faint points."""
        from ..pose.people import choose_people
        from ..pose.smooth import drop_low_scores

        chosen = choose_people(as_poses(poses), who, person)
        return io.NodeOutput(drop_low_scores(chosen, min_score) if min_score > 0 else chosen)


class ChoreoFillGaps(io.ComfyNode):
    """Fill frames in which nobody was found."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoFillGaps",
            display_name="Fill Gaps",
            category=CATEGORY,
            description="Fills frames in which the person was not found. Pick the person first.",
            inputs=[
                poses_input("Poses of people who keep their places, as Pick Person gives them."),
                io.Combo.Input(
                    "gaps",
                    options=list(POLICIES),
                    default="hold",
                    tooltip="hold: the last pose stays. interpolate: move evenly to where the person is found again. "
                    "blank: draw nothing there. raise: stop and list the frames.",
                ),
            ],
            outputs=[poses_output("Poses without gaps (with blank: as they came).")],
        )

    @classmethod
    def execute(cls, poses: Any, gaps: str) -> io.NodeOutput:
        """Fill."""
        from ..pose.gaps import fill_gaps

        return io.NodeOutput(fill_gaps(as_poses(poses), gaps))


class ChoreoSmoothPoses(io.ComfyNode):
    """Smooth the motion over time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoSmoothPoses",
            display_name="Smooth Poses",
            category=CATEGORY,
            description="Takes jitter out of the motion, never across a cut. The published systems do without.",
            inputs=[
                poses_input("Poses of people who keep their places, as Pick Person gives them."),
                io.Combo.Input(
                    "method",
                    options=list(SMOOTHINGS),
                    default="one-euro",
                    tooltip="one-euro: steadies what rests and follows what is fast. gaussian, median: look ahead as "
                    "well. none: leave it.",
                ),
                io.Float.Input(
                    "min_cutoff",
                    default=1.7,
                    min=0.01,
                    max=100.0,
                    step=0.1,
                    tooltip="one-euro: cutoff at rest in Hz; lower is steadier.",
                ),
                io.Float.Input(
                    "beta",
                    default=0.3,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="one-euro: how much the cutoff rises with speed, Hz for each pixel per second; higher lags "
                    "less.",
                ),
                io.Float.Input("sigma", default=1.0, min=0.1, max=20.0, step=0.1, tooltip="gaussian: width in frames."),
                io.Int.Input(
                    "window", default=3, min=1, max=31, step=2, tooltip="median: number of frames, an odd number."
                ),
            ],
            outputs=[poses_output("Smoothed poses; scores stay as they are.")],
        )

    @classmethod
    def execute(
        cls, poses: Any, method: str, min_cutoff: float, beta: float, sigma: float, window: int
    ) -> io.NodeOutput:
        """Smooth."""
        from ..pose.smooth import smooth

        options = {"min_cutoff": min_cutoff, "beta": beta, "sigma": sigma, "window": window}
        return io.NodeOutput(smooth(as_poses(poses), method, **options))


class ChoreoAlignPoses(io.ComfyNode):
    """Move and scale the driver onto the person of the reference picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoAlignPoses",
            display_name="Align Poses to Reference",
            category=CATEGORY,
            description="Moves and scales the driving poses onto the person of the reference picture.",
            inputs=[
                poses_input("The driving poses."),
                poses_input(
                    "The reference picture (connect a detector as well), or the poses found in it. The first picture, "
                    "and the largest person in it, count.",
                    "reference",
                    io.Image,
                ),
                io.Combo.Input(
                    "method",
                    options=list(ALIGNMENTS),
                    default="mimicmotion",
                    tooltip="mimicmotion, stableanimator: the published fits. robust: only joints seen on both sides. "
                    "limbs: the reference's bone lengths with the driver's motion. none: the driver keeps its place.",
                ),
                ChoreoDetector.Input(
                    "detector", optional=True, tooltip="Finds the person when the reference is a picture."
                ),
            ],
            outputs=[
                poses_output("The driving poses, now on the reference picture."),
                poses_output("The pose of the reference picture: the one the clip starts from.", "reference_pose"),
                io.String.Output("note", display_name="note", tooltip="What was done when the fit was not possible."),
            ],
        )

    @classmethod
    def execute(cls, poses: Any, reference: Any, method: str, detector: DetectorFiles | None = None) -> io.NodeOutput:
        """Find the reference's pose where it is a picture, and align."""
        from ..pipelines.driving import fit_to_reference

        poses = as_poses(poses)
        with on_host():
            reference = _reference_poses(reference, detector)
            aligned, reference, note = fit_to_reference(poses, reference, reference.size, method)
        if note:
            tell(note)
        return io.NodeOutput(aligned, reference, note)


def _reference_poses(reference: Any, detector: DetectorFiles | None) -> Poses:
    if not isinstance(reference, torch.Tensor):
        return as_poses(reference)[0]
    if detector is None:
        raise ValueError(
            "The reference is a picture, so a detector is needed to find the person in it: connect Load Pose Detector."
        )
    with detector.open() as networks:
        return networks.extract([to_frame(check_images(reference, "reference picture")[0])])


NODES = [ChoreoPickPerson, ChoreoFillGaps, ChoreoSmoothPoses, ChoreoAlignPoses]
