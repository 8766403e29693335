"""MagicPose's appearance control (arXiv 2311.12052, section 4.1) as patches of the host's Stable Diffusion 1.5.

A second MODEL sees the reference's latents at the timestep of every step, with the text of the call. What reaches its
self-attentions is the bank: it is computed once a step for all frames, read by the self-attentions of the MODEL that
samples behind its own tokens, and gone after the run. docs/magicpose.md has the formulas.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.conds
import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from .frame_batches import batch_frames
from .progress import tell

KEY = "choreo_appearance"  # of wrappers, of the second MODEL, of the options of a run, and of marked conditions
WRITER = "choreo_appearance_network"  # marks a MODEL that makes banks and predicts no noise
GUIDANCES = ("picture", "text", "picture and text")
NAMES = {1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}  # by the width of their texts
Place = tuple[str, int, int]  # of a transformer block: side, number, number within
Bank = dict[Place, torch.Tensor]  # (1, tokens, C) each


@dataclass(frozen=True)
class Appearance:
    """The appearance of a person, and how it acts while a clip is sampled.

    network:    the MODEL that makes the bank.
    latents:    (1, 4, h, w) of the reference, not scaled, on the CPU.
    guidance:   what is taken away from the conditional prediction. "picture": that of the plain network with the same
                text, the paper's guidance by image. "text": that with the negative conditioning and the appearance
                (published as `balance`). "picture and text": that with the negative conditioning, without appearance.
    start, end: shares of the sampling between which it acts.
    same_noise: all frames begin with the noise of the first, as published.
    """

    network: ModelPatcher
    latents: torch.Tensor
    guidance: str = "picture"
    start: float = 0.0
    end: float = 1.0
    same_noise: bool = True


def as_writer(model: ModelPatcher) -> ModelPatcher:
    """Mark a MODEL as one that makes banks; a sampler that gets it refuses it."""
    model.set_attachments(WRITER, True)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRITER, _refuse)
    return model


def _refuse(*_call: Any, **_more: Any) -> torch.Tensor:
    raise ValueError(
        "This MODEL is MagicPose's appearance network, which makes no pictures: connect it to the input appearance of "
        "Apply Appearance or MagicPose Conditioning, and their MODEL to the sampler."
    )


def apply_appearance(model: ModelPatcher, appearance: Appearance, frames_at_once: int = 0) -> ModelPatcher:
    """A clone of a MODEL that gives its frames an appearance; the last one counts when there are several.

    frames_at_once: how many frames go through the networks together; 0 is as many as fit.
    Raises ValueError for networks that do not belong together.
    """
    if appearance.guidance not in GUIDANCES:
        raise ValueError(f"Unknown guidance {appearance.guidance!r}; choose one of {', '.join(GUIDANCES)}.")
    if appearance.start > appearance.end:
        raise ValueError(f"start_percent ({appearance.start}) must not be above end_percent ({appearance.end}).")
    check_networks(model, appearance.network)
    model = batch_frames(model.clone(), frames_at_once)
    model.set_additional_models(KEY, [appearance.network])
    wrappers = {WrappersMP.OUTER_SAMPLE: partial(_sample, appearance), WrappersMP.DIFFUSION_MODEL: _call}
    for kind, wrapper in wrappers.items():
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def check_networks(model: ModelPatcher, network: ModelPatcher) -> None:
    """Raise ValueError unless one MODEL can read the bank that the other makes."""
    if model.get_attachment(WRITER):
        raise ValueError("model is MagicPose's appearance network: connect the first MODEL of Load MagicPose there.")
    if _bank_sizes(model) != _bank_sizes(network):
        raise ValueError(
            f"model is {_title(model)}, appearance is {_title(network)}; MagicPose needs a MODEL of Stable Diffusion "
            "1.5, and the appearance of Load MagicPose."
        )
    if not network.get_attachment(WRITER):
        tell("appearance is no appearance network of MagicPose: connect the second MODEL of Load MagicPose.")


def _bank_sizes(model: ModelPatcher) -> tuple[int | None, list[tuple[str, int]]]:
    """Width of the texts, and width of every self-attention; those of other architectures are empty."""
    blocks = [(n, m.norm1.normalized_shape[0]) for n, m in model.model.named_modules() if _is_transformer_block(m)]
    return text_width(model), blocks


def _is_transformer_block(module: torch.nn.Module) -> bool:
    return hasattr(module, "attn1") and hasattr(module, "attn2") and hasattr(module, "norm1")


def text_width(model: ModelPatcher) -> int | None:
    """How many channels the texts of a MODEL have; None where they do not say."""
    return model.model.model_config.unet_config.get("context_dim")


def _title(model: ModelPatcher) -> str:
    width = text_width(model)
    return NAMES.get(width, f"a network ({type(model.model).__name__}) whose texts have {width} channels")


def check_control(control: Any, width: int | None) -> None:
    """Raise ValueError for a ControlNet (or one in front of it) whose texts are of another width than a MODEL's."""
    while control is not None:
        network = getattr(control, "control_model", None)
        blocks = [] if network is None else [m for m in network.modules() if _is_transformer_block(m)]
        found = getattr(blocks[0].attn2.to_k, "in_features", width) if blocks else width
        if found != width:
            raise ValueError(
                f"This CONTROL_NET is for {NAMES.get(found, f'texts of {found} channels')}, the MODEL is Stable "
                "Diffusion 1.5: take MagicPose's own, or control_v11p_sd15_openpose."
            )
        control = control.previous_controlnet


# one sampling run ---------------------------------------------------------------------------------------------------


def _sample(appearance: Appearance, executor: Any, noise: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Sample with banks that live as long as the call."""
    guider = executor.class_obj
    _check_controls(guider, len(noise))
    if appearance.same_noise:
        noise = noise[:1].repeat(len(noise), *[1] * (noise.ndim - 1))
    if appearance.guidance == "picture" and "negative" in guider.conds:
        guider.conds["negative"] = [_plain(entry) for entry in guider.conds["positive"]]
    for kind, entries in guider.conds.items():
        if kind != "negative" or appearance.guidance == "text":
            guider.conds[kind] = [_marked(entry) for entry in entries]
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = tuple(float(sampling.percent_to_sigma(share)) for share in (appearance.start, appearance.end))
    guider.model_options["transformer_options"][KEY] = _Run(appearance, sigmas)
    return executor(noise, *args, **kwargs)


def _check_controls(guider: Any, frames: int) -> None:
    width = text_width(guider.model_patcher)
    controls = {id(c): c for entries in guider.conds.values() for e in entries if (c := e.get("control")) is not None}
    for control in controls.values():
        check_control(control, width)
        hint = getattr(control, "cond_hint_original", None)
        if isinstance(hint, torch.Tensor) and len(hint) not in (1, frames):
            tell(
                f"The ControlNet has {len(hint)} pose pictures and the LATENT {frames} frames: pictures are "
                f"{'left out' if len(hint) > frames else 'repeated from the first one on'}."
            )


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A condition without pose, as another one."""
    return {key: value for key, value in entry.items() if key != "control"} | {"uuid": uuid.uuid4()}


def _marked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A condition with appearance; the host batches it with none that is without.

    Its ControlNet stays its own: an old node asks for it in the negative condition too.
    """
    mark = {KEY: comfy.conds.CONDConstant(True)}
    return entry | {"model_conds": entry["model_conds"] | mark, "control_apply_to_uncond": False}


def _call(  # noqa: PLR0917 - as the host calls it
    executor: Any,
    x: torch.Tensor,
    timesteps: torch.Tensor,
    context: torch.Tensor,
    y: torch.Tensor,
    control: Any,
    transformer_options: dict[str, Any],
    **more: Any,
) -> torch.Tensor:
    """Call the network with a patch that reads the bank of this step, where a condition asks for it."""
    run, marked = transformer_options.get(KEY), more.pop(KEY, False)
    if marked and run is not None and run.acts(transformer_options):
        reader = run.reader(timesteps, context, transformer_options)
        patches = dict(transformer_options.get("patches", {}))
        patches["attn1_patch"] = [*patches.get("attn1_patch", []), reader]
        replaced = dict(transformer_options.get("patches_replace", {}))
        replaced["attn1"] = {place: _for_own_tokens(attend) for place, attend in replaced.get("attn1", {}).items()}
        transformer_options = transformer_options | {"patches": patches, "patches_replace": replaced}
    return executor(x, timesteps, context, y, control, transformer_options, **more)


def _for_own_tokens(attend: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Another pack's attention; where it gives the values as they are, the bank's, at their end, are left out."""
    return lambda q, *more, **named: attend(q, *more, **named)[:, : q.shape[1]]


class _Run:
    """The banks of one sampling run: those of the present step, by text.

    sigmas: between which the appearance acts.
    """

    def __init__(self, appearance: Appearance, sigmas: tuple[float, float]) -> None:
        self.network, self.latents, self.sigmas = appearance.network, appearance.latents, sigmas
        self.timestep: float | None = None
        self.banks: list[tuple[torch.Tensor, Bank]] = []

    def acts(self, transformer_options: Mapping[str, Any]) -> bool:
        """Whether the appearance acts in the step of a call."""
        first, last = self.sigmas
        return last <= float(transformer_options["sigmas"].max()) <= first

    def reader(self, timesteps: torch.Tensor, context: torch.Tensor, options: Mapping[str, Any]) -> _Reader:
        """What reads the bank in a call with texts (rows, tokens, D); frames of one text share it."""
        if float(timesteps[0]) != self.timestep:
            self.timestep, self.banks = float(timesteps[0]), []
        texts, of_row = torch.unique(context, dim=0, return_inverse=True)
        return _Reader([self._bank(timesteps[:1], text[None], options) for text in texts], of_row)

    def _bank(self, timestep: torch.Tensor, text: torch.Tensor, options: Mapping[str, Any]) -> Bank:
        for known, bank in self.banks:
            if known.shape == text.shape and torch.equal(known, text):
                return bank
        bank = compute_bank(self.network, self.latents, timestep, text, options)
        self.banks.append((text, bank))
        return bank


def compute_bank(
    model: ModelPatcher, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, options: Mapping[str, Any]
) -> Bank:
    """What the self-attentions of a MODEL see of latents (1, 4, h, w, not scaled) at a timestep (1).

    text: (1, tokens, D), where the model is. options: of the call that needs the bank.
    Raises FloatingPointError when it is not finite.
    """
    mm.throw_exception_if_processing_interrupted()
    base = model.model
    dtype = base.get_dtype() if base.manual_cast_dtype is None else base.manual_cast_dtype
    writer = _Writer(sum(map(_is_transformer_block, base.diffusion_model.modules())))
    own = model.model_options.get("transformer_options", {})
    patches = dict(own.get("patches", {}))
    patches["attn1_patch"] = [*patches.get("attn1_patch", []), writer]
    run = {"sigmas": options["sigmas"], "cond_or_uncond": [0], "patches": patches}
    x = base.process_latent_in(latents.to(text.device, torch.float32)).to(dtype)
    with suppress(_Complete):
        base.diffusion_model(x, timestep, context=text.to(dtype), transformer_options={**own, **run})
    *_, last = writer.bank.values()
    if not torch.isfinite(last).all():
        raise FloatingPointError(
            "NaN or infinity in what MagicPose's appearance network sees of the picture: check its weights, or set "
            "weight_dtype to bf16 or fp32 in Load MagicPose."
        )
    return writer.bank


class _Complete(Exception):
    """The bank is complete; what follows in the network changes nothing of it."""


def _place(options: Mapping[str, Any]) -> Place:
    return (*options["block"], options["block_index"])


class _Writer:
    """An attn1 patch that keeps what it sees, and ends the call with the last of `size` self-attentions."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bank: Bank = {}

    def __call__(self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, options: dict[str, Any]) -> Any:
        """Leave all three as they are."""
        self.bank[_place(options)] = n
        if len(self.bank) == self.size:
            raise _Complete
        return n, context, value


class _Reader:
    """An attn1 patch that puts the bank behind a call's own tokens.

    banks: of the texts in a call; of_row: which one every row has.
    """

    def __init__(self, banks: list[Bank], of_row: torch.Tensor) -> None:
        self.banks, self.of_row = banks, of_row

    def __call__(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """n (rows, tokens, C) stays; context and value grow by the bank's tokens. Other patches may tile the rows."""
        place = _place(options)
        entries = [bank[place].to(context) for bank in self.banks]
        if len(entries) == 1:
            seen = entries[0].expand(len(context), -1, -1)
        else:
            seen = torch.cat(entries)[self.of_row.repeat_interleave(len(context) // len(self.of_row))]
        longer = torch.cat([context, seen], dim=1)
        return n, longer, longer if value is context else torch.cat([value, seen], dim=1)
