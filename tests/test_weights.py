"""Reading weights files, and one clear sentence for every way in which they can be broken."""

from __future__ import annotations

import argparse
import json
import struct

import pytest
import torch
from choreo.model_loaders.assemble import assemble
from choreo.model_loaders.weights import read_config, read_metadata, read_weights
from safetensors.torch import save_file

WEIGHTS = {"a.weight": torch.arange(600.0).reshape(20, 30).half(), "b": torch.tensor([3.0])}


def _assert_equal(weights):
    assert set(weights) == set(WEIGHTS)
    for key, tensor in WEIGHTS.items():
        assert weights[key].dtype == tensor.dtype
        assert torch.equal(weights[key], tensor)


def _safetensors(folder, name="w.safetensors"):
    save_file(WEIGHTS, folder / name, {"config": '{"width": 3}'})
    return folder / name


def _torch(folder, content=None, **options):
    torch.save(WEIGHTS if content is None else content, folder / "w.pth", **options)
    return folder / "w.pth"


def test_every_format_keeps_names_values_and_dtypes(tmp_path):
    _assert_equal(read_weights(_safetensors(tmp_path)))
    _assert_equal(read_weights(str(_torch(tmp_path))))
    _assert_equal(read_weights(_torch(tmp_path, _use_new_zipfile_serialization=False)))


def test_the_content_decides_the_format(tmp_path):
    _assert_equal(read_weights(_safetensors(tmp_path, "w.ckpt")))
    with pytest.raises(ValueError, match=r"a PyTorch file under a safetensors name: rename it to end in \.pth"):
        read_weights(_torch(tmp_path).rename(tmp_path / "w.safetensors"))


def test_a_safetensors_header_may_begin_like_a_pickle(tmp_path):
    for length in range(1, 60):
        path = tmp_path / "w.safetensors"
        save_file({"x" * length: torch.ones(2)}, path)
        assert list(read_weights(path)) == ["x" * length]


def test_wrapped_dictionaries_are_unwrapped(tmp_path):
    _assert_equal(read_weights(_torch(tmp_path, {"state_dict": {**WEIGHTS, "step": 7}, "epoch": 3})))


def test_reading_does_not_change_the_file(tmp_path):
    path = _safetensors(tmp_path)
    before = path.read_bytes()
    for tensor in read_weights(path).values():
        tensor.zero_()
    assert path.read_bytes() == before


def test_missing_file_says_where_it_was_looked_for_and_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read_weights(tmp_path / "MimicMotion_1-1.pth")
    assert str(tmp_path) in str(caught.value)
    assert "https://huggingface.co/tencent/MimicMotion" in str(caught.value)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3049867447\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("MimicMotion_1-1.pth", LFS, "Git-LFS pointer of 135 bytes.*git lfs pull.*tencent/MimicMotion"),
        ("w.safetensors", b"\n <!DOCTYPE html><html>", "web page.*download link"),
        ("w.pth", b"<html><head>", "web page"),
        ("w.bin", b"", "is empty"),
        ("w.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00[not a header]", "neither a safetensors nor a PyTorch"),
        ("w.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{not a header..}", "damaged safetensors header"),
        ("w.pth", b"just some text, nothing else", "neither a safetensors nor a PyTorch"),
        ("w.onnx", b"\x08\x07", r"ends in \.onnx, weights end in one of \.safetensors"),
        ("w", b"\x08\x07", "ends in nothing"),
    ],
)
def test_other_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert str(caught.value).strip() == str(caught.value)


@pytest.mark.parametrize("make", [_safetensors, _torch, lambda f: _torch(f, _use_new_zipfile_serialization=False)])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
def test_truncated_files_are_called_truncated(tmp_path, make, part):
    path = make(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"is truncated.*download it again"):
        read_weights(path)


def test_damaged_middle_of_a_zip_is_an_error_too(tmp_path):
    path = _torch(tmp_path)
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start : start + 4] = b"XXXX"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth"):
        read_weights(path)


def test_python_objects_are_never_run(tmp_path):
    path = _torch(tmp_path, {"options": argparse.Namespace(steps=3), **WEIGHTS})
    with pytest.raises(ValueError, match=r"other than weights.*argparse\.Namespace.*safetensors version"):
        read_weights(path)


@pytest.mark.parametrize("content", [{"epoch": 3}, {"state_dict": {}}, [1, 2]])
def test_a_file_without_tensors(tmp_path, content):
    with pytest.raises(ValueError, match="a state dict of named weights was expected"):
        read_weights(_torch(tmp_path, content))


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_weights(tmp_path)


def test_config_from_metadata_from_beside_or_none(tmp_path):
    assert read_config(_torch(tmp_path)) == {}
    assert read_metadata(_torch(tmp_path)) == {}
    (tmp_path / "config.json").write_text('{"width": 5}')
    assert read_config(_torch(tmp_path)) == {"width": 5}
    assert read_config(_safetensors(tmp_path)) == {"width": 3}
    for text, message in (("{", "not valid JSON"), ("[3]", "must be a JSON object")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_config(_torch(tmp_path))


def test_header_longer_than_the_file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 10**6) + json.dumps({"a": 1}).encode())
    with pytest.raises(ValueError, match="header alone needs 1,000,008"):
        read_weights(path)


def test_weights_that_do_not_fit_are_listed_a_few_at_a_time():
    def build():
        return torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))

    weights = build().state_dict()
    module = assemble(build, weights, "it", "file")
    assert module[0].weight.data_ptr() == weights["0.weight"].data_ptr()
    assert not module.training
    broken = {key: tensor for key, tensor in weights.items() if not key.endswith("bias")}
    broken |= {"0.weight": torch.zeros(3, 2), "extra": torch.zeros(1)}
    message = (
        r"file does not fit it: 4 missing \(0\.bias, 1\.bias, 2\.bias, \.\.\.\); 1 not expected \(extra\); "
        r"1 of another shape \(0\.weight \(3, 2\) instead of \(2, 2\)\)\."
    )
    with pytest.raises(ValueError, match=message):
        assemble(build, broken, "it", "file")
