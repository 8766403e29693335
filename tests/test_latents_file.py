"""Latents that are kept: whole or not at all, and good for the same video."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch
from choreo.media.video import probe
from choreo.pipelines import latents_file
from choreo.pipelines.latents_file import (
    Kept,
    StepKeeper,
    VideoFacts,
    decode_to_video,
    load_latents,
    save_latents,
    write_video,
)
from choreo.runtime import Runtime, use
from safetensors.torch import save_file

from .small_networks import small_networks

FACTS = VideoFacts(12.5, decode_chunk=2, audio_path="a b.mp4", audio_start=1.25)
LATENTS = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def frames(number):
    return (np.full((32, 48, 3), 40 * index, np.uint8) for index in range(number))


def broken(number):
    yield from frames(number)
    raise KeyboardInterrupt


def test_what_is_saved_comes_back(tmp_path):
    save_latents(tmp_path / "new" / "a.safetensors", Kept(LATENTS, FACTS, 3, 7))
    kept = load_latents(tmp_path / "new" / "a.safetensors")
    assert torch.equal(kept.latents, LATENTS) and (kept.facts, kept.done, kept.steps) == (FACTS, 3, 7)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="There are no latents"):
        load_latents(path)
    save_file({"latents": LATENTS}, path)
    with pytest.raises(ValueError, match="does not hold latents"):
        load_latents(path)
    save_latents(path, Kept(LATENTS, FACTS, 3, 7))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        load_latents(path)


def test_a_run_goes_on_where_it_was_broken_off(tmp_path):
    keeper = StepKeeper(tmp_path / "a.safetensors", FACTS, 4)
    calls = []

    def sample(on_step, resume):
        calls.append(None if resume is None else resume[0])
        done, x = resume or (0, torch.zeros(2))
        for step in range(done, 4):
            if step == 2 and len(calls) == 1:
                raise KeyboardInterrupt
            x = 2 * x + 1
            on_step(step, x)
        return x

    with pytest.raises(KeyboardInterrupt):
        keeper.run(sample)
    assert keeper.run(sample).latents.tolist() == [15, 15] and calls == [None, 2]
    assert keeper.run(sample).latents.tolist() == [15, 15] and len(calls) == 2, "nothing is left to sample"
    keeper.drop()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_takes_the_safety_but_not_the_job(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise latents_file.SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(latents_file, "save_file", full)
    keeper = StepKeeper(tmp_path / "a.safetensors", FACTS, 2)
    keeper(0, LATENTS)
    keeper(1, LATENTS)
    assert len(caplog.records) == 1 and "No space left" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [True, False])
def test_a_video_that_is_broken_off(tmp_path, keep, caplog):
    (tmp_path / "a.mp4").write_bytes(b"an older video")
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", broken(4), (32, 48), VideoFacts(10, 1), keep_partial=keep)
    assert (tmp_path / "a.mp4").read_bytes() == b"an older video"
    left = [path for path in tmp_path.iterdir() if path.name != "a.mp4"]
    assert len(left) == keep
    if keep:
        assert probe(left[0]).num_frames == 4 and str(left[0]) in caplog.text


def test_a_full_disk_while_writing_is_explained(tmp_path, monkeypatch):
    class Full:
        def __init__(self, stream):
            self.stream = stream

        def encode(self, _picture):
            raise OSError(errno.ENOSPC, "No space left on device")

    enter = latents_file.VideoWriter.__enter__

    def without_space(writer):
        enter(writer)
        writer._stream = Full(writer._stream)
        return writer

    monkeypatch.setattr(latents_file.VideoWriter, "__enter__", without_space)
    with pytest.raises(OSError, match="The disk is full"):
        write_video(tmp_path / "a.mp4", frames(3), (32, 48), VideoFacts(10, 1))
    assert not (tmp_path / "a.mp4").exists()


def test_decoding_takes_the_vae_off_the_device_also_when_writing_fails(tmp_path, monkeypatch):
    _, parts = small_networks()
    left = []

    class Watching(Runtime):
        def free(self):
            left.append(True)

    def fail(*_, **__):
        raise OSError("nothing is written today")

    monkeypatch.setattr(latents_file.VideoWriter, "write", fail)
    facts = VideoFacts(10, decode_chunk=2, skip=1)
    with use(Watching("cpu", torch.float32)), pytest.raises(OSError, match="today") as caught:
        decode_to_video(parts, Kept(LATENTS, facts, 1, 1), tmp_path / "a.mp4")
    assert left and caught.value
