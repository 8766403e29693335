"""The shipped workflows in short: what is on them and how it is connected; make_workflows.py lays them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

TINY = "tiny (built in)"
SVD_FOLDER = "stable-video-diffusion-img2vid-xt-1-1"
SVD_XT_FOLDER = "stable-video-diffusion-img2vid-xt"
ANTELOPE_ADDRESS = "https://github.com/deepinsight/insightface/releases/tag/v0.7"
HUB = "https://huggingface.co"
DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
DEMO_SIDE, MULTIPLE = 128, 64  # the short side that suits the tiny model, and what its sides are multiples of
MAGICPOSE_ADDRESS = "https://github.com/Boese0601/MagicDance"
MAGICPOSE_SIZE = {"width": 512, "height": 512}
SVD_FILE = "svd_xt_1_1.safetensors"
SVD_ADDRESS = f"{HUB}/stabilityai/{SVD_FOLDER}/resolve/main/{SVD_FILE}"


def _demo_size() -> dict[str, int]:
    """Widgets of Fit Picture: as the demo's picture, at the size of the tiny model."""
    with Image.open(DEMO / "reference.png") as picture:
        sides = [max(1, round(side * DEMO_SIDE / min(picture.size) / MULTIPLE)) * MULTIPLE for side in picture.size]
    return dict(zip(("width", "height"), sides, strict=True))


DEMO_SIZE = _demo_size()


@dataclass(frozen=True)
class Box:
    """A node: `sources` are "key of a node.name of its output" by input; models: (name, address, folder)."""

    key: str
    type: str
    widgets: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    models: tuple[tuple[str, str, str], ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Plan:
    """A workflow: groups are columns from left to right."""

    note: str
    groups: dict[str, list[Box]]


def _detector(tiny: bool = False) -> Box:
    files = (TINY, TINY) if tiny else ("yolox_l.onnx", "dw-ll_ucoco_384.onnx")
    models = () if tiny else tuple((n, f"{HUB}/yzd-v/DWPose/resolve/main/{n}", "dwpose") for n in files)
    widgets = {"detector": files[0], "pose_model": files[1]}
    return Box("detector", "ChoreoLoadPoseDetector", widgets, models=models)


def _mimicmotion() -> Box:
    name = "MimicMotion_1-1.pth"
    model = (name, f"{HUB}/tencent/MimicMotion/resolve/main/{name}", "mimicmotion")
    return Box("mimicmotion", "ChoreoLoadMimicMotion", {"weights": name}, models=(model,))


def _magicpose() -> list[Box]:
    name = "model_state-110000.th"
    model = (name, MAGICPOSE_ADDRESS, "magicpose")
    return [
        Box("magicpose", "ChoreoLoadMagicPose", {"weights": name}, models=(model,)),
        Box("text", "CLIPTextEncode", {"text": ""}, {"clip": "magicpose.CLIP"}, title="Text: empty as published"),
    ]


def _magicpose_sampling(poses: str) -> list[Box]:
    outputs = {"model": "MODEL", "appearance": "appearance", "vae": "VAE", "control_net": "CONTROL_NET"}
    networks = {name: f"magicpose.{output}" for name, output in outputs.items()}
    inputs = {"positive": "text.CONDITIONING", "picture": "fit.IMAGE", "poses": poses}
    widgets = {"seed": 42, "steps": 50, "cfg": 7.0, "sampler_name": "ddim", "scheduler": "ddim_uniform"}
    sources = {name: f"condition.{name}" for name in ("positive", "negative")}
    sources |= {"model": "condition.MODEL", "latent_image": "condition.latent"}
    return [
        Box("condition", "ChoreoMagicPoseConditioning", {}, networks | inputs),
        Box("sampler", "KSampler", widgets, sources),
    ]


def _own_inputs() -> list[Box]:
    return [
        Box("picture", "LoadImage", {"image": "reference.png"}, title="Your picture"),
        Box("video", "LoadVideo", {"file": "driving.mp4"}, title="Your video"),
    ]


def _fit(source: str, **widgets: Any) -> Box:
    return Box("fit", "ChoreoFitPicture", widgets, {"picture": source})


def _poses(video: str, **extraction: Any) -> list[Box]:
    return [
        Box("extract", "ChoreoExtractPoses", extraction, {"frames": video, "detector": "detector.detector"}),
        Box("pick", "ChoreoPickPerson", {}, {"poses": "extract.poses"}),
        Box("fill", "ChoreoFillGaps", {}, {"poses": "pick.poses"}),
        Box(
            "align",
            "ChoreoAlignPoses",
            {},
            {"poses": "fill.poses", "reference": "fit.IMAGE", "detector": "detector.detector"},
        ),
    ]


def _drawn(**widgets: Any) -> list[Box]:
    return [Box("drawn", "ChoreoPoseVideo", widgets, {"poses": "align.poses"}, title="What drives the network")]


def _output(
    latent: str, vae: str, prefix: str, sound: bool = True, decoder: str = "ChoreoDecodeVideo", **decoding: int
) -> list[Box]:
    audio = {"audio": "sound.AUDIO"} if sound else {}
    return [
        Box("decode", decoder, decoding, {"samples": latent, "vae": vae}),
        *([Box("sound", "ChoreoVideoSound", {}, {"video": "video.VIDEO"})] if sound else []),
        Box("create", "CreateVideo", {}, {"images": "decode.IMAGE", "fps": "extract.fps"} | audio),
        Box("save", "SaveVideo", {"filename_prefix": prefix}, {"video": "create.VIDEO"}),
    ]


def _clip(vae: str, clip_vision: str) -> dict[str, str]:
    return {
        "model": "mimicmotion.MODEL",
        "vae": vae,
        "clip_vision": clip_vision,
        "picture": "fit.IMAGE",
        "poses": "align.poses",
        "reference_pose": "align.reference_pose",
    }


def _stableanimator() -> list[Box]:
    repository = f"{HUB}/FrancisRing/StableAnimator/resolve/main"
    unet = "Animation/unet.pth"
    faces = {n: f"models/antelopev2/{n}" for n in ("scrfd_10g_bnkps.onnx", "glintr100.onnx")}
    models = tuple((name, ANTELOPE_ADDRESS, "insightface") for name in faces.values())
    widgets = dict(zip(("detector", "recogniser"), faces.values(), strict=True))
    return [
        Box(
            "stableanimator",
            "ChoreoLoadStableAnimator",
            {"weights": unet},
            models=((unet, f"{repository}/{unet}", "stable_animator"),),
        ),
        Box("parts", "ChoreoLoadSVDParts", {"folder": SVD_XT_FOLDER}),
        Box("analyser", "ChoreoLoadFaceAnalyser", widgets, models=models),
    ]


def _stableanimator_sampling(model: str) -> list[Box]:
    sources = {"positive": "condition.positive", "negative": "condition.negative", "latent_image": "condition.latent"}
    return [
        Box(
            "condition",
            "ChoreoStableAnimatorConditioning",
            {},
            {
                "model": "stableanimator.MODEL",
                "face": "identity.face",
                "vae": "parts.VAE",
                "clip_vision": "parts.CLIP_VISION",
                "picture": "fit.IMAGE",
                "poses": "align.poses",
                "whole_picture": "picture.IMAGE",
            },
        ),
        Box(
            "sampler",
            "KSampler",
            {"seed": 42, "steps": 25, "cfg": 3.0, "sampler_name": "euler", "scheduler": "karras"},
            {"model": model} | sources,
        ),
    ]


def _stableanimator_plan(note: str, prefix: str, model: str, face: list[Box]) -> Plan:
    identity = {"pictures": "picture.IMAGE", "face_analyser": "analyser.face_analyser"}
    fusion = Box("fusion", "ChoreoLatentFusion", {"overlap": 4}, {"model": "stableanimator.MODEL"})
    return Plan(
        f"{note}\n\n{STABLEANIMATOR_NOTE}",
        {
            "Inputs": [*_own_inputs(), _fit("picture.IMAGE", width=512, height=512, filter="lanczos")],
            "Models": [_detector(), *_stableanimator()],
            "Poses": _poses("video.VIDEO", every_nth=2, max_frames=48),
            "Check": _drawn(style="stableanimator"),
            "Face": [Box("identity", "ChoreoFaceIdentity", {}, identity), *face],
            "Sampling": [fusion, *_stableanimator_sampling(model)],
            "Output": _output("sampler.LATENT", "parts.VAE", prefix, chunk=4),
        },
    )


DWPOSE_NOTE = f"""- [yolox_l.onnx]({HUB}/yzd-v/DWPose/resolve/main/yolox_l.onnx) and \
[dw-ll_ucoco_384.onnx]({HUB}/yzd-v/DWPose/resolve/main/dw-ll_ucoco_384.onnx) in `models/dwpose`"""

STABLEANIMATOR_NOTE = f"""## Models
- The folder [Animation]({HUB}/FrancisRing/StableAnimator/tree/main/Animation) (`unet.pth`, `pose_net.pth`, \
`face_encoder.pth`) in `models/stable_animator`
- The folders `vae` and `image_encoder` of [{SVD_XT_FOLDER}]({HUB}/stabilityai/{SVD_XT_FOLDER}) in \
`models/diffusers/{SVD_XT_FOLDER}`
- `scrfd_10g_bnkps.onnx` and `glintr100.onnx` of [antelopev2]({ANTELOPE_ADDRESS}) in \
`models/insightface/models/antelopev2`: **for research and other non-commercial use only**
{DWPOSE_NOTE}

Folders of the older StableAnimator pack serve as they are.

## Settings
- **Fit Picture**: 512x512 or 576x1024, the sizes StableAnimator was trained at; others work less well.
- **Extract Poses** takes every second frame, and 48 at most; 0 in `max_frames` takes the whole video. Windows of 16 \
frames overlap by 4.
- **The face differs?** Look at the poses first: the head must be where the picture has it, and as large. Method \
`limbs` in Align Poses to Reference helps with people of another build.
- **KSampler**: euler, karras, 25 steps, cfg 3 and denoise 1 are what was published."""

MIMICMOTION_NOTE = f"""- [MimicMotion_1-1.pth]({HUB}/tencent/MimicMotion/resolve/main/MimicMotion_1-1.pth) in \
`models/mimicmotion`
{DWPOSE_NOTE}"""

MAGICPOSE_NOTE = f"""## Models
- `model_state-110000.th` in `models/magicpose`; the README of [MagicDance]({MAGICPOSE_ADDRESS}) links to it. It holds \
Stable Diffusion 1.5, the appearance network and the pose ControlNet
{DWPOSE_NOTE}

## Settings
- **Picture**: 512x512, what the networks were trained on.
- **Extract Poses** takes every second frame, and 71 at most; 0 in `max_frames` takes the whole video. Every frame is \
drawn by itself: time and memory for latents grow with their number, nothing else.
- **KSampler**: ddim, ddim_uniform, 50 steps, cfg 7 and denoise 1 are what was published.
- **Flicker**: frames share their start noise and know nothing more of each other. A motion module (AnimateDiff) \
between the MODEL and KSampler ties them together."""

SETTINGS_NOTE = """## Settings
- **Extract Poses** takes every second frame, and 71 at most: with the reference frame that is one window of 72. Set \
`max_frames` to 0 for the whole video; longer clips are sampled in windows that overlap.
- **Memory**: MimicMotion's authors name 16 GB for windows of 72 frames and 8 GB for 16. If it does not fit: `window` \
16 with MimicMotion_1.pth, fewer `chunk` frames in Decode Video. Version 1.1 is at its best with windows of 72 and a \
picture of 576x1024.
- **Another build than the driver's**: method `limbs` in Align Poses to Reference. **Trembling**: put Smooth Poses \
behind Fill Gaps."""

PLANS = {
    "choreo_tiny_demo": Plan(
        """# Choreo: the tiny demo
Press **Run**: everything that this workflow needs comes with the pack. It takes some seconds, also without a GPU, and \
shows that poses, sampling and decoding work here.

The networks are tiny ones, trained on drawn puppets for some hours: **they see and draw nothing but such puppets**, \
a little blurred. Everything around them is what the real networks use.

## Next
Open `mimicmotion_basic` (Templates, Choreo) with your own picture and video.""",
        {
            "Inputs": [Box("demo", "ChoreoDemoInputs"), _fit("demo.picture", **DEMO_SIZE)],
            "Models": [
                _detector(tiny=True),
                Box("mimicmotion", "ChoreoLoadMimicMotion", {"weights": TINY}),
                Box("parts", "ChoreoLoadSVDParts", {"folder": TINY}),
            ],
            "Poses": _poses("demo.video", max_frames=23),
            "Check": _drawn(),
            "Sampling": [
                Box(
                    "sampler",
                    "ChoreoMimicMotionSampler",
                    {"steps": 4, "schedule": "ays", "guidance_first": 1.0, "guidance_last": 1.0},
                    _clip("parts.VAE", "parts.CLIP_VISION"),
                )
            ],
            "Output": _output("sampler.LATENT", "parts.VAE", "choreo/tiny_demo", sound=False),
        },
    ),
    "mimicmotion_basic": Plan(
        f"""# MimicMotion
Animates the person of your picture with the motion of your video.

## Models
{MIMICMOTION_NOTE}
- SVD's VAE and CLIP: the folders `vae` and `image_encoder` of \
[stable-video-diffusion-img2vid-xt-1-1]({HUB}/stabilityai/stable-video-diffusion-img2vid-xt-1-1) in \
`models/diffusers/{SVD_FOLDER}` (accept its licence there first)

{SETTINGS_NOTE}""",
        {
            "Inputs": [*_own_inputs(), _fit("picture.IMAGE")],
            "Models": [_detector(), _mimicmotion(), Box("parts", "ChoreoLoadSVDParts", {"folder": SVD_FOLDER})],
            "Poses": _poses("video.VIDEO", every_nth=2, max_frames=71),
            "Check": _drawn(),
            "Sampling": [Box("sampler", "ChoreoMimicMotionSampler", {}, _clip("parts.VAE", "parts.CLIP_VISION"))],
            "Output": _output("sampler.LATENT", "parts.VAE", "choreo/mimicmotion"),
        },
    ),
    "mimicmotion_ksampler_latent_fusion": Plan(
        f"""# MimicMotion with KSampler
The same as `mimicmotion_basic` in single steps: **MimicMotion Conditioning** prepares picture and poses, **Latent \
Fusion** lets any stock sampler work window by window. Put Load Video LoRA, guiders and other patches of MODEL between \
Load MimicMotion and KSampler.

## Models
{MIMICMOTION_NOTE}
- SVD's VAE and CLIP out of [{SVD_FILE}]({SVD_ADDRESS}) in `models/checkpoints` \
(accept its licence there first); its MODEL is not used. Load SVD Parts reads the same from a diffusers folder.

{SETTINGS_NOTE}
- **KSampler**: euler and karras are what was published. Guidance (cfg) 2.0; 1.0 halves the time. Keep
`denoise` at 1.""",
        {
            "Inputs": [*_own_inputs(), _fit("picture.IMAGE")],
            "Models": [
                _detector(),
                _mimicmotion(),
                Box(
                    "svd",
                    "ImageOnlyCheckpointLoader",
                    {"ckpt_name": SVD_FILE},
                    models=((SVD_FILE, SVD_ADDRESS, "checkpoints"),),
                    title="SVD: VAE and CLIP",
                ),
            ],
            "Poses": _poses("video.VIDEO", every_nth=2, max_frames=71),
            "Check": _drawn(),
            "Sampling": [
                Box("condition", "ChoreoMimicMotionConditioning", {}, _clip("svd.VAE", "svd.CLIP_VISION")),
                Box("fusion", "ChoreoLatentFusion", {}, {"model": "mimicmotion.MODEL"}),
                Box(
                    "sampler",
                    "KSampler",
                    {"seed": 42, "steps": 25, "cfg": 2.0, "sampler_name": "euler", "scheduler": "karras"},
                    {
                        "model": "fusion.MODEL",
                        "positive": "condition.positive",
                        "negative": "condition.negative",
                        "latent_image": "condition.latent",
                    },
                ),
            ],
            "Output": _output("sampler.LATENT", "svd.VAE", "choreo/mimicmotion_ksampler"),
        },
    ),
    "stableanimator_basic": _stableanimator_plan(
        """# StableAnimator
Animates the person of your picture with the motion of your video, and keeps their face: an identity adapter looks at \
it in every layer of the network.""",
        "choreo/stableanimator",
        "fusion.MODEL",
        [],
    ),
    "stableanimator_face_optimised": _stableanimator_plan(
        """# StableAnimator with face optimisation
As `stableanimator_basic`; besides, **Face Optimisation** moves what each of the first 21 steps predicts until ArcFace \
finds the faces more like the picture's. That takes many times longer: try the other workflow first.

- It needs [glintr100_torch.pth](https://huggingface.co/FrancisRing/StableAnimator) in `models/stable_animator`, or \
the Python package onnx, with which `glintr100.onnx` is converted.
- **Memory**: at 512x512 a `chunk` of 4 frames needs 7.7 GiB beside the weights; fewer frames, `bfloat16` and \
`offload` need less.""",
        "choreo/stableanimator_face",
        "optimisation.MODEL",
        [
            Box("masks", "ChoreoFaceMask", {}, {"poses": "align.poses"}, title="Faces of the video"),
            Box("picture_mask", "ChoreoFaceMask", {}, {"poses": "align.reference_pose"}, title="The picture's face"),
            Box(
                "optimisation",
                "ChoreoFaceOptimisation",
                {},
                {
                    "model": "fusion.MODEL",
                    "vae": "parts.VAE",
                    "face_analyser": "analyser.face_analyser",
                    "picture": "fit.IMAGE",
                    "masks": "masks.MASK",
                    "picture_mask": "picture_mask.MASK",
                },
            ),
        ],
    ),
    "pose_toolkit": Plan(
        f"""# The pose toolkit
Finds the poses of your video, chooses a person, fills gaps, smooths, fits the motion to the person of your picture, \
and gives you three things: the poses over the video to check them, a video of skeletons, and a JSON file.

## Models
{DWPOSE_NOTE}

Instead of downloading, choose `tiny (built in)` twice in Load Pose Detector and take Demo Inputs for picture and video.

## Settings
- **Skeletons**: the style is the network's that is to read them. As pictures for other nodes: Draw Poses.
- **Save Poses** writes OpenPose JSON into `output/poses`; Load Poses lists it after pressing R.
- Every input for poses takes POSE_KEYPOINT of other packs as well.""",
        {
            "Inputs": [*_own_inputs(), _fit("picture.IMAGE")],
            "Models": [_detector()],
            "Poses": [
                *_poses("video.VIDEO", max_frames=150)[:3],
                Box("smooth", "ChoreoSmoothPoses", {}, {"poses": "fill.poses"}),
                Box(
                    "align",
                    "ChoreoAlignPoses",
                    {"method": "robust"},
                    {"poses": "smooth.poses", "reference": "fit.IMAGE", "detector": "detector.detector"},
                ),
            ],
            "Check": [
                Box(
                    "overlay",
                    "ChoreoPoseVideo",
                    {"style": "classic", "filename_prefix": "choreo/pose_overlay"},
                    {"poses": "smooth.poses", "frames": "video.VIDEO"},
                    title="Poses over your video",
                )
            ],
            "Output": [
                Box(
                    "drawn",
                    "ChoreoPoseVideo",
                    {"filename_prefix": "choreo/skeletons"},
                    {"poses": "align.poses"},
                    title="Skeletons",
                ),
                Box("json", "ChoreoSavePoses", {}, {"poses": "align.poses"}),
            ],
        },
    ),
    "magicpose_retarget": Plan(
        f"""# MagicPose
Redraws the person of your picture in the poses of your video, frame by frame, on Stable Diffusion 1.5.

{MAGICPOSE_NOTE}
- **Another build than the driver's**: method `limbs` in Align Poses to Reference.
- **LoRA, IP-Adapter** and other patches of MODEL go before or behind MagicPose Conditioning. Apply Appearance with \
the stock Apply ControlNet does the same in single steps; Load Checkpoint can take the place of MODEL, CLIP and VAE.""",
        {
            "Inputs": [*_own_inputs(), _fit("picture.IMAGE", **MAGICPOSE_SIZE)],
            "Models": [_detector(), *_magicpose()],
            "Poses": _poses("video.VIDEO", every_nth=2, max_frames=71),
            "Check": _drawn(style="classic"),
            "Sampling": _magicpose_sampling("align.poses"),
            "Output": _output("sampler.LATENT", "magicpose.VAE", "choreo/magicpose", decoder="VAEDecode"),
        },
    ),
    "magicpose_talking_expression": Plan(
        f"""# MagicPose: talking and expressions
Lets the person of your picture talk and look like the person of your video: the keypoints of the face and the body \
drive it, hands do not. Both should be framed alike, head and shoulders.

{MAGICPOSE_NOTE}
- **Mouth**: `face` in Draw Poses must be on. **Trembling lips**: put Smooth Poses behind Fill Gaps.""",
        {
            "Inputs": [*_own_inputs(), _fit("picture.IMAGE", **MAGICPOSE_SIZE)],
            "Models": [_detector(), *_magicpose()],
            "Poses": [
                *_poses("video.VIDEO", every_nth=2, max_frames=71),
                Box("draw", "ChoreoDrawPoses", {"style": "classic", "hands": False}, {"poses": "align.poses"}),
            ],
            "Check": [Box("preview", "PreviewImage", {}, {"images": "draw.IMAGE"}, title="What drives the network")],
            "Sampling": _magicpose_sampling("draw.IMAGE"),
            "Output": _output("sampler.LATENT", "magicpose.VAE", "choreo/magicpose_talking", decoder="VAEDecode"),
        },
    ),
}
