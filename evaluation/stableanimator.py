"""`choreo evaluate --model stableanimator`: what differs from the evaluation of MimicMotion."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from ..pipelines.faces import Identity
from ..pipelines.stableanimator import Settings
from ..pipelines.stableanimator_job import StableAnimatorFiles
from ..samplers.windows import check_window
from .command import SEED, Evaluate
from .systems import StableAnimator


@dataclass(frozen=True)
class EvaluateStableAnimator(Evaluate):
    """Judge StableAnimator on a data set; exit status 0 when the targets are reached."""

    size: tuple[int, int] | None = None
    """Width and height; None is 512 512."""
    networks: StableAnimatorFiles = field(default_factory=StableAnimatorFiles)
    sampling: Settings = field(default_factory=lambda: Settings(seed=SEED))
    identity: Identity = field(default_factory=Identity)

    STYLE: ClassVar[str] = "stableanimator"
    SIZES: ClassVar[dict[str, tuple[int, int]]] = {"stableanimator": (512, 512)}

    def system(self, networks: Any, parts: Any) -> StableAnimator:
        """The networks as the protocol wants them, with the face of every reference."""
        folders, provider = self.networks.folders, self.detection.provider
        embed = partial(self.identity.embedding, folders=folders, provider=provider, quirks=self.sampling.quirks)
        system = StableAnimator(networks, parts, self.sampling, fusion=self.fusion, embed=embed)
        check_window(system.window, system.settings.overlap)
        return system
