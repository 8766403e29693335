"""The settings of a training run; the command line makes its options from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .optimisation import SCHEDULES

# What may differ between a run and the one it goes on from: none of it acts on the numbers of a step.
HARMLESS = frozenset(
    (
        *("output", "resume", "steps", "checkpoint_every", "keep", "workers", "threads", "log_every", "half"),
        *(
            "validate_every",
            "validate_data",
            "validate_clips",
            "validate_frames",
            "validate_steps",
            "latent_cache",
            "data",
            "svd",
        ),
        *("batch", "accumulate"),  # the samples of a step are compared instead
        *("weights", "unet", "mimicmotion", "pose_net", "face_encoder", "config", "gradient_checkpointing"),
        *("face_detector", "face_recogniser", "base", "controlnet"),
    )
)


@dataclass(frozen=True)
class Loop:
    """How to train, whatever the system is. Raises ValueError for values that cannot work."""

    output: Path = Path("outputs/training")
    """Folder for checkpoints, logs and validation videos."""
    steps: int = 50000
    """Optimiser steps, those before a resume counted."""
    batch: int = 1
    """Clips of one process in one pass."""
    accumulate: int = 1
    """Passes whose gradients are added up for one optimiser step."""
    lr: float = 1e-5
    """Learning rate."""
    schedule: Literal["constant", "linear", "cosine", "polynomial"] = "constant"
    """How the learning rate falls after the warm-up; all but constant end at 0."""
    warmup: int = 500
    """Steps in which the learning rate rises from 0."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""
    eight_bit_adam: bool = False
    """Keep AdamW's moments in 8 bits; needs bitsandbytes."""
    clip_gradients: float = 0.5
    """Largest norm of all gradients together."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which validation and exported weights then use; 0 is none, 0.999 to
    0.9999 are usual."""
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """Precision of the passes, weights and sums stay float32; None is bf16 (else fp16) on CUDA and no elsewhere."""
    seed: int = 123
    """Every random number of sample n follows from the seed and n."""
    resume: str = "auto"
    """auto goes on from the newest checkpoint in the output folder; none; or the path of a checkpoint."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints to keep, the newest ones; 0 keeps all."""
    validate_every: int = 0
    """Steps between validation videos; 0 makes none."""
    log_every: int = 10
    """Steps between lines in the log."""
    workers: int = 0
    """Processes that read clips ahead; 0 reads between steps."""
    threads: int | None = None
    """Threads of the CPU to compute with; None is torch's choice."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("lr", "warmup", "weight_decay", "keep", "validate_every", "workers", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.clip_gradients <= 0:
            raise ValueError(f"clip_gradients must be above 0, got {self.clip_gradients}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema}.")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"Unknown schedule {self.schedule!r}; choose one of {', '.join(SCHEDULES)}.")


@dataclass(frozen=True)
class Job:
    """What to train on, whatever the system is. Raises ValueError for values that cannot work."""

    data: str
    """Data set: a folder (`choreo dataset build` makes one), a .txt list of folders of pictures, or puppets."""
    size: tuple[int, int] = (1024, 576)
    """Height and width of the clips."""
    more_data: str | None = None
    """A second data set, of another size: every step takes its samples from one of the two."""
    more_size: tuple[int, int] = (1024, 576)
    """Height and width of the clips of the second data set."""
    clips: int | None = None
    """Use only the first so many clips of each data set."""
    clip_frames: int | None = None
    """Frames to read of a clip, of which a sample takes its own at random; None is as many as needed."""
    reference: Literal["clip", "frame"] = "clip"
    """The reference picture: the data set's own, or any frame of the clip."""
    latent_cache: Path | None = None
    """Folder for encoded clips: the networks that encode see every clip once, before the training."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    half: bool = True
    """Export weights as float16; the checkpoint itself keeps float32."""
    validate_data: str | None = None
    """Data set for the validation; None is --data, where it has a part that is never trained on that part."""
    validate_clips: int = 2
    """Clips of a validation."""
    validate_frames: int = 24
    """Frames of these clips."""
    validate_steps: int = 25
    """Sampling steps of the validation."""

    def __post_init__(self) -> None:
        for name in ("clips", "clip_frames", "validate_clips", "validate_frames", "validate_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.more_data == self.data:
            raise ValueError(f"more_data must be another data set than data, {self.data}.")

    @property
    def data_sets(self) -> dict[str, tuple[int, int]]:
        """Each data set and the size of its clips."""
        return {self.data: self.size} | ({} if self.more_data is None else {self.more_data: self.more_size})

    @property
    def read_frames(self) -> int:
        """Frames that are read of a clip."""
        return self.clip_frames or 1


@dataclass(frozen=True)
class SVDJob(Job):
    """What systems on Stable Video Diffusion have in common."""

    svd: Path = field(kw_only=True)
    """VAE and image tower: a folder in diffusers' layout, or svd_xt*.safetensors; "tiny" is the embedded one."""
    frames: int = 16
    """Frames of a sample; the window of the weights."""
    dropout: float = 0.1
    """Chance of dropping the embedding, the latents, and both at once, each."""
    noise_aug: float | None = None
    """The most noise on the reference picture; None is 0.02, and 0 with --latent-cache."""
    fps_id: int = 7
    """SVD's conditioning on speed."""
    motion_bucket_id: float = 127
    """SVD's conditioning on the amount of motion."""
    pose_net_lr: float | None = None
    """Learning rate of PoseNet, where it differs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.frames}.")
        if not 0 <= self.dropout <= 1 / 3:
            raise ValueError(
                f"dropout must be between 0 and 1/3, as it is the chance of each of three, got {self.dropout}."
            )
        if self.latent_cache is not None and self.noise_aug:
            raise ValueError("noise_aug needs the VAE in every step: leave out --noise-aug or --latent-cache.")

    @property
    def augmentation(self) -> float:
        """The most noise on the reference picture."""
        default = 0.0 if self.latent_cache is not None else 0.02
        return default if self.noise_aug is None else self.noise_aug

    @property
    def read_frames(self) -> int:
        """Frames that are read of a clip."""
        return max(self.clip_frames or 0, self.frames)


def _one_start(**starts: Path | None) -> None:
    if sum(value is not None for value in starts.values()) != 1:
        *names, last = (f"--{name}" for name in starts)
        raise ValueError(f"Name one of {', '.join(names)} and {last}: what the training starts from.")


@dataclass(frozen=True)
class TrainMimicMotion(SVDJob):
    """What to train MimicMotion on and from. Raises ValueError for values that cannot work."""

    weights: Path | None = None
    """MimicMotion weights to start from: a full checkpoint, or a UNet with --pose-net."""
    unet: Path | None = None
    """In place of --weights: SVD's UNet, with a fresh PoseNet unless --pose-net names one."""
    pose_net: Path | None = None
    """PoseNet to start from, where --weights or --unet is a UNet alone."""
    config: Path | None = None
    """In place of --weights: fresh networks as this JSON file says, {"unet": {...}, "window": frames}."""
    train: Literal["both", "unet", "pose_net"] = "both"
    """Which of the two networks to train."""
    sigma_mean: float = 0.7
    """Mean of ln(sigma)."""
    sigma_std: float = 1.6
    """Standard deviation of ln(sigma)."""
    hand_weight: float = 10.0
    """What the loss counts in the boxes of hands that were seen well; 1 is as everywhere."""
    hand_threshold: float = 0.7
    """The score that all points of such a hand exceed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_start(weights=self.weights, unet=self.unet, config=self.config)


@dataclass(frozen=True)
class TrainStableAnimator(SVDJob):
    """What to train StableAnimator on and from. Raises ValueError for values that cannot work."""

    size: tuple[int, int] = (512, 512)
    """Height and width of the clips; published are 512 512 and 1024 576."""
    weights: Path | None = None
    """StableAnimator weights to start from: unet.pth or its folder, PoseNet and face encoder beside it."""
    unet: Path | None = None
    """In place of --weights: SVD's UNet, with fresh adapter, PoseNet and face encoder."""
    mimicmotion: Path | None = None
    """In place of --weights: MimicMotion weights, UNet and PoseNet, with fresh adapter and face encoder."""
    config: Path | None = None
    """In place of --weights: fresh networks as this JSON file says, {"unet": {...}, "face_encoder": {...}}."""
    pose_net: Path | None = None
    """PoseNet to start from, where it does not lie beside the weights, or for --unet."""
    face_encoder: Path | None = None
    """Face encoder to start from, where it does not lie beside the weights."""
    face_detector: str = "scrfd_10g_bnkps.onnx"
    """ONNX network of antelopev2 that finds the reference's face; "tiny" is the embedded one, which sees nobody
    but the figures of the tests."""
    face_recogniser: str = "glintr100.onnx"
    """ONNX network of antelopev2 that recognises it; "tiny" is the embedded one."""
    unet_part: Literal["attentions", "all", "none"] = "attentions"
    """What is trained of the UNet: its attention blocks, as published, everything, or nothing."""
    face_encoder_lr: float | None = None
    """Learning rate of the face encoder, where it differs."""
    dropped: Literal["picture", "everything"] = "picture"
    """What is dropped where embedding and latents are: only these, as published, or face and poses with them, which is
    what the unconditional pass of inference sees."""
    face_weight: float = 2.0
    """What the loss counts on faces; 1 is as everywhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_start(weights=self.weights, unet=self.unet, mimicmotion=self.mimicmotion, config=self.config)


@dataclass(frozen=True)
class TrainMagicPose(Job):
    """What to train MagicPose on and from. Raises ValueError for values that cannot work."""

    size: tuple[int, int] = (512, 512)
    """Height and width of the frames."""
    stage: Literal[1, 2] = 2
    """1 is the appearance network alone (appearance control pretraining), 2 with the pose ControlNet
    (appearance-disentangled pose control)."""
    weights: Path | None = None
    """MagicPose weights to start from: control_sd15_ini.ckpt (stage 1), model_state-10000.th (stage 2), any whole
    checkpoint, or a MagicPose.safetensors of an earlier run; None starts from --base."""
    base: Path | None = None
    """Stable Diffusion 1.5, a single file or a diffusers folder: its UNet, VAE and text encoder in the place of those
    of --weights; without --weights the appearance network starts as a copy of its UNet."""
    controlnet: Path | None = None
    """Pose ControlNet that stage 2 starts from, in the place of that of --weights; control_v11p_sd15_openpose.pth is
    looked for where neither has one."""
    train: Literal["both", "appearance", "controlnet"] = "both"
    """Which of the two networks to train."""
    fix_hint: bool = False
    """Leave the ControlNet's encoder of pose pictures as it is."""
    pose_dropout: float = 0.0
    """Chance of a black pose picture."""
    noisy_reference: bool = False
    """The appearance network sees the reference as noisy as the frame, instead of clean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is None and self.base is None:
            raise ValueError("Name --weights or --base: what the training starts from.")
        if self.stage == 1 and (self.train == "controlnet" or self.controlnet is not None):
            raise ValueError("Stage 1 has no ControlNet: use --stage 2, or leave out what is said of a ControlNet.")
        if not 0 <= self.pose_dropout <= 1:
            raise ValueError(f"pose_dropout must be between 0 and 1, got {self.pose_dropout}.")
