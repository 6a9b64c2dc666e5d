"""Recorded training steps: what they record, that they do not wait, and what they cost."""

from __future__ import annotations

import copy
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from place import Gpu, Notes, root, roots_of, spread
from torch.nn import functional

import counterfoil
from counterfoil import _native
from counterfoil.errors import InvalidInput

FALLBACK, SKIPPED = 4, 1
Gradients = dict[str, torch.Tensor]


def small(place: Gpu) -> torch.nn.Module:
    """A model with parameters, buffers and a gradient that is absent."""
    torch.manual_seed(6)
    layers = [torch.nn.Linear(64, 300), torch.nn.BatchNorm1d(300), torch.nn.ReLU(), torch.nn.Linear(300, 10)]
    model = torch.nn.Sequential(*layers)
    model.unused = torch.nn.Parameter(torch.zeros(3))
    return model.to(place.device)


def batches(place: Gpu, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and classes, on the device."""
    x = torch.randn(count, 32, 64, device=place.device)
    return list(zip(x, torch.randint(0, 10, (count, 32), device=place.device), strict=True))


def loss_of(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    x, y = batch
    return functional.cross_entropy(model[3](model[2](model[1](model[0](x)))), y)


def gradients_of(model: torch.nn.Module) -> Gradients:
    """Copies on the device, which waits for nothing."""
    named = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: gradient.clone() for name, gradient in named.items() if gradient is not None}


def steps_of(path: Path) -> list[tuple[Any, dict[str, Any]]]:
    """The step receipts of a run, and what lies behind their digests."""
    record = counterfoil.Record(path)
    return [(receipt, record.opened(receipt)) for receipt in record.receipts() if receipt.kind == "step"]


def compare(
    notes: Notes, what: str, path: Path, applied: list[tuple[Gradients, torch.Tensor | None]]
) -> None:
    """Compares the receipts of a run with what was kept of each step; None stands for a skipped one."""
    verdict = counterfoil.verify(path)
    notes.same(f"{what}: verdict", verdict.status, "verified")
    recorded = steps_of(path)
    notes.same(f"{what}: steps", len(recorded), len(applied))
    for number, ((receipt, opened), (gradients, loss)) in enumerate(zip(recorded, applied, strict=False), 1):
        flags = receipt.fields["flags"]
        notes.same(f"{what}: step {number} was hashed by the device", flags & FALLBACK, 0)
        notes.same(f"{what}: step {number} was skipped", flags & SKIPPED, int(loss is None))
        if loss is not None:
            expected = {name: root(gradient) for name, gradient in gradients.items()}
            found = {name: each for name, each in roots_of(opened["gradients"]).items() if name in expected}
            notes.same(f"{what}: step {number}, gradients", found, expected)
            if "metrics" in opened:
                notes.same(f"{what}: step {number}, loss", opened["metrics"].scalars()["loss"], loss.item())


def attach(place: Gpu, notes: Notes) -> None:
    """Recorded steps under AdamW of all kinds wait for nothing and record what was applied."""
    if place.dry:
        notes.skip("waits that PyTorch knows of", "no GPU")
    else:
        notes.same("waits that PyTorch knows of are errors", control(place), True)
    ways = {
        "fused": ({"fused": True}, 0, False),
        "foreach": ({"foreach": True}, 0, False),
        "single": ({"foreach": False}, 0, False),
        "fused, parameters too": ({"fused": True}, 2, False),
        "fused, scaled, one step of infinities": ({"fused": True}, 0, True),
    }
    for name, (options, every, scaled) in ways.items():
        try:
            recorded(place, notes, name, options, every, scaled)
        except Exception as failed:  # the other ways are still worth a look
            notes.same(name, f"{type(failed).__name__}: {failed}", "no exception")
    ahead(place, notes)


def control(place: Gpu) -> bool:
    """Whether a wait is in fact an error under `never_waiting`."""
    one = torch.ones(1, device=place.device)
    try:
        with place.never_waiting():
            one.item()
    except RuntimeError:
        return True
    return False


def recorded(
    place: Gpu, notes: Notes, name: str, options: dict[str, Any], every: int, scaled: bool, steps: int = 8
) -> None:
    """One run, of which nothing waits between attaching and closing."""
    model = small(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, **options)
    scaler = torch.amp.GradScaler(place.device.type, enabled=scaled)
    applied: list[tuple[Gradients, torch.Tensor | None]] = []

    def step(number: int, log: Callable[..., None]) -> None:
        loss = loss_of(model, fed[number])
        log(loss=loss)
        infinite = scaled and number == 4
        scaler.scale(loss * float("inf") if infinite else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        applied.append((gradients_of(model), None if infinite else loss.detach().clone()))
        optimizer.zero_grad()

    fed = batches(place, steps)
    for number in range(2):
        step(number, lambda loss: None)
    applied.clear()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with counterfoil.Run.create(path) as run:
            recorder = run.attach(model, optimizer, every=every, checkpoint_every=0)
            place.synchronize()
            with place.never_waiting():
                for number in range(steps):
                    step(number, recorder.log)
        compare(notes, name, path, applied)


def ahead(place: Gpu, notes: Notes) -> None:
    """A recorded step is queued while the device is still busy with what came before."""
    if place.dry:
        notes.skip("a step ahead of the device", "no GPU")
        return
    model = small(place)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    fed = batches(place, 6)
    with tempfile.TemporaryDirectory() as folder, counterfoil.Run.create(Path(folder) / "run") as run:
        recorder = run.attach(model, optimizer, every=0, checkpoint_every=0)
        for number, batch in enumerate(fed):
            if number == 5:
                place.synchronize()
                place.busy(0.3)
            begin = time.perf_counter()
            loss = loss_of(model, batch)
            loss.backward()
            recorder.log(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
            seconds = time.perf_counter() - begin
        notes.same("a step ahead of the device", place.reached(place.mark()), False)
        notes.note("seconds of the host for a small recorded step", seconds)


def graph(place: Gpu, notes: Notes) -> None:
    """Steps that are replayed from a CUDA graph, and what is refused while one is captured."""
    model = small(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, capturable=not place.dry)
    x, y = (each.clone() for each in batches(place, 1)[0])

    def step(update: Callable[[], Any]) -> None:
        loss_of(model, (x, y)).backward()
        update()

    def descend() -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.1)

    place.synchronize()
    with place.stream():
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            step(optimizer.step)
    place.synchronize()
    optimizer.zero_grad(set_to_none=True)
    if place.dry:
        notes.skip("CUDA graph", "no GPU: steps without one are recorded by hand")
        replay = lambda: (optimizer.zero_grad(), step(descend))  # noqa: E731
    else:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step(optimizer.step)
        replay = captured.replay
    applied: list[tuple[Gradients, torch.Tensor | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with counterfoil.Run.create(path) as run:
            recorder = run.attach(model, optimizer, every=2, checkpoint_every=0)
            for fed in batches(place, 6):
                x.copy_(fed[0])
                y.copy_(fed[1])
                replay()
                recorder.record()
                applied.append((gradients_of(model), torch.zeros(())))
        compare(notes, "replayed", path, applied)
        first, second = applied[0][0]["0.weight"], applied[1][0]["0.weight"]
        notes.same("replayed steps differ", torch.equal(first, second), False)
        if not place.dry:
            refused(notes, Path(folder), model, optimizer, x)


def refused(
    notes: Notes, folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor
) -> None:
    """What would hash inside a graph is refused, and the capture goes on."""
    with counterfoil.Run.create(folder / "hooked") as run, counterfoil.Run.create(folder / "late") as late:
        hooked = copy.deepcopy(model)
        stepping = torch.optim.AdamW(hooked.parameters(), capturable=True)
        loss_of(hooked, (x, torch.zeros(len(x), dtype=torch.int64, device=x.device))).backward()
        run.attach(hooked, stepping)
        attempts = {
            "commit_tensors": lambda: counterfoil.commit_tensors({"x": x}),
            "commit_tensors, transposed": lambda: counterfoil.commit_tensors({"x": x.t()}),
            "commit_tensors, kept": lambda: counterfoil.commit_tensors({"x": x}, keep=True),
            "the step of a recorded optimiser": stepping.step,
            "attach": lambda: late.attach(model, optimizer),
        }
        for what, attempt in attempts.items():
            outcome = "nothing was raised"
            try:
                with torch.cuda.graph(torch.cuda.CUDAGraph()):
                    x.add_(0)
                    try:
                        attempt()
                    except Exception as raised:
                        outcome = f"{type(raised).__name__}: {raised}"
                        if isinstance(raised, InvalidInput):
                            outcome = "InvalidInput"
            except RuntimeError as broken:
                outcome += f"; the capture failed: {str(broken).splitlines()[0]}"
            notes.same(f"inside a capture: {what}", outcome, "InvalidInput")


def bf16(place: Gpu, notes: Notes) -> None:
    """What recording costs a model of bf16 parameters."""
    overhead(place, notes, "bf16")


def fp32(place: Gpu, notes: Notes) -> None:
    """What recording costs a model of fp32 parameters."""
    overhead(place, notes, "fp32")


def autocast(place: Gpu, notes: Notes) -> None:
    """What recording costs fp32 parameters whose products are of bf16: the most bytes for the shortest step."""
    overhead(place, notes, "autocast")


def bf16_own(place: Gpu, notes: Notes) -> None:
    """As bf16, but with our GPT-2: that of transformers 5 waits for the device in every forward pass."""
    overhead(place, notes, "bf16", own=True)


def overhead(place: Gpu, notes: Notes, mode: str, *, own: bool = False) -> None:
    """Finds the largest batch that fits and measures with it."""
    for batch in (8, 4, 2, 1):
        try:
            measured(place, notes, mode, batch, own)
            return
        except torch.OutOfMemoryError:
            notes.skip(f"batch of {batch}", "too little memory")
        gc.collect()
        torch.cuda.empty_cache()
    raise RuntimeError("no batch fits")


class Trainer:
    """A model of GPT-2's size and its optimiser."""

    def __init__(self, model: torch.nn.Module, loss: Callable[..., torch.Tensor], mode: str) -> None:
        self.model, self._loss, self._mode = model, loss, mode
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.host: list[float] = []

    def step(self, ids: torch.Tensor, between: Callable[[], object] = lambda: None) -> None:
        """One step; `between` is called before the optimiser's."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._mode == "autocast"):
            loss = self._loss(self.model, ids)
        loss.backward()
        between()
        begin = time.perf_counter()
        self.optimizer.step()
        self.host.append(time.perf_counter() - begin)
        self.optimizer.zero_grad(set_to_none=True)


def measured(place: Gpu, notes: Notes, mode: str, batch: int, own: bool) -> None:
    """Blocks of bare and of recorded steps by turns, then blocks with the rival's."""
    kind, model, loss, vocabulary, length = language_model(place, own)
    model = model.to(place.device, torch.bfloat16 if mode == "bf16" else torch.float32).train()
    recorded_model = copy.deepcopy(model)
    bare, attached = Trainer(model, loss, mode), Trainer(recorded_model, loss, mode)
    ids = torch.randint(0, vocabulary, (batch, length), device=place.device)
    sizes = [parameter.nbytes for parameter in model.parameters()]
    notes.note("model", f"{kind}, {mode}, {batch} x {length} tokens")
    notes.note("gradients", f"{len(sizes)} of {sum(sizes):,} bytes")

    def hash_on_cpu() -> None:
        gradients = {name: each.grad.cpu() for name, each in model.named_parameters()}
        _native.commit_tensors(gradients, False, None)  # what commit_tensors does with a CPU's tensors

    def block(step: Callable[[], None], steps: int) -> list[float]:
        place.synchronize()
        marks = [place.mark()]
        for _ in range(steps):
            step()
            marks.append(place.mark())
        return [place.between(*pair) for pair in pairwise(marks)][1:]

    steps, rounds = (2, 1) if place.dry else (6, 10)
    for trainer in (bare, attached):
        block(lambda trainer=trainer: trainer.step(ids), 3)  # the memory of autograd and of the optimiser
    taken: dict[str, list[list[float]]] = {"bare": [], "recorded": [], "rival": []}
    with tempfile.TemporaryDirectory() as folder:
        run = counterfoil.Run.create(Path(folder) / "run")
        with run:
            begin = time.perf_counter()
            run.attach(recorded_model, attached.optimizer, every=0, checkpoint_every=0)
            notes.note("seconds to attach, first checkpoint included", time.perf_counter() - begin)
            turns = [("bare", lambda: bare.step(ids)), ("recorded", lambda: attached.step(ids))]
            for _, step in turns:
                block(step, steps)
            for trainer in (bare, attached):
                trainer.host.clear()
            begin = time.perf_counter()
            for number in range(rounds):
                for name, step in turns if number % 2 else reversed(turns):
                    taken[name].append(block(step, steps))
                if time.perf_counter() - begin > 30:
                    break
            host = {"bare": list(bare.host), "recorded": list(attached.host)}
            for _ in range(1 if place.dry else 2):
                taken["rival"].append(block(lambda: bare.step(ids, hash_on_cpu), 3))
    medians = {name: [statistics.median(each) for each in blocks] for name, blocks in taken.items()}
    ratios = [recorded / alone for recorded, alone in zip(medians["recorded"], medians["bare"], strict=True)]
    for name, blocks in taken.items():
        notes.found[f"{name}, blocks of seconds"] = [[round(each, 6) for each in one] for one in blocks]
        notes.note(f"{name}, seconds of a step", spread([*chain.from_iterable(blocks)]))
    for name, seconds in host.items():
        notes.note(f"{name}, seconds of the host in optimizer.step", spread(seconds))
    notes.note("recorded over bare, of each round", spread(ratios))
    notes.note("rival over bare", statistics.median(medians["rival"]) / statistics.median(medians["bare"]))
    notes.note("overhead, %", 100 * (statistics.median(ratios) - 1))


def language_model(
    place: Gpu, own: bool
) -> tuple[str, torch.nn.Module, Callable[..., torch.Tensor], int, int]:
    """GPT-2 of 124 million random weights, its loss, the number of its tokens and its context; small if dry."""
    shape = (512, 64, 64, 2, 2) if place.dry else (50257, 1024, 768, 12, 12)
    if not own:
        try:
            return "transformers' GPT-2", of_transformers(*shape), transformers_loss, *shape[:2]
        except Exception as missing:  # not installed, or of another mind about the arguments
            print(f"  transformers: {type(missing).__name__}: {missing}")
    return "our GPT-2", Gpt(*shape), lambda model, ids: model(ids), *shape[:2]


def of_transformers(vocabulary: int, length: int, width: int, depth: int, heads: int) -> torch.nn.Module:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {
        "vocab_size": vocabulary,
        "n_positions": length,
        "n_embd": width,
        "n_layer": depth,
        "n_head": heads,
    }
    model = GPT2LMHeadModel(GPT2Config(**shape, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False))
    with torch.no_grad():
        transformers_loss(model, torch.zeros(1, 2, dtype=torch.int64))
    return model


def transformers_loss(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, labels=ids).loss


class Layer(torch.nn.Module):
    """A layer of GPT-2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.mix, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.wide, self.narrow = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(self.first(x)).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(2, 3)
        seen = functional.scaled_dot_product_attention(*mixed, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.out(seen)
        return x + self.narrow(functional.gelu(self.wide(self.second(x)), approximate="tanh"))


class Gpt(torch.nn.Module):
    """GPT-2, with the loss of predicting the next token."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.places = torch.nn.Embedding(vocabulary, width), torch.nn.Embedding(length, width)
        self.layers = torch.nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.last = torch.nn.LayerNorm(width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device)))
        logits = functional.linear(self.last(x), self.tokens.weight)[:, :-1]
        return functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
