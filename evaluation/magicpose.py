"""`choreo evaluate --model magicpose`: what differs from the evaluation of MimicMotion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..pipelines.magicpose import MagicPoseSettings, require_controlnet
from ..pipelines.magicpose_job import SIDE, MagicPoseFiles
from .command import SEED, Evaluate
from .systems import MagicPose


@dataclass(frozen=True)
class EvaluateMagicPose(Evaluate):
    """Judge MagicPose on a data set; exit status 0 when the targets are reached."""

    size: tuple[int, int] | None = None
    """Width and height; None is 512 512."""
    fusion: bool = True
    """Of no effect: MagicPose has no windows."""
    networks: MagicPoseFiles = field(default_factory=MagicPoseFiles)
    sampling: MagicPoseSettings = field(default_factory=lambda: MagicPoseSettings(seed=SEED))

    STYLE: ClassVar[str] = "classic"
    SIZES: ClassVar[dict[str, tuple[int, int]]] = {"magicpose": (SIDE, SIDE)}

    def system(self, networks: Any, parts: Any) -> MagicPose:
        """The networks as the protocol wants them; ValueError without a pose ControlNet."""
        require_controlnet(networks)
        return MagicPose(networks, parts, self.sampling)

    def sampling_words(self) -> list[str]:
        """How frames are made, for people."""
        settings = self.sampling
        guidance = f"guidance {settings.guidance:g} ({settings.control_mode})"
        return [f"DDIM, {len(settings.schedule())} steps", guidance, f"eta {settings.eta:g}"]
