"""Every layout of MimicMotion and SVD loads, in small, and every missing or wrong half is explained."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own documents call it so)
from choreo.model_loaders import svd_keys
from choreo.model_loaders.assemble import skeleton, without_prefix
from choreo.model_loaders.mimicmotion import load_mimicmotion, window_by_name
from choreo.model_loaders.svd import CLIP_PREFIX, VAE_PREFIX, clip_names_of, load_svd_parts
from choreo.model_loaders.tiny import TINY_FOLDER, UNET_FILE, load_tiny, tiny_onnx
from choreo.model_loaders.untrained import UNTRAINED_IMAGE_TOWER, UNTRAINED_UNET, UNTRAINED_VAE, write_untrained
from choreo.model_loaders.weights import read_weights
from choreo.networks.image_tower import build_image_tower
from choreo.networks.svd_unet import predict
from safetensors.torch import save_file

CONFIG = {"config": json.dumps({"unet": UNTRAINED_UNET})}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_untrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(tiny):
    return read_weights(tiny / UNET_FILE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder on a machine without models."""
    monkeypatch.setenv("CHOREO_MODELS", str(tmp_path / "nothing here"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _assert_holds(networks, weights):
    for prefix, module in (("unet.", networks.unet), ("pose_net.", networks.pose_net)):
        state = module.state_dict()
        assert set(state) == set(without_prefix(weights, prefix))
        for name, tensor in state.items():
            assert tensor.dtype == torch.float16
            assert torch.equal(tensor, weights[prefix + name])
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_full_checkpoint_as_safetensors(tiny, weights):
    networks = load_mimicmotion(tiny / UNET_FILE)
    _assert_holds(networks, weights)
    assert networks.window == 16


def test_full_checkpoint_as_published_pickle(folder, weights):
    torch.save({**weights, "vae.encoder.conv_in.bias": torch.zeros(1)}, folder / "MimicMotion_1-1.pth")
    (folder / "config.json").write_text(json.dumps({"unet": UNTRAINED_UNET}))
    networks = load_mimicmotion(folder / "MimicMotion_1-1.pth")
    _assert_holds(networks, weights)
    assert networks.window == 72
    assert load_mimicmotion(folder / "MimicMotion_1-1.pth", window=20).window == 20


@pytest.mark.parametrize("name", ["mimic_motion_pose_net.safetensors", "pose_net.safetensors"])
def test_unet_alone_finds_the_pose_net_beside_it(folder, weights, name):
    save_file(without_prefix(weights, "unet."), folder / "MimicMotionMergedUnet_1-0-fp16.safetensors", CONFIG)
    save_file(without_prefix(weights, "pose_net."), folder / name)
    networks = load_mimicmotion(folder / "MimicMotionMergedUnet_1-0-fp16.safetensors")
    _assert_holds(networks, weights)
    assert networks.window == 16


def test_pose_net_given_or_in_a_models_folder(folder, weights, monkeypatch):
    save_file(without_prefix(weights, "unet."), folder / "unet.safetensors", CONFIG)
    elsewhere = folder / "elsewhere" / "mimicmotion"
    elsewhere.mkdir(parents=True)
    torch.save(without_prefix(weights, "pose_net."), folder / "elsewhere" / "mine.pth")
    _assert_holds(load_mimicmotion(folder / "unet.safetensors", folder / "elsewhere" / "mine.pth"), weights)
    with pytest.raises(FileNotFoundError):
        load_mimicmotion(folder / "unet.safetensors")
    save_file(without_prefix(weights, "pose_net."), elsewhere / "mimic_motion_pose_net.safetensors")
    monkeypatch.setenv("CHOREO_MODELS", str(folder / "elsewhere"))
    _assert_holds(load_mimicmotion(folder / "unet.safetensors"), weights)


def test_a_full_checkpoint_serves_as_pose_net(folder, tiny, weights):
    save_file(without_prefix(weights, "unet."), folder / "unet.safetensors", CONFIG)
    _assert_holds(load_mimicmotion(folder / "unet.safetensors", tiny / UNET_FILE), weights)


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_unet_without_pose_net_says_so_and_where_to_get_it(folder, weights, prefix):
    unet = {prefix + name: tensor for name, tensor in without_prefix(weights, "unet.").items()}
    save_file(unet, folder / "unet.safetensors", CONFIG)
    with pytest.raises(FileNotFoundError) as caught:
        load_mimicmotion(folder / "unet.safetensors")
    for part in ("a UNet without its PoseNet", str(folder), "mimic_motion_pose_net.safetensors", "kijai/"):
        assert part in str(caught.value)


def test_trainer_folder(folder, weights):
    checkpoint = folder / "checkpoint-500"
    (checkpoint / "unet").mkdir(parents=True)
    (checkpoint / "pose_net").mkdir()
    save_file(without_prefix(weights, "unet."), checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    (checkpoint / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet", **UNTRAINED_UNET}))
    torch.save(without_prefix(weights, "pose_net."), checkpoint / "pose_net" / "pose_net.pth")
    networks = load_mimicmotion(checkpoint)
    _assert_holds(networks, weights)
    assert networks.window == 16


def test_folder_of_this_trainer(folder, tiny, weights):
    checkpoint = folder / "checkpoint-500"
    checkpoint.mkdir()
    (checkpoint / "MimicMotion.safetensors").write_bytes((tiny / "MimicMotion_tiny.safetensors").read_bytes())
    _assert_holds(load_mimicmotion(checkpoint), weights)


def test_an_empty_folder(folder):
    with pytest.raises(FileNotFoundError, match=r"holds no MimicMotion weights: MimicMotion\.safetensors or unet/"):
        load_mimicmotion(folder)


def test_other_systems_are_refused_by_name(folder, tiny, weights):
    stable = without_prefix(weights, "unet.")
    stable["down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.id_to_k.weight"] = torch.zeros(1)
    save_file(stable, folder / "unet.safetensors", CONFIG)
    with pytest.raises(ValueError, match="a StableAnimator UNet, MimicMotion weights were expected"):
        load_mimicmotion(folder / "unet.safetensors")
    vae = tiny / "svd" / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    with pytest.raises(ValueError, match="is an SVD VAE, PoseNet weights were expected"):
        load_mimicmotion(tiny / UNET_FILE, vae)
    with pytest.raises(ValueError, match="is an SVD VAE, the weights of a whole SVD checkpoint"):
        load_svd_parts(vae)


def test_what_is_missing_or_surplus_is_listed(folder, weights):
    broken = dict(weights)
    del broken["unet.conv_out.bias"]
    broken["unet.conv_out.surplus"] = torch.zeros(1)
    save_file(broken, folder / "m.safetensors", CONFIG)
    message = r"1 missing \(conv_out\.bias\); 1 not expected \(conv_out\.surplus\)"
    with pytest.raises(ValueError, match=message):
        load_mimicmotion(folder / "m.safetensors")


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("MimicMotion_1-1.pth", 72),
        ("MimicMotion_1.1.pth", 72),
        ("MimicMotionMergedUnet_1-1-fp16.safetensors", 72),
        ("MimicMotion_1.pth", 16),
        ("MimicMotion.pth", 16),
        ("MimicMotionMergedUnet_1-0-fp16.safetensors", 16),
        ("checkpoint-1100", 16),
        ("mine.safetensors", 72),
    ],
)
def test_window_by_name(name, window):
    assert window_by_name(name) == window


@pytest.fixture(scope="module")
def parts(tiny):
    return load_svd_parts(tiny / "svd")


@pytest.fixture(scope="module")
def single_file(tiny):
    vae = read_weights(tiny / "svd" / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    clip = read_weights(tiny / "svd" / "image_encoder" / "model.fp16.safetensors")
    content = {VAE_PREFIX + name: tensor for name, tensor in svd_keys.vae_to_ldm(vae).items()}
    content |= {CLIP_PREFIX + name: tensor for name, tensor in svd_keys.clip_to_open_clip(clip).items()}
    content["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(1)
    config = {"config": json.dumps({"vae": UNTRAINED_VAE, "image_encoder": UNTRAINED_IMAGE_TOWER})}
    save_file({name: tensor.contiguous() for name, tensor in content.items()}, tiny / "svd_xt_tiny.safetensors", config)
    return tiny / "svd_xt_tiny.safetensors"


def test_single_file_equals_the_diffusers_folder(parts, single_file):
    other = load_svd_parts(single_file)
    for ours, theirs in zip(parts.image_encoder.parameters(), other.image_encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    decoders = (parts.vae.decoder.state_dict(), other.vae.decoder.state_dict())
    assert all(torch.equal(tensor, decoders[1][name]) for name, tensor in decoders[0].items())
    picture = torch.rand(1, 3, 32, 24) * 2 - 1
    with torch.no_grad():
        latents = [vae.float().encode(picture).latent_dist.mode() for vae in (parts.vae, other.vae)]
    torch.testing.assert_close(*latents, atol=3e-3, rtol=3e-3)  # quant_conv was folded in half precision


def _open_clip_embedding(weights, pixels, heads):
    """OpenCLIP's image tower, written down from its published definition."""

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = F.conv2d(pixels, weights["conv1.weight"], stride=UNTRAINED_IMAGE_TOWER["patch_size"]).flatten(2).mT
    x = torch.cat([weights["class_embedding"].expand(len(x), 1, -1), x], 1) + weights["positional_embedding"]
    x = norm(x, "ln_pre")
    for block in (f"transformer.resblocks.{i}" for i in range(UNTRAINED_IMAGE_TOWER["num_hidden_layers"])):
        attention = torch.nn.MultiheadAttention(x.shape[-1], heads, batch_first=True)
        attention.load_state_dict(without_prefix(weights, f"{block}.attn."))
        y = norm(x, f"{block}.ln_1")
        x = x + attention(y, y, y, need_weights=False)[0]
        hidden = F.linear(
            norm(x, f"{block}.ln_2"), weights[f"{block}.mlp.c_fc.weight"], weights[f"{block}.mlp.c_fc.bias"]
        )
        x = x + F.linear(F.gelu(hidden), weights[f"{block}.mlp.c_proj.weight"], weights[f"{block}.mlp.c_proj.bias"])
    return norm(x[:, 0], "ln_post") @ weights["proj"]


def test_an_open_clip_tower_gives_the_same_embedding_after_conversion(single_file):
    weights = without_prefix(read_weights(single_file), CLIP_PREFIX)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(tensor.shape, generator=generator) * (0.2 if tensor.ndim > 1 else 0.5)
        for name, tensor in sorted(weights.items())
    }
    tower = skeleton(lambda: build_image_tower(UNTRAINED_IMAGE_TOWER))
    tower.load_state_dict(clip_names_of(tower, svd_keys.clip_to_transformers(weights)), assign=True)
    pixels = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        ours = tower.eval()(pixels).image_embeds
        published = _open_clip_embedding(weights, pixels, UNTRAINED_IMAGE_TOWER["num_attention_heads"])
    torch.testing.assert_close(ours, published, atol=1e-4, rtol=1e-4)


def test_quant_conv_of_a_single_file_is_kept(single_file):
    vae = without_prefix(read_weights(single_file), VAE_PREFIX)
    vae["quant_conv.weight"], vae["quant_conv.bias"] = torch.full((8, 8, 1, 1), 2.0), torch.ones(8)
    converted = svd_keys.vae_to_diffusers(vae)
    assert torch.equal(converted["quant_conv.weight"], vae["quant_conv.weight"])
    assert torch.equal(converted["quant_conv.bias"], vae["quant_conv.bias"])


def test_conversions_there_and_back(tiny):
    single = read_weights(tiny / "svd" / "image_encoder" / "model.fp16.safetensors")
    back = svd_keys.clip_to_transformers(svd_keys.clip_to_open_clip(single))
    assert set(back) == set(single)
    assert all(torch.equal(back[name], tensor) for name, tensor in single.items())
    unet = without_prefix(read_weights(tiny / UNET_FILE), "unet.")
    layers = UNTRAINED_UNET["layers_per_block"]
    back = svd_keys.unet_to_diffusers(svd_keys.unet_to_ldm(unet, layers), layers)
    assert all(back[name] is tensor for name, tensor in unet.items())


def test_config_files_as_published_with_their_extras(folder, tiny, parts):
    shutil.copytree(tiny / "svd", folder / "svd")
    for part, extra in (
        (
            "image_encoder",
            {"architectures": ["CLIPVisionModelWithProjection"], "torch_dtype": "float16"},
        ),
        ("vae", {"_diffusers_version": "0.24.0.dev0", "_name_or_path": "/somewhere", "unheard_of": 1}),
    ):
        path = folder / "svd" / part / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **extra}))
    loaded = load_svd_parts(folder / "svd")
    assert loaded.image_encoder.config.hidden_size == parts.image_encoder.config.hidden_size
    assert loaded.vae.config.block_out_channels == parts.vae.config.block_out_channels


def test_a_config_of_something_else_beside_the_weights_is_not_the_unets(folder, weights):
    torch.save(weights, folder / "MimicMotion_1-1.pth")
    (folder / "config.json").write_text(json.dumps(UNTRAINED_VAE))
    with pytest.raises(ValueError, match=r"does not fit MimicMotion.s UNet: \d+ missing.*instead of \(1280,\)"):
        load_mimicmotion(folder / "MimicMotion_1-1.pth")


@pytest.mark.parametrize("part", ["vae", "image_encoder"])
def test_svd_folder_without_a_part(folder, tiny, part):
    (folder / "svd").mkdir()
    other = {"vae": "image_encoder", "image_encoder": "vae"}[part]
    (folder / "svd" / other).symlink_to(tiny / "svd" / other)
    with pytest.raises(FileNotFoundError, match=f"{part} holds none of .*huggingface.co/stabilityai"):
        load_svd_parts(folder / "svd")


def test_tiny_model_is_the_same_everywhere_and_stays_finite():
    first, second = load_tiny(), load_tiny()
    for one, two in zip((first[0].unet, first[1].vae), (second[0].unet, second[1].vae), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    (networks, parts), timestep = first, 1.6
    with torch.no_grad():
        pose = networks.pose_net.float()(torch.rand(4, 3, 32, 32) * 2 - 1)
        sample = torch.randn(1, 4, 8, 4, 4)
        ids = torch.tensor([[6.0, 127.0, 0.0]])
        embeds = torch.randn(1, 1, parts.image_encoder.config.projection_dim)
        plain = predict(networks.unet.float(), sample, timestep, embeds, ids)
        posed = predict(networks.unet, sample, timestep, embeds, ids, pose_features=pose)
        frames = parts.vae.float().decode(posed[0], num_frames=4).sample
    assert frames.shape == (4, 3, 32, 32)
    assert frames.isfinite().all()
    assert (posed - plain).std() > 0.02 * plain.std()  # the poses arrive


def test_embedded_files():
    assert all(path.is_file() for path in tiny_onnx())
    assert sum(path.stat().st_size for path in TINY_FOLDER.rglob("*")) < 16_000_000
