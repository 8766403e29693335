"""StableAnimator's face optimisation: what a step predicts is moved until its faces are the reference's.

arXiv 2411.17697, section 3.4, derives it from the Hamilton-Jacobi-Bellman equation; what the published program does is
a few steps of Adam on the predicted clean latents, against 1 - cosine of ArcFace's embeddings.
docs/face_optimisation.md says what is computed, and why it needs a fraction of the published memory.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from ..networks.arcface import FACE_SIZE
from ..networks.decoder_gradient import decode_for_gradient
from ..networks.finite import check_finite
from ..runtime import current, with_smaller_batches

log = logging.getLogger(__name__)

STAGE = "optimising faces"
Box = Sequence[int]  # x1, y1, x2, y2 in pixels of a frame; both corners belong to it


@dataclass(frozen=True)
class FaceOptimisation:
    """How faces are optimised; the defaults are the published ones. Raises ValueError for values that cannot work."""

    start: int = 0
    """The first sampling step whose prediction is optimised, from 0."""
    end: int = 20
    """The last one."""
    iterations: int = 3
    """Steps of Adam in every sampling step."""
    eta: float = 0.1
    """Learning rate of the first sampling step; it falls to 0 towards the last."""
    chunk: int = 4
    """Frames decoded together; part of the result, as frames of a chunk act on one another."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Floating point type of the decoder; the published one is float32, half of it needs half the memory."""
    offload: bool = False
    """Keep in main memory what the gradient waits for: the same result with less memory of the device, but slower."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(
                f"The face optimisation must start and end at steps 0 <= start <= end, got {self.start} and {self.end}."
            )
        for name in ("iterations", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of the face optimisation must be at least 1, got {getattr(self, name)}.")
        if not (math.isfinite(self.eta) and self.eta > 0):
            raise ValueError(f"eta of the face optimisation must be a positive number, got {self.eta}.")

    def active(self, step: int) -> bool:
        """Whether the prediction of this sampling step is optimised."""
        return self.start <= step <= self.end

    def learning_rate(self, step: int, steps: int) -> float:
        """eta (1 - step / steps)."""
        return self.eta * (1 - step / steps)


@dataclass(frozen=True)
class FaceTarget:
    """Where the faces of a clip are, one box a frame (None: no face), and whose they shall be.

    embedding: (1, D) float32, of the reference's face as :func:`reference_embedding` makes it.
    """

    boxes: Sequence[Box | None]
    embedding: torch.Tensor


@dataclass(frozen=True)
class FaceGradient:
    """loss: mean of |1 - cosine| over the faces; gradient: (frames, 4, h, w); embeddings: (faces, D).

    float32 on the CPU.
    """

    loss: float
    gradient: torch.Tensor
    embeddings: torch.Tensor


def face_crops(images: torch.Tensor, boxes: Sequence[Box | None], size: int) -> torch.Tensor:
    """(n, 3, size, size): the boxes of images (F, 3, H, W), clamped to [-1, 1]; images without a box are left out."""
    pairs = ((image[None], box) for image, box in zip(images, boxes, strict=True) if box is not None)
    crops = (image[..., y1 : y2 + 1, x1 : x2 + 1].clamp(-1, 1) for image, (x1, y1, x2, y2) in pairs)
    return torch.cat(
        [functional.interpolate(crop, (size, size), mode="bilinear", align_corners=False) for crop in crops]
    )


def reference_embedding(recogniser: nn.Module, picture: torch.Tensor, box: Box) -> torch.Tensor:
    """(1, D) float32 on the CPU: ArcFace's embedding of the face of a picture (3, H, W) in [-1, 1], RGB.

    recogniser: takes faces of its `size` (112 when it has none) as :class:`..networks.arcface.IResNet` does.
    """
    with current().on_device(recogniser, dtype=torch.float32), torch.no_grad():
        crop = face_crops(picture[None].to(_device(recogniser)), [_checked(box, picture)], _size(recogniser))
        return check_finite(recogniser(crop).float().cpu(), "ArcFace's embedding of the reference")


@torch.enable_grad()
def face_gradient(
    decoder: nn.Module,
    recogniser: nn.Module,
    latents: torch.Tensor,
    target: FaceTarget,
    *,
    scaling_factor: float,
    chunk: int = 4,
    offload: bool = False,
) -> FaceGradient:
    """The loss of latents (frames, 4, h, w), multiplied by the scaling factor, and its gradient in them.

    decoder: of the VAE; recogniser: see :func:`reference_embedding`; both on one device, without gradients for their
        weights. chunk: frames decoded together.
    The loss is a mean over frames, so the gradient is added up chunk by chunk; a chunk without a face is left out.
    """
    faces = max(1, sum(box is not None for box in target.boxes))
    reference = target.embedding.to(_device(decoder))
    gradient, embeddings = torch.zeros_like(latents, device="cpu", dtype=torch.float32), []
    loss = 0.0
    for start in range(0, len(latents), chunk):
        part = slice(start, start + chunk)
        if not any(box is not None for box in target.boxes[part]):
            continue
        current().check_cancelled()
        z = (latents[part] / scaling_factor).to(_device(decoder), next(decoder.parameters()).dtype)
        losses, of_z, found = chunk_gradient(decoder, recogniser, z, target.boxes[part], reference, offload)
        gradient[part] = of_z.cpu() / (faces * scaling_factor)
        loss += losses.sum().item() / faces
        embeddings.append(found.float().cpu())
    return FaceGradient(loss, gradient, torch.cat(embeddings) if embeddings else torch.zeros(0, reference.shape[-1]))


def chunk_gradient(  # noqa: PLR0917 - called in one place, with all of them
    decoder: nn.Module,
    recogniser: nn.Module,
    z: torch.Tensor,
    boxes: Sequence[Box | None],
    reference: torch.Tensor,
    offload: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses (faces), the gradient of their sum in the latents z (F, 4, h, w) of one chunk, float32, and embeddings.

    z: not multiplied by the scaling factor, in the decoder's dtype and on its device, where everything stays.
    """
    z = z.detach().requires_grad_()
    with _waiting(offload):
        images = decode_for_gradient(decoder, z)
    seen = images.detach().float().requires_grad_()  # ArcFace's graph is gone before the decoder's is gone through
    found = recogniser(face_crops(seen, boxes, _size(recogniser)))
    losses = (1 - functional.cosine_similarity(found, reference)).abs()
    (of_images,) = torch.autograd.grad(losses.sum(), seen)
    scale = _scale(of_images, images.dtype)
    (of_z,) = torch.autograd.grad(images, z, (of_images * scale).to(images.dtype))
    return losses.detach(), of_z.float() / scale, found.detach()


def optimise_faces(
    decoder: nn.Module,
    recogniser: nn.Module,
    x0: torch.Tensor,
    target: FaceTarget,
    *,
    settings: FaceOptimisation,
    learning_rate: float,
    scaling_factor: float,
) -> tuple[torch.Tensor, list[float]]:
    """x0 (frames, 4, h, w) after the iterations of Adam, and the loss before each of them.

    The arguments are those of :func:`face_gradient`. Raises FloatingPointError when a gradient is not finite.
    """
    z = x0.detach().float().cpu().clone()
    adam = torch.optim.Adam([z], lr=learning_rate)
    options = {"scaling_factor": scaling_factor, "chunk": settings.chunk, "offload": settings.offload}
    losses = []
    for _ in range(settings.iterations):
        found = face_gradient(decoder, recogniser, z, target, **options)
        z.grad = check_finite(found.gradient, "the gradient of the face loss")
        losses.append(found.loss)
        adam.step()
    return z.to(x0), losses


class FaceOptimiser:
    """refine(x0, step) for :func:`.svd.sample_svd`: optimises the faces of the steps that the settings name.

    vae: its decoder is used, on the device only during a step, in the settings' dtype; recogniser: in float32.
    steps: of the whole schedule. away: networks that leave the device meanwhile.
    Weights that were made in inference mode are copied, since nothing can be differentiated through them.
    A step whose gradient is not finite is left as it was predicted and counted in `skipped`.
    losses: the first and the last loss of every step that was optimised.
    """

    def __init__(
        self,
        vae: Any,
        recogniser: nn.Module,
        target: FaceTarget,
        *,
        settings: FaceOptimisation,
        steps: int,
        away: Sequence[nn.Module] = (),
    ) -> None:
        self.decoder, self.recogniser = differentiable(vae.decoder), differentiable(recogniser)
        self.scaling_factor = vae.config.scaling_factor
        self.target, self.settings, self.steps, self.away = target, settings, steps, away
        self.losses: list[tuple[float, float]] = []
        self.skipped: list[int] = []

    def __call__(self, x0: torch.Tensor, step: int) -> torch.Tensor:
        """The optimised prediction, like x0 (frames, 4, h, w); x0 itself where there is nothing to do."""
        if not self.settings.active(step) or all(box is None for box in self.target.boxes):
            return x0
        if len(self.target.boxes) != len(x0):
            raise ValueError(f"There are face boxes of {len(self.target.boxes)} frames for a clip of {len(x0)}.")
        runtime, learning_rate = current(), self.settings.learning_rate(step, self.steps)
        last = min(self.settings.end, self.steps - 1)
        runtime.progress(STAGE, step - self.settings.start, last - self.settings.start + 1)
        try:
            with torch.inference_mode(False), self._in_place():
                refined, losses = with_smaller_batches(
                    lambda chunk: self._optimise(x0.clone(), learning_rate), [self.settings.chunk], STAGE
                )
        except FloatingPointError as error:
            self.skipped.append(step)
            log.warning("Step %d goes on without face optimisation: %s", step + 1, error)
            return x0
        self.losses.append((losses[0], losses[-1]))
        runtime.progress(STAGE, step - self.settings.start + 1, last - self.settings.start + 1)
        return refined

    def _optimise(self, x0: torch.Tensor, learning_rate: float) -> tuple[torch.Tensor, list[float]]:
        return optimise_faces(
            self.decoder,
            self.recogniser,
            x0,
            self.target,
            settings=self.settings,
            learning_rate=learning_rate,
            scaling_factor=self.scaling_factor,
        )

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        runtime, dtype = current(), getattr(torch, self.settings.dtype)
        with (
            runtime.off_device(*self.away),
            runtime.on_device(self.decoder, dtype=dtype),
            runtime.on_device(self.recogniser, dtype=torch.float32),
        ):
            yield

    def report(self) -> str:
        """What was done, in a sentence."""
        if not self.losses and not self.skipped:
            return "The face optimisation found no face to optimise."
        sentence = ""
        if self.losses:
            first, last = self.losses[0][0], self.losses[-1][1]
            sentence = (
                f"Faces were optimised in {len(self.losses)} steps; their likeness to the reference (cosine) went from "
                f"{1 - first:.2f} to {1 - last:.2f}."
            )
        if self.skipped:
            steps = ", ".join(str(step + 1) for step in self.skipped)
            sentence += f" Skipped for NaN or infinity: steps {steps}; float32 is the safest dtype."
        return sentence.strip()


def differentiable(network: nn.Module) -> nn.Module:
    """The network, or a copy of it where its weights were made in inference mode; without gradients for weights."""
    tensors = [*network.parameters(), *network.buffers()]
    if any(tensor.is_inference() for tensor in tensors):
        with torch.inference_mode(False):
            network = copy.deepcopy(network)
    return network.eval().requires_grad_(False)


@contextmanager
def _waiting(offload: bool) -> Iterator[None]:
    """Inside the block autograd keeps tensors in main memory, if asked to."""
    if not offload:
        yield
        return
    with torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available()):
        yield


def _scale(gradient: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What lifts a gradient above the smallest numbers of half precision; 1 where there is no need."""
    if dtype != torch.float16:
        return torch.ones((), device=gradient.device)
    return 1 / gradient.abs().max().clamp(min=torch.finfo(torch.float32).tiny)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _size(recogniser: nn.Module) -> int:
    return getattr(recogniser, "size", FACE_SIZE)


def _checked(box: Box, picture: torch.Tensor) -> Box:
    x1, y1, x2, y2 = box
    height, width = picture.shape[-2:]
    if not (0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height):
        raise ValueError(f"The face box {tuple(map(int, box))} does not lie in the picture of {width}x{height} pixels.")
    return box
