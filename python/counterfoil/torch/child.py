"""The child's side of a re-execution: builds what the recipe says and executes one step per request.

It is told a step's number, batch, randomness, what its receipt speaks of and, at a restart, the state before;
every step it executes looks alike, so that a recipe cannot tell which one is judged. Step 0 is to build alone.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from counterfoil import commit_tensors
from counterfoil.errors import InvalidInput
from counterfoil.torch import collect
from counterfoil.torch.hooks import Hooks, innermost
from counterfoil.torch.wire import Pipe, encode

CHOSEN = ("threads", "deterministic", "matmul_precision", "default_dtype", "mkldnn")
"""What a run's environment says and a process can choose."""

FIELDS = ("parameters", "optimizer", "buffers", "hyperparameters")


def load_recipe(folder: Path) -> Callable[[dict[str, Any]], Any]:
    """The function `recipe` of the folder's `recipe.py`."""
    sys.path.insert(0, str(folder))
    function: Callable[[dict[str, Any]], Any] = importlib.import_module("recipe").recipe
    return function


class Execution:
    """One model, optimiser and step function, as a recipe built them."""

    def __init__(self, recipe: Callable[[dict[str, Any]], Any], spec: dict[str, Any]) -> None:
        model, optimizer, self._step = recipe(spec)
        self._optimizer = innermost(optimizer)
        self._collect = collect.Collector(model, [self._optimizer])
        self._optimizer.register_step_pre_hook(self._apply)
        self._hooks = Hooks(self._optimizer, lambda: None, self._gradients, _same, self._done)
        self._contribution: collect.State | None = None
        for names, parameter in self._collect.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(functools.partial(self._take, names))
        self._metrics: collect.State = {}
        self._coarsest = 0.0
        self._wanted: Sequence[str] = ()
        self._states: list[dict[str, collect.State]] = []
        self._exchange: Callable[[collect.State], collect.State] | None = None

    def end(self) -> None:
        """Lets go of the optimiser, whose hooks hold the model."""
        self._hooks.remove()

    def restore(self, states: dict[str, collect.State]) -> None:
        """Puts the recorded state before a step back."""
        self._collect.restore(states["parameters"], states["optimizer"], states["buffers"])

    def made(self) -> dict[str, collect.State]:
        """The state that the recipe made."""
        return {field: getattr(self._collect, field)() for field in FIELDS}

    def step(
        self,
        batch: collect.State,
        number: int,
        wanted: Sequence[str],
        *,
        shared: bool,
        watch: bool,
        exchange: Callable[[collect.State], collect.State] | None = None,
    ) -> dict[str, collect.State]:
        """Executes one step and returns the wanted fields, as they stood when the optimiser had stepped.

        Of a step that several ranks shared, also what backward left before anything else touched it. `exchange` is
        given the gradient before the optimiser steps, and returns the one that it applies. `watch` adds the coarsest
        precision of what autograd saved, as the distance from 1 to the next number.
        """
        self._metrics, self._states, self._wanted, self._exchange = {}, [], wanted, exchange
        named = self._collect.named_parameters()
        self._contribution = {name: None for names, _ in named for name in names} if shared else None
        self._coarsest = 0.0
        with torch.autograd.graph.saved_tensors_hooks(self._note, _unchanged) if watch else nullcontext():
            self._step(collect.unflatten(batch), number, self._log)
        if len(self._states) != 1:
            raise InvalidInput(
                f"the recipe's step stepped its optimiser {len(self._states)} times", where="recipe"
            )
        return self._states[0] | ({"precision": {"epsilon": self._coarsest}} if watch else {})

    def _note(self, saved: torch.Tensor) -> torch.Tensor:
        if saved.is_floating_point():
            self._coarsest = max(self._coarsest, torch.finfo(saved.dtype).eps)
        return saved

    def _log(self, **metrics: Any) -> None:
        self._metrics.update({name: collect.metric(name, value)() for name, value in metrics.items()})

    def _take(self, names: list[str], parameter: torch.Tensor) -> None:
        if self._contribution is not None:
            self._contribution.update(_copy(collect.gradient(names, parameter.grad)))

    def _apply(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Gives the computed gradient away and has the optimiser apply another one."""
        if self._exchange is None:
            return
        is_closed = kwargs.get("closure") is not None or any(callable(each) for each in args[1:])
        if is_closed or getattr(optimizer, "grad_scale", None) is not None:
            raise InvalidInput("the optimiser makes the gradient that it applies itself", where="gradients")
        own = self._collect.gradients(optimizer)
        applied, self._exchange = self._exchange(own), None
        for name, gradient in own.items():
            if name.endswith(collect.VALUES):
                raise InvalidInput(f"the gradient {name} is sparse", where=name)
            if isinstance(gradient, torch.Tensor):
                gradient.copy_(applied[name])

    def _gradients(self) -> collect.State:
        return _copy(self._collect.gradients(self._optimizer)) if "gradients" in self._wanted else {}

    def _done(self, outcome: Callable[[], tuple[collect.State | None, bool]]) -> None:
        gradients, _ = outcome()
        assert gradients is not None, "the child's hook takes each gradient"
        fields = {field: _copy(getattr(self._collect, field)()) for field in FIELDS if field in self._wanted}
        fields |= {"gradients": gradients, "metrics": dict(self._metrics)}
        self._states.append(fields | {"contribution": self._contribution or {}})


def _unchanged(saved: torch.Tensor) -> torch.Tensor:
    return saved


def _same(early: collect.State, late: collect.State) -> bool:
    return commit_tensors(early).root == commit_tensors(late).root


def _copy(state: collect.State) -> collect.State:
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()
    }


def _leave_out_the_compiler() -> None:
    """Spares the six seconds in which a first optimiser imports torch's compiler, used by no plain step."""
    for method in vars(torch.optim.Optimizer).values():
        function = getattr(method, "__wrapped__", None)
        if function is not None:
            function.__dynamo_disable = function


def serve(cut: dict[str, bool]) -> None:
    """Answers requests on standard input until it ends; the recipe's own output goes nowhere."""
    pipe = Pipe(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    pipe.send(encode(cut | {"environment": collect.local_environment()}, {}))
    _leave_out_the_compiler()
    execution: Execution | None = None
    recipe: Callable[[dict[str, Any]], Any] | None = None
    chosen: dict[str, Any] = {}
    while True:
        try:
            header, states = pipe.receive(1 << 62)
        except EOFError:
            return
        wanted = {name: header[name] for name in CHOSEN}
        if chosen != wanted:
            chosen = wanted
            torch.set_num_threads(header["threads"])
            # Even switching it off would import the compiler.
            if header["deterministic"] != torch.are_deterministic_algorithms_enabled():
                torch.use_deterministic_algorithms(header["deterministic"])
            torch.set_float32_matmul_precision(header["matmul_precision"])
            torch.backends.mkldnn.enabled = header["mkldnn"]
            torch.set_default_dtype(getattr(torch, header["default_dtype"].removeprefix("torch.")))
        recipe = recipe or load_recipe(Path("recipe").resolve())
        if header["step"] == 0:
            first = Execution(recipe, header["spec"])
            pipe.send(encode({}, first.made()))
            first.end()
            continue
        if execution is None or ("parameters" in states and not header["keep"]):
            if execution is not None:
                execution.end()
            execution = Execution(recipe, header["spec"])
        if "parameters" in states:
            execution.restore(states)
        collect.restore_randomness(states["randomness"])
        wanted, shared = header["wanted"], header["contribution"]
        exchange = functools.partial(_exchange, pipe) if header["exchange"] else None
        batch, number = states["batch"], header["step"]
        answer = execution.step(
            batch, number, wanted, shared=shared, watch=header["watch"], exchange=exchange
        )
        pipe.send(encode({}, answer))


def _exchange(pipe: Pipe, own: collect.State) -> collect.State:
    pipe.send(encode({}, {"gradients": own}))
    return pipe.receive(1 << 62)[1]["gradients"]
