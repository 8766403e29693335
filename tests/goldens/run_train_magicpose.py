"""One training step of MagicPose in each of its stages."""

from __future__ import annotations

import torch
from choreo.model_loaders.ldm_keys import controlnet_name_to_diffusers, unet_name_to_diffusers
from choreo.model_loaders.magicpose import APPEARANCE_PREFIX, POSE_PREFIX, MagicPoseNetworks
from choreo.model_loaders.sd15 import CONTROL_PREFIX, UNET_PREFIX
from choreo.training.magicpose import AppearanceControl, Draws, choose_trained, noise_loss
from choreo.training.optimisation import adamw
from torch import nn

from .cases import Case
from .registry import runner
from .run_magicpose import networks_of

LEARNING_RATE, LARGEST_NORM = 1e-5, 0.5  # of the published recipe


@runner("magicpose/train_stage")
@torch.enable_grad()
def train_step(case: Case) -> dict:
    tensors, found = case.tensors, networks_of(case)
    controlnet = found.controlnet if case.config["stage"] == 2 else None
    module = AppearanceControl(MagicPoseNetworks(found.unet, found.appearance, controlnet)).train()
    found.unet.requires_grad_(False).time_embedding.requires_grad_(True)  # published: forgotten, not optimised
    choose_trained(module)
    posterior = torch.zeros(len(tensors["x0"]), 2, *tensors["x0"].shape[1:])
    draws = Draws(posterior, tensors["noise"], tensors["t"], torch.ones(len(tensors["t"])))
    loss = noise_loss(
        module,
        tensors["x0"],
        tensors["ref_latent"],
        draws,
        text=tensors["context"],
        pose_pictures=tensors["hint_u8"].permute(0, 2, 3, 1),
    )
    loss.backward()
    optimised = [parameter for parameter in module.parameters() if parameter.requires_grad]
    everything = [*optimised, *found.unet.time_embedding.parameters()]
    norm = torch.nn.utils.clip_grad_norm_(everything, LARGEST_NORM)
    adamw([{"params": optimised, "lr": LEARNING_RATE}], weight_decay=0.0).step()
    outputs = {"loss": loss.detach()[None], "grad_norm": norm[None]}
    for name in case.expected:
        kind, _, published = name.removeprefix("out.").partition(".")
        if kind in ("grad_clipped", "param_after_step"):
            parameter = _parameter(module, published, case.config["nrb"])
            outputs[f"{kind}.{published}"] = (parameter.grad if kind == "grad_clipped" else parameter).detach()
    return outputs


def _parameter(module: AppearanceControl, published: str, layers: int) -> nn.Parameter:
    """A parameter by the name that it has in a checkpoint; of stage 1 the appearance network is `control_model`."""
    places = {
        UNET_PREFIX: (module.unet, unet_name_to_diffusers),
        APPEARANCE_PREFIX: (module.appearance, unet_name_to_diffusers),
        CONTROL_PREFIX: (module.appearance, unet_name_to_diffusers),
        POSE_PREFIX: (module.controlnet, controlnet_name_to_diffusers),
    }
    prefix = next(prefix for prefix in places if published.startswith(prefix))
    network, rule = places[prefix]
    return network.get_parameter(rule(published.removeprefix(prefix), layers))
