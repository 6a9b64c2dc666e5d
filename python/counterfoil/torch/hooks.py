"""Where in an optimiser's step the applied gradient can be read.

After the step: only there are clipping, unscaling and reduction done under every trainer. One
class of optimisers overwrites `.grad` while stepping; their gradient is read in the last pre-step
hook. Of torch's own only `SGD(momentum, nesterov=True)` does so (tested over all of torch.optim), with
`foreach=True`, which torch chooses by itself for tensors on GPUs; an optimiser from elsewhere is read
at both places at every step until it does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Generic, TypeVar, cast

import torch
from torch.optim.optimizer import _default_to_fused_or_foreach  # torch's own choice

from counterfoil.cuda import bring, refuse_capture
from counterfoil.errors import InvalidInput

Taken = TypeVar("Taken")


def innermost(optimizer: Any) -> torch.optim.Optimizer:
    """The optimiser that owns the parameters, below the wrappers of trainers.

    Raises:
        InvalidInput: No optimiser with step hooks is inside.
    """
    seen = [optimizer]
    while not hasattr(seen[-1], "_optimizer_step_post_hooks"):
        names = ("optimizer", "original_optimizer", "optim")
        inner = next((getattr(seen[-1], name) for name in names if hasattr(seen[-1], name)), None)
        if inner is None or any(inner is known for known in seen):
            raise InvalidInput(f"{type(optimizer).__name__} holds no torch optimiser", where="optimizer")
        seen.append(inner)
    found: torch.optim.Optimizer = seen[-1]
    return found


def _is_known(optimizer: torch.optim.Optimizer) -> bool:
    """Whether torch steps over lists of tensors, and adds Nesterov's momentum to the gradients in place."""
    for group in optimizer.param_groups:
        if not (group.get("nesterov") and group.get("momentum")):
            continue
        foreach = group.get("foreach")
        if foreach is None and group.get("fused") is None and isinstance(optimizer, torch.optim.SGD):
            _, foreach = _default_to_fused_or_foreach(group["params"], differentiable=False)
        if foreach:
            return True
    return False


_watched: dict[int, Hooks[Any]] = {}
_scalers: Any = torch.amp.GradScaler


def _observe() -> None:
    """A scaler that found an infinity calls no optimiser, and so no hook; nothing else tells of such a step.

    Another tool may wrap or replace the method before or after: what is there is wrapped, once more if need be.
    """
    scaler_step = _scalers.step
    if scaler_step.__module__ == __name__:
        return

    def step(scaler: torch.amp.GradScaler, optimizer: Any, *args: Any, **kwargs: Any) -> float | None:
        try:
            hooks = _watched.get(id(innermost(optimizer)))
        except InvalidInput:
            hooks = None
        begun = hooks.begun if hooks else 0
        if hooks is not None:
            hooks.scaled = True
        result: float | None = scaler_step(scaler, optimizer, *args, **kwargs)
        if hooks is not None and hooks.begun == begun:
            hooks.left_out()
        return result

    _scalers.step = step


class Hooks(Generic[Taken]):
    """Calls `begin` before a step, `take` where the applied gradient stands in `.grad`, and `done(outcome)` behind it.

    `outcome()` returns what was taken and whether the step was skipped. It may be called later, when a
    device has computed what it compares, and again; of several steps in their order. A step that a
    gradient scaler left out is done as well.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        begin: Callable[[], None],
        take: Callable[[], Taken],
        same: Callable[[Taken, Taken], bool],
        done: Callable[[Callable[[], tuple[Taken | None, bool]]], None],
    ) -> None:
        self.begun = 0
        self.scaled = False
        self._optimizer, self._begin, self._take = optimizer, begin, take
        self._same, self._done = same, done
        self._probing = not type(optimizer).__module__.startswith("torch.optim")
        self._overwrites = False
        self._early: Taken | None = None
        self._frame: FrameType | None = None
        self._depth = 0
        self._pre = optimizer.register_step_pre_hook(self._before)
        self._post = optimizer.register_step_post_hook(self._after)
        optimizer._optimizer_step_post_hooks.move_to_end(self._post.id, last=False)  # type: ignore[attr-defined]
        _watched[id(optimizer)] = self
        _observe()

    def left_out(self) -> None:
        """A step that was wanted and changed nothing."""
        self.begun += 1
        self._begin()
        self._done(lambda: (None, True))

    @property
    def stepping(self) -> bool:
        """Whether a step has begun and not ended: then the parameters belong to no step."""
        return self._frame is not None

    @property
    def may_overwrite(self) -> bool:
        """Whether the gradient that stands there after a step may be another than the applied one."""
        return self._probing or self._overwrites or _is_known(self._optimizer)

    def remove(self) -> None:
        """Takes the hooks off the optimiser."""
        self._pre.remove()
        self._post.remove()
        _watched.pop(id(self._optimizer), None)

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        refuse_capture()
        if self._frame is not None and self._within(self._frame):
            self._depth += 1  # a subclass that calls super().step() fires the hooks twice for one step
            return None
        if self._frame is not None:
            raise InvalidInput(
                "an earlier step was not completed or not recorded: training stands at no recorded step",
                where="optimizer",
            )
        self._frame, self._depth, self._early = sys._getframe(1), 0, None
        self.begun += 1
        self._begin()
        if not self.may_overwrite:
            return None
        self._read_early(optimizer)
        closure = kwargs.get("closure") if len(args) < 2 else args[1]
        if closure is None:
            return None
        reading = self._reading(closure)
        return (args[:1], kwargs | {"closure": reading}) if len(args) < 2 else ((args[0], reading), kwargs)

    def _reading(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """What computes the gradient within the step; the last one that it leaves is the one that is applied."""

        def evaluate() -> Any:
            loss = closure()
            self._early = self._take()
            return loss

        return evaluate

    def _read_early(self, optimizer: torch.optim.Optimizer) -> None:
        if next(reversed(optimizer._optimizer_step_pre_hooks)) != self._pre.id:
            kind = type(optimizer).__name__
            raise InvalidInput(
                f"{kind} overwrites the gradient: register step pre-hooks before attach", where=kind
            )
        self._early = self._take()

    def _after(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if self._depth:
            self._depth -= 1
            return
        early, late = self._early, None
        if early is None or (self._probing and not self._overwrites):
            late = self._take()
        compares = getattr(optimizer, "grad_scale", None) is None
        found = getattr(optimizer, "found_inf", None)
        skipped: Callable[[], Any] = bring(found) if isinstance(found, torch.Tensor) else lambda: found

        def outcome() -> tuple[Taken | None, bool]:
            if early is not None and late is not None and compares:
                self._overwrites |= not self._same(early, late)
                self._probing = not self._overwrites
            overwritten = late is None or (early is not None and self._overwrites)
            return cast(Taken, early if overwritten else late), bool(skipped())

        self._done(outcome)
        self._frame, self._early = None, None

    @staticmethod
    def _within(outer: FrameType) -> bool:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not outer:
            frame = frame.f_back
        return frame is outer
