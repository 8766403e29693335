"""How much faster than the published loop does StableAnimator sample, with the same answer?

Its UNet with the identity adapter and five context tokens, otherwise as :mod:`.sampling`.
"""

from __future__ import annotations

from choreo.networks.id_attention import NUM_FACE_TOKENS, build_id_unet

from . import sampling


def run(repeats: int = 2) -> dict[str, float]:
    """The figures of :func:`.sampling.run`."""
    return sampling.run(repeats, changes={"build_unet": build_id_unet, "tokens": 1 + NUM_FACE_TOKENS, "overlap": 4})


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name:32s} {value:12.4g}")
