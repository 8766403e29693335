"""The loop that the small networks of the tiny set share: Adam, one cycle, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

SAVE_EVERY = 60.0  # seconds
Loss = Callable[[int], tuple[torch.Tensor, dict[str, float]]]


def fit(network: nn.Module, loss: Loss, steps: int, rate: float, path: Path) -> nn.Module:
    """Minimise `loss(step)` over the parameters of `network`; returns it in evaluation mode.

    loss:   gives the scalar to minimise and numbers to show; what it draws at random must follow from `step` alone.
    rate:   peak learning rate of one cosine cycle with a short warm-up.
    path:   the state goes to this file about once a minute; a second call with the same file goes on from it.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.05)
    start = 0
    if path.is_file():
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        start = state["step"]
    network.train()
    saved, shown = time.monotonic(), {}
    with tqdm(total=steps, initial=start, desc=path.stem, mininterval=5) as bar:
        for step in range(start, steps):
            value, numbers = loss(step)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            for key, number in numbers.items():
                shown[key] = 0.98 * shown.get(key, number) + 0.02 * number
            bar.set_postfix({key: f"{number:.4f}" for key, number in shown.items()}, refresh=False)
            bar.update()
            if step + 1 == steps or time.monotonic() - saved > SAVE_EVERY:
                _save(path, network, optimizer, schedule, step + 1)
                saved = time.monotonic()
    return network.eval()


def _save(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, schedule: object, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    temporary = path.with_suffix(".tmp")
    torch.save(state | {"schedule": schedule.state_dict()}, temporary)
    temporary.replace(path)
