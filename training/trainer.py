"""The training loop, on accelerate: one process or many, resumable to the bit."""

from __future__ import annotations

import logging
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..runtime import Runtime, current
from .checkpoints import AVERAGE, STATE, check_same, chosen, disk_full, finish, partial_folder, read_record, step_of
from .optimisation import MovingAverage, adamw, schedule, trained
from .samples import Mixed, Numbers, Samples, batches, torch_generator
from .settings import Loop
from .system import Rows, TrainingSystem

if TYPE_CHECKING:
    from accelerate import Accelerator

MANY_SKIPPED = 50  # steps in a row without finite gradients: nothing will come of it
Validate = Callable[[Mapping[str, torch.Tensor], int], dict[str, float]]


def make_accelerator(loop: Loop) -> Accelerator:
    """accelerate's helper for this run; ImportError naming the extra when it is missing."""
    try:
        from accelerate import Accelerator, InitProcessGroupKwargs
    except ImportError:
        raise ImportError(
            'Training needs accelerate: install the extra "train", `pip install "comfyui-choreo[train]"`, '
            "or `pip install -r requirements-train.txt` in the repository."
        ) from None
    from datetime import timedelta

    logging.getLogger("accelerate").setLevel(logging.WARNING)  # it names every file of every checkpoint
    device = current().device
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    precision = loop.mixed_precision
    if precision is None and device.type == "cuda":
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision or "no",
        gradient_accumulation_steps=loop.accumulate,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=6))],  # others wait while one validates
    )


def runtime_of(accelerator: Accelerator) -> Runtime:
    """The runtime of a process: where accelerate put it; only the main process shows its progress."""
    runtime = current() if accelerator.is_main_process else Runtime(dtype=current().dtype)
    runtime.device = accelerator.device
    return runtime


class Trainer:
    """One run of a system over samples.

    settings: everything that the run was asked for, plain values; a checkpoint of other ones is refused.
    validate: validate(weights, step) -> numbers for the log; called in the main process.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        system: TrainingSystem,
        samples: Samples | Mixed,
        loop: Loop,
        *,
        settings: Mapping[str, Any],
        validate: Validate | None = None,
    ) -> None:
        self.accelerator, self.system, self.samples, self.loop = accelerator, system, samples, loop
        self.validate = validate
        per_step = loop.batch * loop.accumulate * accelerator.num_processes
        self.settings = {**settings, "samples_per_step": per_step}
        engine = accelerator.state.deepspeed_plugin
        if engine is not None:  # which otherwise reads the batch off a data loader
            engine.deepspeed_config["train_micro_batch_size_per_gpu"] = loop.batch
        groups = system.parameter_groups()
        self.average = self._moving_average() if loop.ema else None
        optimizer = adamw(groups, weight_decay=loop.weight_decay, eight_bit=loop.eight_bit_adam)
        plan = schedule(optimizer, loop.schedule, loop.warmup, loop.steps)
        self.module, self.optimizer, self.plan = accelerator.prepare(system.module, optimizer, plan)
        self.parameters = trained(self.optimizer.param_groups)
        self.step = self.skipped = self.skipped_in_a_row = 0
        self.stopped = False

    def _moving_average(self) -> MovingAverage:
        kind = self.accelerator.distributed_type.name
        if kind in ("FSDP", "DEEPSPEED"):
            raise ValueError(f"--ema needs whole weights in every process, which {kind} does not keep; leave it out.")
        self.system.module.to(self.accelerator.device)
        return MovingAverage(
            {name: p for name, p in self.system.module.named_parameters() if p.requires_grad}, self.loop.ema
        )

    def run(self) -> None:
        """Train up to the last step, from the checkpoint that the settings choose."""
        with _Interruption(self):
            self._resume()
            log = _Log(self.loop, self.step) if self.accelerator.is_main_process else None
            try:
                self._loop(log)
            finally:
                if log is not None:
                    log.close()

    def _loop(self, log: _Log | None) -> None:
        loop, accelerator = self.loop, self.accelerator
        numbers = Numbers(
            self.step * loop.accumulate,
            loop.steps * loop.accumulate,
            loop.batch,
            accelerator.process_index,
            accelerator.num_processes,
        )
        incoming = batches(self.samples, numbers, loop.workers)
        current().progress("training", self.step, loop.steps)
        saved, since_log = self.step, []
        while self.step < loop.steps:
            since_log.append(self._step(incoming))
            self.step += 1
            current().progress("training", self.step, loop.steps)
            if self.step % loop.log_every == 0 or self.step == loop.steps:
                means = self._means(since_log)
                since_log = []
                if log is not None:
                    log.write(self.step, means, self.settings["samples_per_step"])
            stop = self._stop_asked() and self.step < loop.steps
            if self.step % loop.checkpoint_every == 0 or self.step == loop.steps or stop:
                self._save()
                saved = self.step
            if loop.validate_every and self.step % loop.validate_every == 0 and not stop:
                self._validate(log)
            if stop:
                logging.info("Stopped after step %d; the same command goes on from there.", saved)
                raise KeyboardInterrupt

    def _step(self, incoming: Iterator[Rows]) -> dict[str, torch.Tensor]:
        """One optimiser step; returns its losses and the norm of its gradients."""
        accelerator, total = self.accelerator, {}
        for _ in range(self.loop.accumulate):
            batch = next(incoming)
            with accelerator.accumulate(self.module):
                loss, logs = self._loss(batch)
                accelerator.backward(loss)
                for name, value in ({"loss": loss} | logs).items():
                    total[name] = total.get(name, 0) + value.detach().float() / self.loop.accumulate
                if accelerator.sync_gradients:
                    total["gradient norm"] = torch.tensor(self._update(), device=accelerator.device)
        return total

    def _loss(self, batch: Rows) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        generators = [torch_generator(self.loop.seed, int(number)) for number in batch["number"]]
        if "pictures" in batch:
            names = [name for name in batch if name != "number"]
            samples = ({name: batch[name][b] for name in names} for b in range(len(generators)))
            encoded = [self.system.encode_sample(s, g) for s, g in zip(samples, generators, strict=True)]
            stacked = {name: torch.stack([each[name] for each in encoded]) for name in encoded[0]}
            batch = stacked | {"number": batch["number"]}
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
        return self.system.loss(self.module, batch, generators)

    def _update(self) -> float:
        """Clip, step and forget the gradients; a step whose gradients are not finite changes nothing."""
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.loop.clip_gradients)
        norm = float("nan") if norm is None else float(norm)
        scaled = self.accelerator.scaler is not None  # then the scaler skips such steps, and lowers its scale
        sharded = self.accelerator.distributed_type.name == "DEEPSPEED"  # then the engine does
        if math.isfinite(norm) or scaled or sharded:
            self.optimizer.step()
        self.plan.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not (math.isfinite(norm) or sharded):
            self._note_skipped()
        else:
            self.skipped_in_a_row = 0
            if self.average is not None:
                self.average.update(self.step + 1)
        return norm

    def _note_skipped(self) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.accelerator.is_main_process:
            logging.warning("Step %d is skipped: its gradients are not finite.", self.step + 1)
        if self.skipped_in_a_row >= MANY_SKIPPED:
            raise FloatingPointError(
                f"The gradients of the last {MANY_SKIPPED} steps, up to step {self.step + 1}, were not finite. Lower "
                "--lr, use --mixed-precision no, or go on from an earlier checkpoint with --resume."
            )

    def _means(self, steps: list[dict[str, torch.Tensor]]) -> dict[str, float]:
        """Means over steps and processes of what is finite, and the learning rates of the last step."""
        table = torch.stack([torch.stack(list(numbers.values())) for numbers in steps])
        table = self.accelerator.reduce(table, "mean")
        table = torch.where(table.isfinite(), table, torch.nan).nanmean(dim=0).tolist()
        rates = zip(self.optimizer.param_groups, self.plan.get_last_lr(), strict=True)
        return {
            **dict(zip(steps[0], table, strict=True)),
            **{f"lr {group['name']}": rate for group, rate in rates},
            "skipped steps": float(self.skipped),
        }

    def _stop_asked(self) -> bool:
        if self.accelerator.num_processes == 1:
            return self.stopped
        asked = torch.tensor(float(self.stopped), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)

    def _weights(self) -> dict[str, torch.Tensor]:
        """The state dict to validate and export, the moving average where there is one; every process calls this."""
        weights = self.accelerator.get_state_dict(self.module)
        return self.average.over(weights) if self.average is not None else weights

    def _save(self) -> None:
        """A checkpoint folder; it appears whole or not at all."""
        target = self.loop.output / f"checkpoint-{self.step}"
        accelerator, main = self.accelerator, self.accelerator.is_main_process
        partial = target.with_name(f".{target.name}.partial")
        try:
            if main:
                partial_folder(target)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(partial / STATE))
            weights = self._weights()
            if main:
                self.system.export(partial, weights)
                if self.average is not None:
                    self.average.save(partial / AVERAGE)
            accelerator.wait_for_everyone()
            if main:
                record = {"step": self.step, "skipped": self.skipped, "settings": self.settings}
                finish(partial, target, record, self.loop.keep)
            accelerator.wait_for_everyone()
        except Exception as error:
            if main:
                shutil.rmtree(partial, ignore_errors=True)
            full = disk_full(error, self.loop.output)
            raise (full or error) from (None if full else error.__cause__)

    def _resume(self) -> None:
        checkpoint = chosen(self.loop.resume, self.loop.output)
        if checkpoint is None:
            return
        check_same(checkpoint, self.settings)
        self.accelerator.load_state(str(checkpoint / STATE))
        if self.average is not None:
            self.average.load(checkpoint / AVERAGE)
        self.step, self.skipped = step_of(checkpoint), read_record(checkpoint)["skipped"]
        if self.accelerator.is_main_process:
            logging.info("Going on from %s.", checkpoint)

    def _validate(self, log: _Log | None) -> None:
        weights = self._weights()
        if log is not None and self.validate is not None:
            copy = {name: tensor.detach().cpu() for name, tensor in weights.items()}
            log.write(self.step, self.validate(copy, self.step))
        self.accelerator.wait_for_everyone()


class _Interruption:
    """Ctrl-C and SIGTERM end the run after the step, with a checkpoint; a second one ends it at once."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        try:
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever runs it there stops it
            self.before = {}

    def _note(self, *_: Any) -> None:
        self.trainer.stopped = True
        self.__exit__()

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class _Log:
    """Numbers of the run: TensorBoard files, and a line on the terminal."""

    def __init__(self, loop: Loop, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError(
                'Training logs need tensorboard: install the extra "train", `pip install "comfyui-choreo[train]"`, '
                "or `pip install -r requirements-train.txt` in the repository."
            ) from None
        self.writer = SummaryWriter(str(Path(loop.output) / "logs"), purge_step=step + 1 if step else None)
        self.since, self.last = time.perf_counter(), step

    def write(self, step: int, numbers: Mapping[str, float], samples_per_step: int = 0) -> None:
        """Numbers of a step; with samples_per_step also how many samples a second there were since the last line."""
        numbers, now = dict(numbers), time.perf_counter()
        if samples_per_step:
            numbers["samples per second"] = (step - self.last) * samples_per_step / (now - self.since)
        self.since, self.last = now, step
        for name, value in numbers.items():
            self.writer.add_scalar(name.replace(" ", "_"), value, step)
        self.writer.flush()
        logging.info("step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()
