"""How a puppet moves: every joint angle is a seeded wave over the frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("walk", "wave", "dance", "turn", "cross", "leave", "squat")
# Angles in degrees. An arm's (leg's) first angle spreads it sideways from hanging down, `swing` moves it forward, and
# `elbow` (`knee`) adds to the same two for the second half of the limb.
CHANNELS = (
    *("x", "jump", "scale", "yaw", "lean", "tilt", "fingers"),
    *("left_arm", "left_swing", "left_elbow", "left_elbow_swing"),
    *("right_arm", "right_swing", "right_elbow", "right_elbow_swing"),
    *("left_leg", "left_leg_swing", "left_knee", "right_leg", "right_leg_swing", "right_knee"),
)
_INDEX = {name: i for i, name in enumerate(CHANNELS)}


@dataclass(frozen=True, eq=False)
class Motion:
    """Waves: value(t) = base + amplitude * sin(2 pi (frequency * t + phase)), one row a channel, t in frames."""

    kind: str
    base: np.ndarray
    amplitude: np.ndarray
    frequency: np.ndarray
    phase: np.ndarray

    def at(self, t: float) -> dict[str, float]:
        """The value of every channel at frame `t`."""
        values = self.base + self.amplitude * np.sin(2 * np.pi * (self.frequency * t + self.phase))
        return dict(zip(CHANNELS, values.tolist(), strict=True))


def draw_motion(rng: np.random.Generator, kind: str | None = None) -> Motion:
    """A random motion; `kind` is one of KINDS, None draws it too."""
    kind = str(rng.choice(KINDS)) if kind is None else kind
    n = len(CHANNELS)
    wave = _Waves(rng, np.zeros(n), np.zeros(n), np.full(n, rng.uniform(0.03, 0.055)), rng.random(n))
    wave.idle()
    getattr(wave, kind)()
    return Motion(kind, wave.base, wave.amplitude, wave.frequency, wave.phase)


@dataclass
class _Waves:
    rng: np.random.Generator
    base: np.ndarray
    amplitude: np.ndarray
    frequency: np.ndarray
    phase: np.ndarray

    def set(
        self, name: str, base: float, amplitude: float = 0.0, speed: float | None = None, phase: float | None = None
    ) -> None:
        i = _INDEX[name]
        self.base[i], self.amplitude[i] = base, amplitude
        if speed is not None:
            self.frequency[i] *= speed
        if phase is not None:
            self.phase[i] = phase

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def side(self) -> tuple[str, str]:
        return ("left", "right") if self.rng.random() < 0.5 else ("right", "left")

    def idle(self) -> None:
        """What all motions share: a stand, a place, a slight turn."""
        self.set("x", self.between(-0.16, 0.16), self.between(0.03, 0.1), 0.7)
        self.set("scale", self.between(0.92, 1.04), self.between(0, 0.05), 0.5)
        self.set("yaw", self.between(-25, 25), self.between(0, 15), 0.6)
        self.set("lean", self.between(-4, 4), self.between(0, 5))
        self.set("tilt", 0, self.between(0, 8))
        self.set("fingers", self.between(0.3, 0.8), 0.2)
        for side in ("left", "right"):
            self.set(f"{side}_arm", self.between(8, 40), self.between(0, 12))
            self.set(f"{side}_elbow", self.between(-10, 25), self.between(0, 15))
            self.set(f"{side}_leg", self.between(3, 12), self.between(0, 3))

    def walk(self) -> None:
        direction = 1 if self.rng.random() < 0.5 else -1
        self.set("x", 0, self.between(0.2, 0.32), 0.5)
        self.set("yaw", direction * self.between(30, 70), 8)
        step, phase = self.between(22, 36), self.between(0, 1)
        for side, offset in (("left", 0.0), ("right", 0.5)):
            self.set(f"{side}_leg", 3)
            self.set(f"{side}_leg_swing", 0, step, 1.6, phase + offset)
            self.set(f"{side}_knee", 20, 20, 1.6, phase + offset + 0.3)
            self.set(f"{side}_arm", 10)
            self.set(f"{side}_swing", 0, step, 1.6, phase + offset + 0.5)
            self.set(f"{side}_elbow_swing", 25, 10, 1.6, phase + offset + 0.5)

    def wave(self) -> None:
        side, _ = self.side()
        self.set(f"{side}_arm", self.between(95, 140), self.between(5, 15))
        self.set(f"{side}_elbow", self.between(20, 50), self.between(30, 45), 2.0)
        self.set("fingers", 0.9, 0.1)

    def dance(self) -> None:
        self.set("x", 0, self.between(0.08, 0.2))
        self.set("jump", 0.02, 0.03, 2.0)
        self.set("lean", 0, self.between(5, 14))
        for side in ("left", "right"):
            self.set(f"{side}_arm", self.between(50, 110), self.between(30, 60))
            self.set(f"{side}_elbow", self.between(-20, 60), self.between(20, 60), 1.5)
            self.set(f"{side}_leg", self.between(8, 18), self.between(4, 10))
            self.set(f"{side}_knee", 15, 15, 2.0)

    def turn(self) -> None:
        self.set("yaw", 0, self.between(45, 75), 1.2)
        for side in ("left", "right"):
            self.set(f"{side}_arm", self.between(20, 80), self.between(5, 25))

    def cross(self) -> None:
        """Arms in front of the body, now and then over each other."""
        self.set("yaw", self.between(-12, 12))
        for side in ("left", "right"):
            self.set(f"{side}_arm", self.between(10, 35), self.between(5, 15))
            self.set(f"{side}_swing", self.between(15, 30))
            self.set(f"{side}_elbow", self.between(-115, -70), self.between(20, 45), 1.3)

    def leave(self) -> None:
        """Walks out at one side and comes back."""
        self.walk()
        direction = 1 if self.rng.random() < 0.5 else -1
        self.set("x", direction * self.between(0.25, 0.35), self.between(0.2, 0.3), 1.0)

    def squat(self) -> None:
        phase = self.between(0, 1)
        for side in ("left", "right"):
            self.set(f"{side}_leg", self.between(10, 20), 10, 1.0, phase)
            self.set(f"{side}_leg_swing", 30, 28, 1.0, phase)
            self.set(f"{side}_knee", 55, 50, 1.0, phase)
            self.set(f"{side}_arm", self.between(30, 100), 30, 1.0, phase)
