"""Training loop of both models: pace, optimisers, moving average, checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import torch
from torch import Tensor, nn

EMA = 0.998
WEIGHT_DECAY = 0.1
MUON_FACTOR = 2.0
LOG_EVERY = 50
CHECKPOINT_SECONDS = 180.0


@dataclass
class Pace:
    """Progress of a run, from 0 to 1: by samples (reproducible) or by minutes (a time budget).

    The learning rate and all else that changes over a run follow ``progress``, so that a run with a
    budget of minutes completes its schedule on a slow machine as on a fast one.
    """

    samples: int | None = None
    minutes: float | None = None
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """Completed share of the run."""
        if self.samples is not None:
            return min(1.0, self.done / self.samples)
        if self.minutes is None:
            raise ValueError("a pace needs either samples or minutes")
        return min(1.0, self.elapsed / (60 * self.minutes))


@dataclass
class TrainingReport:
    """Figures of a run, for the model card."""

    samples: int
    steps: int
    seconds: float
    parameters: int
    batch: int
    rate: float
    seed: int
    threads: int


Step = Callable[[float], Tensor]


def learning_rate(progress: float, peak: float, warmup: float = 0.03) -> float:
    """Return a linear warm-up followed by a cosine to a hundredth of the peak."""
    if progress < warmup:
        return peak * max(progress / warmup, 0.01)
    share = (progress - warmup) / (1 - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def fit(
    model: nn.Module,
    extra: list[Tensor],
    step: Step,
    pace: Pace,
    *,
    batch: int,
    rate: float,
    scalar_rate: float,
    seed: int,
    checkpoint: Path,
    after: Callable[[], None],
    further: bool,
) -> None:
    """Train ``model``; store the moving average of its weights and a report.

    Args:
        model: the model; its parameters with a single element are the logit scale and bias, which
            learn ``scalar_rate`` times faster and without weight decay.
        extra: further tensors that are trained with it and then discarded.
        step: function from progress to the loss of a new batch.
        pace: length of the run.
        batch: number of samples per step.
        rate: peak learning rate.
        scalar_rate: factor on the learning rate of the logit scale and bias.
        seed: seed, for the report.
        checkpoint: file for the moving average, written every few minutes; the report is written
            beside it.
        after: function called after each update (to clamp the logit scale).
        further: whether the run continues an earlier one; the report is then added to its report.
    """
    optimisers = _optimisers(model, extra, rate, scalar_rate)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    updates = 0
    losses: list[float] = []
    saved = time.monotonic()
    while pace.progress < 1:
        progress = pace.progress
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(progress, rate) * group["factor"]
            optimiser.zero_grad(set_to_none=True)
        loss = step(progress)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        after()
        updates += 1
        pace.done += batch
        _update_average(average, model, min(EMA, (1 + updates) / (10 + updates)))
        losses.append(float(loss.detach()))
        if updates % LOG_EVERY == 0:
            mean = sum(losses[-LOG_EVERY:]) / LOG_EVERY
            speed = pace.done / pace.elapsed
            scalars = " ".join(f"{name} {value:.3f}" for name, value in _scalars(model))
            click.echo(
                f"{progress:6.1%} step {updates} samples {pace.done} loss {mean:.4f} "
                f"{speed:.0f}/s {scalars}"
            )
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(average, checkpoint)
            saved = time.monotonic()
    _save(average, checkpoint)
    report = TrainingReport(
        samples=pace.done,
        steps=updates,
        seconds=round(pace.elapsed, 1),
        parameters=sum(value.numel() for value in model.parameters()),
        batch=batch,
        rate=rate,
        seed=seed,
        threads=torch.get_num_threads(),
    )
    path = checkpoint.with_suffix(".json")
    runs = json.loads(path.read_text(encoding="utf-8")) if further else []
    path.write_text(json.dumps([*runs, asdict(report)], indent=1), encoding="utf-8")


def _optimisers(
    model: nn.Module, extra: list[Tensor], rate: float, scalar_rate: float
) -> list[torch.optim.Optimizer]:
    """Return AdamW for all but the matrices of the towers, and Muon for those.

    Muon makes each update of a matrix nearly orthogonal. With a budget of half an hour it reaches
    the loss that AdamW reaches with about twice the samples.
    """
    matrices, tables, vectors, scalars = [], [], [], []
    for name, parameter in model.named_parameters():
        if parameter.numel() == 1:
            scalars.append(parameter)
        elif parameter.ndim == 2 and "embedding" not in name:
            matrices.append(parameter)
        elif parameter.ndim >= 2:
            tables.append(parameter)
        else:
            vectors.append(parameter)
    groups = [
        {"params": tables, "weight_decay": WEIGHT_DECAY, "factor": 1.0},
        {"params": [*vectors, *extra], "weight_decay": 0.0, "factor": 1.0},
        {"params": scalars, "weight_decay": 0.0, "factor": scalar_rate},
    ]
    return [
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6, fused=True),
        torch.optim.Muon(
            [{"params": matrices, "factor": MUON_FACTOR}],
            lr=rate,
            weight_decay=WEIGHT_DECAY,
            adjust_lr_fn="match_rms_adamw",
        ),
    ]


@torch.no_grad()
def _update_average(average: dict[str, Tensor], model: nn.Module, keep: float) -> None:
    own = model.state_dict()
    names = [name for name, value in average.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in names], [own[name] for name in names], 1 - keep)


def _scalars(model: nn.Module) -> Iterator[tuple[str, float]]:
    for name, parameter in model.named_parameters():
        if parameter.numel() == 1:
            yield name, float(parameter.detach())


def _save(average: dict[str, Tensor], path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(average, part)
    part.replace(path)
