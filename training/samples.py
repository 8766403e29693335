"""Training samples by number: sample n is the same in every process, with any batch size, and after a resume."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..datasets.clips import ClipSource
from .latent_cache import LatentCache
from .system import Layout, Rows

ENDLESS = 1_000_000  # more videos than this are drawn at random instead of shuffled
TRIES = 20
CHOICES, TENSORS = 1, 2  # streams of random numbers of a sample


def numpy_generator(seed: int, number: int) -> np.random.Generator:
    """The generator for the choices of sample `number`: clip, start, reference."""
    return np.random.default_rng([seed, CHOICES, number])


def torch_generator(seed: int, number: int) -> torch.Generator:
    """The CPU generator for the noise of sample `number`."""
    state = np.random.SeedSequence([seed, TENSORS, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class Samples(Dataset):
    """Sample n of a data set: every clip once per epoch, in an order of the seed.

    frames: frames to read of a clip, at least those of a sample; None is just those. clips: use only the first so many
    videos; None all. cache: encoded clips, complete (see `LatentCache.fill`).
    """

    def __init__(
        self,
        source: ClipSource,
        layout: Layout,
        size: tuple[int, int],
        *,
        seed: int = 0,
        frames: int | None = None,
        clips: int | None = None,
        cache: LatentCache | None = None,
    ) -> None:
        self.source, self.layout, self.size, self.seed, self.cache = source, layout, size, seed, cache
        self.frames = max(frames or 0, layout.clip_frames)
        self.indices = cache.indices() if cache else range(min(clips or len(source), len(source)))
        if not len(self.indices):
            raise ValueError("The data set holds no clip that can be used.")
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.indices))

    def place(self, number: int) -> int:
        """The place in `indices` of sample `number`."""
        if len(self.indices) > ENDLESS:
            return int(np.random.default_rng([self.seed, number]).integers(len(self.indices)))
        epoch, place = divmod(number, len(self.indices))
        return int(self._order(epoch)[place])

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_order"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, number: int) -> Rows:
        """Sample `number`, raw or encoded, with its `number`."""
        rng = numpy_generator(self.seed, number)
        return self.layout.take(self._rows(number, rng), rng) | {"number": torch.tensor(number)}

    def _rows(self, number: int, rng: np.random.Generator) -> Rows:
        place = self.place(number)
        if self.cache is not None:
            return self.cache.read(self.indices[place])
        seed = int(rng.integers(2**31))
        for attempt in range(TRIES):
            index = self.indices[(place + attempt) % len(self.indices)]
            try:
                return self.layout.rows(self.source.clip(index, self.frames, self.size, seed))
            except ValueError as error:
                refused = error
                logging.warning("Clip %d is left out: %s", index, error)
        raise ValueError(f"{TRIES} clips one after another cannot be used; the last one: {refused}")


class Mixed(Dataset):
    """Samples of several data sets, which may differ in size: those of one optimiser step come from one of them.

    parts: none of them endless. per_step: samples of a step. In an epoch every part gives each of its clips once, its
    steps scattered at random; the last step of a part in an epoch is filled up with clips of its next one.
    """

    def __init__(self, parts: Sequence[Samples], per_step: int, seed: int = 0) -> None:
        self.parts, self.per_step, self.seed = parts, per_step, seed
        self.steps = [math.ceil(len(part.indices) / per_step) for part in parts]

    def place(self, number: int) -> tuple[int, int]:
        """(part, number of the sample in that part) of sample `number`."""
        step, row = divmod(number, self.per_step)
        epoch, step = divmod(step, sum(self.steps))
        owners = np.repeat(np.arange(len(self.parts)), self.steps)
        np.random.default_rng([self.seed, epoch]).shuffle(owners)
        part = int(owners[step])
        earlier = epoch * self.steps[part] + int((owners[:step] == part).sum())
        return part, earlier * self.per_step + row

    def __getitem__(self, number: int) -> Rows:
        """Sample `number`; see :class:`Samples`."""
        part, inner = self.place(number)
        return self.parts[part][inner] | {"number": torch.tensor(number)}


class Numbers(Sampler):
    """The numbers of the samples that one process sees, batch after batch.

    Batch m of all processes together holds the numbers m * processes * batch and following.
    """

    def __init__(self, first: int, last: int, batch: int, process: int, processes: int) -> None:
        self.batches, self.batch, self.process, self.processes = range(first, last), batch, process, processes

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for m in self.batches:
            start = (m * self.processes + self.process) * self.batch
            yield list(range(start, start + self.batch))


def batches(samples: Samples | Mixed, numbers: Numbers, workers: int = 0) -> Iterator[Rows]:
    """Batches of samples, read ahead by so many processes."""
    return iter(DataLoader(samples, batch_sampler=numbers, num_workers=workers, persistent_workers=workers > 0))
