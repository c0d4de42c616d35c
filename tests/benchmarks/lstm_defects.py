"""An LSTM whose backward pass is wrong now and then, and what training makes of it.

After what was reported of Apple's MPS in PyTorch 1.13 to 2.0; each fault is put into the gradient
that the LSTM hands on to the attention and the CNN.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lus_cli.model.lstm import VideoLSTM
from lus_cli.training.sampling import epoch_order
from lus_cli.training.tally import Tally
from lus_cli.training.trainer import Trainer
from tests.benchmarks.stability_runs import NoiseVideos, Run, finite_weights, new_trainer


def vanished(gradient: Tensor, _seed: int) -> Tensor:
    """What the report suspected: values so close to zero that float32 rounds most of them to zero."""
    return gradient * 1e-38


def transposed(gradient: Tensor, _seed: int) -> Tensor:
    """Videos and time mixed up, as with batch_first (pytorch/pytorch #95137)."""
    return gradient.transpose(0, 1).reshape(gradient.shape)


def not_a_number(gradient: Tensor, _seed: int) -> Tensor:
    """A step of time is NaN (pytorch/pytorch #94691 reports NaN of GRU and LSTM)."""
    return with_step(gradient, torch.full_like(gradient[0, 0], math.nan))


def unwritten(gradient: Tensor, seed: int) -> Tensor:
    """A step of time was never written, so it holds whatever bits were there."""
    random = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, gradient[0, 0].shape, generator=random)
    return with_step(gradient, bits.to(torch.int32).view(torch.float32).to(gradient.device))


def huge(gradient: Tensor, _seed: int) -> Tensor:
    """The same, where the bits happen to be finite numbers."""
    return with_step(gradient, torch.full_like(gradient[0, 0], 1e37))


def with_step(gradient: Tensor, values: Tensor) -> Tensor:
    """(video, time, channel) with the first video's last step replaced."""
    gradient = gradient.clone()
    gradient[0, -1] = values
    return gradient


FAULTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "none": lambda gradient, _seed: gradient,
    "vanished": vanished,
    "transposed": transposed,
    "not a number": not_a_number,
    "unwritten": unwritten,
    "huge": huge,
}


@dataclass(frozen=True)
class Case:
    """A fault in one of every `every` steps, of `steps` steps."""

    fault: str
    batch_size: int
    steps: int = 20
    every: int = 4


CASES = [
    *(Case(fault, size) for fault in FAULTS for size in (1, 2, 4, 8)),
    *(Case(fault, 4, steps=100, every=1) for fault in ("vanished", "transposed")),
]


class Spoil(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, fault: str, seed: int) -> Tensor:
        ctx.fault, ctx.seed = fault, seed
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return FAULTS[ctx.fault](gradient, ctx.seed), None, None


class FaultyLSTM(VideoLSTM):
    """A sound LSTM forward; backward with `fault`."""

    fault, seed = "none", 0

    def forward(self, vectors: Tensor, steps: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(Spoil.apply(vectors, self.fault, self.seed), steps)


def faulty(lstm: VideoLSTM) -> FaultyLSTM:
    made = FaultyLSTM(lstm.input_size, lstm.hidden_size).to(lstm.weight_ih_l0.device)
    for name, parameter in lstm.named_parameters():
        setattr(made, name, parameter)  # the same objects that the optimizer has
    return made


def outcome(case: Case, device: torch.device) -> dict[str, Any]:
    """The same steps on noise twice: checked by `Trainer`, and taken whatever they are."""
    run = Run(padding="packed", batch_size=case.batch_size, videos=8, frames=8)
    events: list[dict[str, Any]] = []
    found: dict[str, Any] = dataclasses.asdict(case)
    for check in (True, False):
        trainer = new_trainer(run, NoiseVideos(run), device, events)
        found |= stepped(trainer, case, check)
        how = "checked" if check else "unchecked"
        found[f"weights_finite_{how}"] = finite_weights(trainer.model)
    found["named"] = Counter(f"{e['module']} ({e['direction']})" for e in events)
    return found


def stepped(trainer: Trainer, case: Case, check: bool) -> dict[str, Any]:
    """The steps of a case.

    With `check` by `Trainer`: how many were not taken. Without, as the report trained: after which
    step the weights are not finite any more, if ever.
    """
    lstm = trainer.model.heads[0].lstm = faulty(trainer.model.heads[0].lstm)
    trainer.train_mode()
    not_taken, spoiled = 0, None
    for number, group in enumerate(itertools.islice(groups_of(trainer), case.steps), start=1):
        lstm.fault = case.fault if number % case.every == 0 else "none"
        lstm.seed = number  # so that tracing a step meets the same fault again
        batch = trainer.loader.load(group).to(trainer.device)
        if check:
            tally = Tally()
            trainer.step(batch, group, 1, tally)
            not_taken += tally.skipped > 0
            continue
        trainer.optimizer.zero_grad()
        trainer.losses(batch, group)[0].backward()
        trainer.optimizer.step()
        if not finite_weights(trainer.model):
            spoiled = number
            break
    return {"not_taken": not_taken} if check else {"spoiled_at_step": spoiled}


def groups_of(trainer: Trainer) -> Iterator[list[int]]:
    scores = trainer.loader.videos.scores
    for epoch in itertools.count(1):
        yield from epoch_order(trainer.indices, scores, trainer.recipe, epoch)


def lines_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown, a line a fault."""
    lines = [
        "| fault of the LSTM's gradient | struck | batches of | unchecked: weights not finite after "
        "step | checked: steps not taken | named |",
        "|" + "---|" * 6,
    ]
    kinds = dict.fromkeys((row["fault"], row["steps"], row["every"]) for row in rows)
    for fault, steps, every in kinds:
        mine = [r for r in rows if (r["fault"], r["steps"], r["every"]) == (fault, steps, every)]
        spoiled, not_taken, sizes = (
            ", ".join(str(row[name] if row[name] is not None else "never") for row in mine)
            for name in ("spoiled_at_step", "not_taken", "batch_size")
        )
        named = ", ".join(sorted({place for row in mine for place in row["named"]})) or "-"
        struck = f"{steps // every} of {steps}" if fault != "none" else f"0 of {steps}"
        cells = (fault, struck, sizes, spoiled, not_taken, named)
        lines.append("| " + " | ".join(cells) + " |")
    return lines
