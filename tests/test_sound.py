"""Sound read for others to use."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from choreo.media.sound import Sound, read_sound

from .make_media import impulses, make_video

BURSTS = (0.5, 1.25)


@pytest.mark.parametrize(("start", "length"), [(0.0, 2), (1.0, 1), (0.25, Fraction(3, 4))])
def test_samples_are_in_step_with_the_pictures(tmp_path, start, length):
    sound = impulses(2, BURSTS, 44100)
    path = make_video(tmp_path / "clip.mkv", fps=20, num_frames=40, sound=sound, sound_codec="flac", rate=44100)
    samples, rate = read_sound(Sound(path, start), length)
    assert rate == 44100
    assert samples.shape == (2, round(length * rate))
    loud = np.flatnonzero(np.abs(samples[0]) > 0.5) / rate
    for burst in BURSTS:
        is_inside = start <= burst < start + length
        assert (np.abs(loud - (burst - start)) < 0.005).any() == is_inside


def test_a_silent_file_has_no_sound(tmp_path):
    assert read_sound(Sound(make_video(tmp_path / "clip.mp4", num_frames=3)), 1) is None
