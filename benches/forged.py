"""Trainings of benches/tolerance.py, in a process of their own: honest ones, and ones that lie at every step.

All are signed and consistent: what a liar's receipts say is what his optimiser applied.
"""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tolerated
import torch

import counterfoil
from counterfoil.torch.demo import digits
from counterfoil.torch.tolerance import distances

Batch = tuple[torch.Tensor, torch.Tensor]
Gradient = dict[str, torch.Tensor]
BATCH = 32
"""Images of a step."""
DRIFT = 0.7
"""Share of what is accepted by which a drifting liar moves each tensor: honest noise must fit beside it."""


def batches(seed: int) -> Iterator[Batch]:
    """Images (BATCH, 8, 8) and labels (BATCH,), in random order and without end."""
    images, labels = digits().tensors
    draw = torch.Generator().manual_seed(seed)
    while True:
        for chosen in torch.randperm(len(labels), generator=draw).split(BATCH)[:-1]:
            yield images[chosen], labels[chosen]


def relabelled(batch: Batch, count: int) -> Batch:
    """With the labels of so many samples changed."""
    labels = batch[1].clone()
    labels[:count] = (labels[:count] + 1) % 10
    return batch[0], labels


DATA: dict[str, Callable[[Batch, Batch], Batch]] = {
    "one sample left out": lambda batch, _: (batch[0][:-1], batch[1][:-1]),
    "half of the samples left out": lambda batch, _: (batch[0][: BATCH // 2], batch[1][: BATCH // 2]),
    "another batch": lambda _, other: other,
    "one label changed": lambda batch, _: relabelled(batch, 1),
    "half of the labels changed": lambda batch, _: relabelled(batch, BATCH // 2),
    "first part twice, second left out": lambda batch, _: tuple(  # type: ignore[dict-item, return-value]
        torch.cat([each[: BATCH // 2]] * 2) for each in batch
    ),
}
"""What is computed instead of a batch, of the batch and the next one."""


def scaled(factor: float, gradient: Gradient, _: Gradient) -> None:
    """All of it."""
    for value in gradient.values():
        value.mul_(factor)


def noisy(size: float, gradient: Gradient, _: Gradient) -> None:
    """Gaussian noise with so large a share of the whole norm."""
    draw = torch.Generator().manual_seed(int(1 / size))
    noise = {name: torch.randn(value.shape, generator=draw) for name, value in gradient.items()}
    share = size * norm(gradient) / norm(noise)
    for name, value in gradient.items():
        value.add_(noise[name], alpha=share)


def norm(gradient: Gradient) -> float:
    """Of all tensors together."""
    return float(torch.stack([value.double().square().sum() for value in gradient.values()]).sum().sqrt())


def coarsened(dtype: torch.dtype, gradient: Gradient, _: Gradient) -> None:
    """Every number rounded."""
    for value in gradient.values():
        value.copy_(value.to(dtype))


def stale(gradient: Gradient, before: Gradient) -> None:
    """That of the step before."""
    for name, value in gradient.items():
        value.copy_(before.get(name, value))


def frozen(gradient: Gradient, _: Gradient) -> None:
    """No gradient in the first layer that has weights and bias."""
    for value in list(gradient.values())[:2]:
        value.zero_()


def flipped(gradient: Gradient, _: Gradient) -> None:
    """The last bias learns the contrary."""
    list(gradient.values())[-1].neg_()


NOISE = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SCALES = (1.0001, 1.001, 1.01, 1.1, 1.5)
APPLIED: dict[str, Callable[[Gradient, Gradient], None]] = {
    **{f"noise of {size:.0e}": functools.partial(noisy, size) for size in NOISE},
    **{f"scaled by {factor:g}": functools.partial(scaled, factor) for factor in SCALES},
    "rounded to bfloat16": functools.partial(coarsened, torch.bfloat16),
    "rounded to float16": functools.partial(coarsened, torch.float16),
    "that of the step before": stale,
    "zero in the first layer": frozen,
    "sign of the last bias changed": flipped,
}
"""What is done to the gradient before it is applied, given also the one before."""
COARSE, WITHOUT_DROPOUT = "computed under bfloat16 autocast", "dropout left out"
SETTINGS: dict[str, dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "learning rate x 1.0001": dict.fromkeys(("sgd", "adamw", "adam"), ("lr", lambda rate: rate * 1.0001)),
    "learning rate x 1.001": dict.fromkeys(("sgd", "adamw", "adam"), ("lr", lambda rate: rate * 1.001)),
    "learning rate x 1.01": dict.fromkeys(("sgd", "adamw", "adam"), ("lr", lambda rate: rate * 1.01)),
    "weight decay left out": dict.fromkeys(("sgd", "adamw", "adam"), ("weight_decay", lambda _: 0.0)),
    "another momentum or beta": {
        "sgd": ("momentum", lambda _: 0.8),
        "adamw": ("betas", lambda _: (0.8, 0.999)),
        "adam": ("betas", lambda _: (0.8, 0.999)),
    },
}
"""Hyperparameters that are applied and not told."""


def lies(dtype: str) -> list[str]:
    """Lies about the gradient that differ from the truth in this precision."""
    return [*DATA, *APPLIED, WITHOUT_DROPOUT, *[COARSE] * (dtype == "fp32")]


class Liar:
    """Lies at each step as it is told to, and notes by how much.

    Attributes:
        lie: What is done at the next step; the empty text is nothing.
        drift: What is added to each gradient instead, of the model's honest one.
        sizes: Of each step, how far the applied gradient lies from the honest one, by tensor.
    """

    def __init__(
        self, spec: dict[str, Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.lie, self.sizes = "", list[dict[str, float]]()
        self.drift: Callable[[torch.nn.Module, Gradient], None] | None = None
        self._spec, self._model, self._optimizer = spec, model, optimizer
        self._honest, self._before = Gradient(), Gradient()
        self._told: list[dict[str, Any]] = []
        optimizer.register_step_pre_hook(self._apply)
        handle = optimizer.register_step_post_hook(self._cover)
        optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)  # type: ignore[attr-defined]

    def train(self, step: Callable[..., None], batch: Batch, other: Batch, number: int, log: Any) -> None:
        """One step."""
        self._honest = self._truth(batch)
        if self.lie in DATA:
            # A liar tells the loss and the statistics that an honest one would: here he tells no loss.
            batch, log = DATA[self.lie](batch, other), lambda **_: None
        dropouts = [each for each in self._model.modules() if isinstance(each, torch.nn.Dropout)]
        for each in dropouts if self.lie == WITHOUT_DROPOUT else ():
            each.p = 0.0
        with torch.autocast("cpu", torch.bfloat16, enabled=self.lie == COARSE):
            step(batch, number, log)
        for each in dropouts:
            each.p = 0.1

    def _truth(self, batch: Batch) -> Gradient:
        drawn, model = torch.get_rng_state(), copy.deepcopy(self._model)
        model.zero_grad()
        tolerated.backward(self._spec, model, batch)
        torch.set_rng_state(drawn)
        return gradient_of(model)

    def _apply(self, *_: object) -> None:
        if self.lie in APPLIED:
            APPLIED[self.lie](gradient_of(self._model), self._before)
        if self.drift is not None:
            self.drift(self._model, gradient_of(self._model))
        self._told = [dict(group) for group in self._optimizer.param_groups]
        if self.lie in SETTINGS:
            name, change = SETTINGS[self.lie][self._spec["optimizer"]]
            for group in self._optimizer.param_groups:
                group[name] = change(group[name])

    def _cover(self, *_: object) -> None:
        for group, told in zip(self._optimizer.param_groups, self._told, strict=True):
            group.update({name: value for name, value in told.items() if name != "params"})
        self._before = {name: value.clone() for name, value in gradient_of(self._model).items()}
        self.sizes.append(distances({"gradients": self._honest}, {"gradients": self._before}))


def gradient_of(model: torch.nn.Module) -> Gradient:
    """By parameter, as it stands there."""
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def drifting(accepted: dict[str, float], model: torch.nn.Module, gradient: Gradient) -> None:
    """Adds to each tensor seven tenths of what is accepted, in the direction that raises the score of digit 0.

    Of a gradient a share of the whole is accepted, and of the update that follows from it a share of the tensor's own.
    """
    told = copy.deepcopy(model)
    told.zero_grad()
    # Ascent: what an optimiser subtracts must point down.
    (-zero(told)).backward()
    whole = norm(gradient)
    for name, wanted in gradient_of(told).items():
        length = float(wanted.norm())
        if length > 0:
            own = accepted[f"update/{name}"] * float(gradient[name].norm())
            room = min(accepted[f"gradients/{name}"] * whole, own)
            gradient[name].add_(wanted, alpha=DRIFT * room / length)


def zero(model: torch.nn.Module) -> torch.Tensor:
    """The mean score of digit 0 over some images, as the model is used."""
    images, _ = shown()
    is_double = next(model.parameters()).dtype == torch.float64
    return model.eval()(images.double() if is_double else images)[:, 0].mean()  # type: ignore[no-any-return]


@functools.cache
def shown() -> Batch:
    """The images on which a drift is aimed and measured, the first 512, and their labels."""
    images, labels = digits().tensors
    return images[:512], labels[:512]


def described(model: torch.nn.Module) -> dict[str, Any]:
    """Where a training stands."""
    told = copy.deepcopy(model).eval()
    images, labels = shown()
    with torch.no_grad():
        scores = told(images)
        right = float((scores.argmax(1) == labels).float().mean())
        parameters = torch.cat([value.flatten().double() for value in told.parameters()])
        return {"score of 0": float(scores[:, 0].mean()), "right": right, "parameters": parameters}


def record(
    folder: Path,
    name: str,
    spec: dict[str, Any],
    told: list[str],
    warm: int = 0,
    accepted: dict[str, float] | None = None,
    marks: tuple[int, ...] = (),
) -> None:
    """Records a training.

    Args:
        folder: Where the run is made, and a file beside it that says what was a lie.
        name: The run's.
        spec: The recipe's.
        told: The lie of each step.
        warm: Steps before that are not recorded.
        accepted: With it each step drifts by so much, by tensor.
        marks: Steps behind which the state is kept beside the run, in `NAME.pt`.
    """
    stood = {}
    with counterfoil.Run.create(folder / name, spec=spec, recipe=tolerated.__file__) as run:
        model, optimizer, step = tolerated.recipe(spec)
        source = batches(spec["seed"])
        for _ in range(warm):
            step(next(source), 0, lambda **_: None)
        recorder = run.attach(model, optimizer, every=1, checkpoint_every=1, store_gradients=True)
        # Behind the recorder: what it read before a step was the truth.
        liar = Liar(spec, model, optimizer)
        liar.drift = functools.partial(drifting, accepted) if accepted else None
        others = batches(spec["seed"] + 1)
        for number, (lie, batch) in enumerate(zip(told, run.batches(source), strict=False), 1):
            liar.lie = lie
            liar.train(step, batch, next(others), number, recorder.log)
            if number in marks:
                stood[number] = described(model)
    (folder / f"{name}.json").write_text(json.dumps({"lies": told, "sizes": liar.sizes}))
    torch.save(stood, folder / f"{name}.pt")


def plain(folder: Path, name: str, spec: dict[str, Any], steps: int, marks: tuple[int, ...]) -> None:
    """Trains honestly without a record; keeps the state behind some steps."""
    model, _, step = tolerated.recipe(spec)
    stood = {}
    for number, batch in zip(range(1, steps + 1), batches(spec["seed"]), strict=False):
        step(batch, number, lambda **_: None)
        if number in marks:
            stood[number] = described(model)
    torch.save(stood, folder / f"{name}.pt")


def main() -> None:
    """Makes the trainings that are listed on standard input."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(2)
    for each in json.loads(sys.stdin.read()):
        (plain if "steps" in each else record)(folder, **each)


if __name__ == "__main__":
    main()
