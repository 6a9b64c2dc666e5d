"""What a training step consists of, as named tensors.

The recorder and the re-execution both read a step through this module: a name or a dtype that
differed between the two would refute honest work. Nothing here commits, records or compares.
"""

import array
import functools
import hashlib
import os
import platform
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterfoil import Alias
from counterfoil.cuda import bring
from counterfoil.errors import InvalidInput

EVALUATIONS, STEPPED = "func_evals", "stepped"

State = dict[str, Any]
"""Names to tensors, numbers, strings, `Alias` or None (absent)."""

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16,
    "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32, "U32": torch.uint32,
    "F32": torch.float32, "I64": torch.int64, "U64": torch.uint64, "F64": torch.float64,
    "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip

WRAPPERS = {
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "_fsdp_wrapped_module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": "_checkpoint_wrapped_module",
    "opacus.grad_sample.grad_sample_module.GradSampleModule": "_module",
}
"""Classes that stand around a model, and the attribute that holds it."""

VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA",
)  # fmt: skip
"""Environment variables that change the bits that are computed."""


INDICES, VALUES = "#indices", "#values"
"""What stands behind a parameter's name in the names of its sparse gradient's parts."""

ACCELERATOR, RANDOM = "accelerator", "random"
"""The entries of the environment that name the GPUs of the parameters, the CPU's has none, and the random numbers."""


def is_sharded(value: Any) -> bool:
    """Whether a value is a tensor of which several processes hold a part each (torch's DTensor)."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def is_fully_sharded(module: torch.nn.Module) -> bool:
    """Whether torch's `fully_shard` was called on it, which makes another class of its class."""
    kinds = (f"{kind.__module__}.{kind.__name__}" for kind in type(module).__mro__)
    return any(kind.startswith("torch.distributed.fsdp.") and kind.endswith(".FSDPModule") for kind in kinds)


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or this process's part of one that several hold, sharing its memory."""
    with torch.no_grad():
        return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def readable(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a plain one that shares its memory, or one in parts; committing to it checks the rest.

    Raises:
        InvalidInput: A lazy or otherwise special tensor; `.where` is its name.
    """
    if type(tensor) is torch.Tensor:
        return tensor
    if is_sharded(tensor):
        return tensor.detach()
    if torch.nn.parameter.is_lazy(tensor):
        raise InvalidInput(f"{name} has no shape yet: run one forward pass before attach", where=name)
    plain = tensor.detach()
    if type(plain) is not torch.Tensor:
        kind = type(plain).__name__
        raise InvalidInput(f"{name} is a {kind}, which has no canonical bytes", where=name)
    return plain


def leaf(name: str, value: Any) -> Any:
    """A tensor, number, string or None as it enters a state; anything else is refused by name."""
    if isinstance(value, torch.Tensor):
        return readable(name, value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
    raise InvalidInput(f"{name} is a {type(value).__name__}, not a tensor, number or string", where=name)


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested tuples, lists and mappings with names such as `0/input_ids`; a bare leaf is `.`."""
    if isinstance(value, Mapping):
        items = [(str(key), child) for key, child in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), child) for index, child in enumerate(value)]
    else:
        name = prefix or "."
        yield name, leaf(name, value)
        return
    for key, child in items:
        if key in ("", ".") or "/" in key:
            raise InvalidInput(
                f"key {key!r} under {prefix or 'the top'} cannot be part of a name", where=prefix
            )
        yield from flatten(child, f"{prefix}/{key}" if prefix else key)


def unflatten(state: Mapping[str, Any]) -> Any:
    """The nested tuples and dicts that `flatten` named; lists come back as tuples."""
    tree: dict[str, Any] = {}
    for name, value in state.items():
        *parents, last = name.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return _tuples(tree)


def _tuples(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    children = {key: _tuples(child) for key, child in node.items()}
    if set(children) == {"."}:
        return children["."]
    positions = [str(index) for index in range(len(children))]
    return tuple(children[key] for key in positions) if set(children) == set(positions) else children


def _modules(module: torch.nn.Module, prefix: str = "") -> Iterator[tuple[str, torch.nn.Module]]:
    yield prefix, module
    kinds = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__)
    inner = next((WRAPPERS[kind] for kind in kinds if kind in WRAPPERS), None)
    for name, child in module._modules.items():
        if child is not None:
            yield from _modules(child, prefix if name == inner else f"{prefix}{name}.")


def _named(model: torch.nn.Module, kind: str) -> list[tuple[list[str], torch.Tensor]]:
    """Each distinct tensor of `_parameters` or `_buffers` with all its names, the smallest first."""
    found: dict[int, tuple[list[str], torch.Tensor]] = {}
    seen = set()
    for prefix, module in _modules(model):
        for name, tensor in getattr(module, kind).items():
            if tensor is None:
                continue
            names, _ = found.setdefault(id(tensor), ([], tensor))
            full = prefix + name
            if full in seen and full not in names:
                raise InvalidInput(f"two tensors of the model are called {full}", where=full)
            if full not in seen:
                names.append(full)
                seen.add(full)
    for names, _ in found.values():
        names.sort(key=str.encode)
    return list(found.values())


def _spread(names: list[str], tensor: torch.Tensor | None, prefix: str = "") -> State:
    first = prefix + names[0]
    if tensor is None:
        return {prefix + name: None for name in names}
    value = readable(first, tensor)
    if len(names) == 1:
        return {first: value}
    return {first: value} | {prefix + name: Alias(first) for name in names[1:]}


def gradient(names: list[str], value: torch.Tensor | None) -> State:
    """A gradient under its parameter's names; a sparse one as what it holds at which places."""
    if value is None or value.layout != torch.sparse_coo:
        return _spread(names, value)
    whole = value.detach().coalesce()
    parts = {INDICES: whole.indices(), VALUES: whole.values()}
    state: State = {}
    for suffix, part in parts.items():
        state |= _spread([name + suffix for name in names], part)
    return state


_version: Callable[[torch.Tensor], int | None] = attrgetter("_version")


def _first(tensor: torch.Tensor) -> torch.Tensor:
    """Up to 16 elements from the tensor's first one on, without a copy of the whole."""
    room = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    return tensor.as_strided((min(16, tensor.numel(), room),), (1,), tensor.storage_offset())


class Walk:
    """The named tensors of a model, and what tells that they are other ones now.

    It holds its tensors and modules, so that no other ones can have the identity of one of them.
    """

    def __init__(self, model: torch.nn.Module, kind: str) -> None:
        self.found = _named(model, kind)
        self.has_parts = any(is_sharded(tensor) for _, tensor in self.found)
        self._modules = list(model.modules())
        self._held = [held for module in self._modules for held in (module._modules, getattr(module, kind))]
        self._seen = self._look()

    def _look(self) -> tuple[list[str], list[int]]:
        values = chain.from_iterable(map(dict.values, self._held))
        return list(chain.from_iterable(self._held)), list(map(id, values))

    def is_outdated(self) -> bool:
        """Whether a module, parameter or buffer was added, removed, renamed or replaced."""
        return self._look() != self._seen


class Collector:
    """Reads the state of a model and of the innermost optimisers that step its parameters.

    Tied weights appear under their smallest name, with an `Alias` under the others. A wrapper's
    component is left out of names only where the module is such a wrapper. The groups of all
    optimisers are counted through.
    """

    def __init__(self, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.model, self.optimizers = model, tuple(optimizers)
        self._walks: dict[str, Walk] = {}

    def _named(self, kind: str, *, anew: bool = True) -> list[tuple[list[str], torch.Tensor]]:
        """As the function of this name, which is asked again when the model's structure is another one."""
        known = self._walks.get(kind)
        if known is None or (anew and known.is_outdated()):
            known = self._walks[kind] = Walk(self.model, kind)
        return known.found

    def named_parameters(self) -> list[tuple[list[str], torch.Tensor]]:
        """Each distinct parameter with all its names, the smallest first."""
        return self._named("_parameters")

    def has_parts(self) -> bool:
        """Whether several processes hold a part each of a parameter."""
        return any(is_sharded(parameter) for _, parameter in self.named_parameters())

    def reshard(self) -> None:
        """Has each process hold its part alone again, where a forward pass gathered the whole."""
        sharded: Iterator[Any] = filter(is_fully_sharded, self.model.modules())
        for module in sharded:
            module.reshard()

    def modules(self) -> Iterator[tuple[str, torch.nn.Module]]:
        """The model's modules, each with what stands before the names of its own parameters."""
        return _modules(self.model)

    def groups(self) -> Iterator[tuple[int, torch.optim.Optimizer, dict[str, Any]]]:
        """The parameter groups of all optimisers, each with its number."""
        each = ((one, group) for one in self.optimizers for group in one.param_groups)
        return ((number, one, group) for number, (one, group) in enumerate(each))

    def parameters(self) -> State:
        """Every parameter of the model."""
        state: State = {}
        for names, parameter in self._named("_parameters"):
            state.update(_spread(names, parameter))
        return state

    def versions(self, *, anew: bool = False) -> Callable[[], list[Any]]:
        """Something that changes when a parameter or buffer is replaced or written in place; read later.

        Writes through `.data` leave no trace in a tensor's version. Who swaps weights swaps all of
        them, so the first elements of the first and last parameter tell.
        """
        trained = [tensor for _, tensor in self._named("_parameters", anew=anew)]
        held = trained + [tensor for _, tensor in self._named("_buffers", anew=anew)]
        identities = list(map(id, held))
        if self._walks["_parameters"].has_parts:
            trained, held = list(map(own_part, trained)), list(map(own_part, held))
        try:
            seen = list(map(_version, held))
        except RuntimeError:  # a tensor that was made in inference mode has none
            seen = [None if tensor.is_inference() else tensor._version for tensor in held]
        dense = [tensor for tensor in (*trained[:1], *trained[-1:]) if tensor.layout == torch.strided]
        first = [_first(tensor.detach()).view(torch.uint8).clone() for tensor in dense]
        return lambda: [*identities, *seen, *(tensor.tolist() for tensor in first)]

    def gradients(self, optimizer: torch.optim.Optimizer) -> State:
        """`.grad` of every parameter of the model; absent where it is None or the optimiser has no such parameter."""
        stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        state: State = {}
        plain, strided = torch.Tensor, torch.strided
        for names, parameter in self._named("_parameters"):
            applied = parameter.grad if id(parameter) in stepped else None
            # Most gradients, at a fifth of the time.
            if len(names) == 1 and type(applied) is plain and applied.layout is strided:
                state[names[0]] = applied
            else:
                state.update(gradient(names, applied))
        return state

    def buffers(self) -> State:
        """Every buffer of the model as `buffer/<name>`, the non-persistent ones included."""
        state: State = {}
        for names, buffer in self._named("_buffers"):
            state.update(_spread(names, buffer, "buffer/"))
        return state

    def optimizer(self) -> State:
        """The optimisers' state as `optimizer/<group>/<parameter>/<key>`."""
        state: State = {}
        for prefix, parameter, optimizer in self.slots():
            for key, value in optimizer.state.get(parameter, {}).items():
                state.update(flatten(value, prefix + str(key)))
        return state

    def slots(self) -> Iterator[tuple[str, torch.nn.Parameter, torch.optim.Optimizer]]:
        """The optimisers' parameters with the prefix of their state's names."""
        names = {id(parameter): names[0] for names, parameter in self._named("_parameters")}
        for index, optimizer, group in self.groups():
            for position, parameter in enumerate(group["params"]):
                if id(parameter) not in names:
                    where = f"group {index}, parameter {position}"
                    raise InvalidInput(
                        f"{where} of the optimiser is not a parameter of the model", where=where
                    )
                yield f"optimizer/{index}/{names[id(parameter)]}/", parameter, optimizer

    def hyperparameters(self, stepped: torch.optim.Optimizer | None = None) -> State:
        """What `param_groups` hold besides the parameters, as `<group>/<key>`.

        Of several optimisers, `stepped` is the number of the one that made the step. LBFGS adds how often it
        has evaluated its closure.
        """
        state: State = {}
        for index, optimizer, group in self.groups():
            for key, value in group.items():
                if key != "params":
                    state.update(flatten(value, f"{index}/{key}"))
            if isinstance(optimizer, torch.optim.LBFGS):
                state[f"{index}/{EVALUATIONS}"] = optimizer.state[group["params"][0]].get(EVALUATIONS, 0)
        if stepped is not None and len(self.optimizers) > 1:
            state[STEPPED] = self.optimizers.index(stepped)
        return state

    def environment(self) -> State:
        """What the bits of a step depend on besides its inputs, as numbers and strings."""
        return (
            local_environment()
            | self._accelerator()
            | {
                "optimizer": ", ".join(
                    f"{type(each).__module__}.{type(each).__qualname__}" for each in self.optimizers
                ),
                "threads": torch.get_num_threads(),
                "interop_threads": torch.get_num_interop_threads(),
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "default_dtype": str(torch.get_default_dtype()),
                "flush_denormal": torch.full((), 5e-324, dtype=torch.float64, device="cpu").mul(1.0).item()
                == 0.0,
                "contracted": _contracted(),
                "matmul_precision": torch.get_float32_matmul_precision(),
                "numpy": np.__version__,
                "python": sys.version.split()[0],
                "platform": f"{platform.system()} {platform.machine()}",
            }
        )

    def _accelerator(self) -> State:
        devices = {tensor.device for _, tensor in self._named("_parameters") if tensor.is_cuda}
        if not devices:
            return {}
        names = sorted({torch.cuda.get_device_name(device) for device in devices})
        return {
            ACCELERATOR: ", ".join(names),
            "cuda": str(torch.version.cuda or torch.version.hip),
            "cudnn": torch.backends.cudnn.version() or 0,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }

    def restore(self, parameters: State, optimizer: State, buffers: State) -> None:
        """Puts a recorded state back, in place, so that memory formats stay the model's own.

        Raises:
            InvalidInput: The names, shapes or dtypes are not those of this model.
        """
        for recorded, own in ((parameters, self.parameters()), (buffers, self.buffers())):
            if recorded.keys() != own.keys():
                odd = min(recorded.keys() ^ own.keys())
                raise InvalidInput(f"the recipe's model and the recorded state differ in {odd}", where=odd)
            for name, target in own.items():
                if isinstance(target, torch.Tensor):
                    _filled(name, target, recorded[name])
        unplaced = dict(optimizer)
        for each in self.optimizers:
            each.state.clear()
        on_device = {
            id(parameter)
            for _, _, group in self.groups()
            if group.get("fused") or group.get("capturable")
            for parameter in group["params"]
        }
        for prefix, parameter, owner in self.slots():
            names = [name for name in unplaced if name.startswith(prefix)]
            values = {name.removeprefix(prefix): unplaced.pop(name) for name in names}
            for key, value in (unflatten(values) if values else {}).items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    room = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                    value = _filled(prefix + key, room, value)
                else:
                    value = _plain(value)
                    if isinstance(value, torch.Tensor) and (key != "step" or id(parameter) in on_device):
                        value = value.to(parameter.device)
                owner.state[parameter][key] = value
        if unplaced:
            raise InvalidInput(
                f"the recipe's optimiser has no place for {min(unplaced)}", where=min(unplaced)
            )


def _plain(value: Any) -> Any:
    """Numbers and lists as optimisers keep them; a number is recorded as a tensor of 64 bits and no dimension."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    # Where tensors are of 64 bits by default, floats may be tensors.
    numbers = {torch.int64, torch.float64} - {torch.get_default_dtype()}
    is_number = isinstance(value, torch.Tensor) and not value.shape and value.dtype in numbers
    return value.item() if is_number else value


def _filled(name: str, target: torch.Tensor, value: Any) -> torch.Tensor:
    """The target with the value's elements, or with those of its own part."""
    fits = isinstance(value, torch.Tensor) and value.shape == target.shape
    if not fits or value.dtype != target.dtype:
        raise InvalidInput(f"the recorded {name} does not fit the recipe's model", where=name)
    if not is_sharded(target):
        return target.copy_(value)
    (chunk,) = target.__create_chunk_list__()  # type: ignore[attr-defined]
    box = zip(chunk.offsets, chunk.sizes, strict=True)
    own_part(target).copy_(value[tuple(slice(first, first + extent) for first, extent in box)])
    return target


def local_environment() -> State:
    """The part of the environment that a process cannot choose: equal here and there, expect equal bits."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(),
        "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        RANDOM: _drawn(),
    } | {name: os.environ[name] for name in VARIABLES if name in os.environ}


@functools.cache
def _drawn() -> str:
    """Names the random numbers that a seed gives here: some of torch's kernels draw with MKL on Intel's processors alone."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.empty(2, 1024, dtype=torch.float32, device="cpu")
    draws[0].bernoulli_(0.5, generator=generator)
    draws[1].exponential_(generator=generator)
    # Whether each is small: roundings are none of the stream's.
    return hashlib.sha256((draws < 0.7).numpy().tobytes()).hexdigest()[:16]


@functools.cache
def _contracted() -> bool | None:
    """Whether torch's CPU kernels multiply and add with one rounding; None where some do and some do not.

    That is a matter of compiler and processor. One rounding of `x * x - near` leaves 2^-24, two leave nothing.
    """
    x, near = 1 + 2**-12, 1 + 2**-11
    found: set[bool] = set()
    for size in (
        1,
        7,
        67,
    ):  # a vector has at most 16 elements, and what is left of them has kernels of its own
        full = functools.partial(torch.full, (size,), dtype=torch.float32, device="cpu")
        results = (
            full(-near).add(full(x), alpha=x),
            torch.addcmul(full(-near), full(x), full(x)),
            torch.lerp(full(-near / 4), full(x - near / 4), x / 4),
        )
        found.update(value != 0 for each in results for value in each.tolist())
    return found.pop() if len(found) == 1 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


_read: tuple[Any, State] = (None, {})
"""The generators' states when they were last read, and what was made of them."""


def randomness() -> State:
    """The states of the generators of torch, numpy and Python, and of CUDA's if it was initialised.

    While nobody draws, it is the same object.

    Raises:
        InvalidInput: numpy's global generator was replaced by another kind.
    """
    global _read
    of_python = random.getstate()
    legacy = np.random.get_state(legacy=False)
    if legacy["bit_generator"] != "MT19937":
        raise InvalidInput(
            f"numpy's global generator is {legacy['bit_generator']}, not MT19937", where="numpy"
        )
    words = np.array(legacy["state"]["key"])
    of_numpy = (int(legacy["state"]["pos"]), int(legacy["has_gauss"]), float(legacy["gauss"]))
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    of_torch = [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in devices)]
    seen = (of_python, words.tobytes(), of_numpy, *(each.numpy().tobytes() for each in of_torch))
    before, known = _read  # once: another thread may read as well
    if seen == before:
        return known
    version, internal, gauss = of_python
    position, has_gauss, waiting = of_numpy
    state: State = {
        "torch": of_torch[0],
        "numpy/key": words,
        "numpy/position": position,
        "numpy/has_gauss": has_gauss,
        "numpy/gauss": waiting,
        "python/version": version,
        "python/state": np.frombuffer(array.array("I", internal), np.uint32),
        "python/gauss": gauss,
    }
    state |= {f"cuda/{index}": each for index, each in enumerate(of_torch[1:])}
    _read = (seen, state)
    return state


def restore_randomness(state: Mapping[str, Any]) -> None:
    """Puts the generators of torch, numpy and Python, and of the GPUs here, into a state that `randomness` read."""
    for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        if f"cuda/{index}" in state:
            torch.cuda.set_rng_state(state[f"cuda/{index}"], index)
    torch.set_rng_state(state["torch"])
    position, has_gauss = int(state["numpy/position"]), int(state["numpy/has_gauss"])
    key = state["numpy/key"].numpy()
    np.random.set_state(("MT19937", key, position, has_gauss, float(state["numpy/gauss"])))
    gauss = state["python/gauss"]
    words = tuple(state["python/state"].tolist())
    random.setstate((int(state["python/version"]), words, None if gauss is None else float(gauss)))


def metric(name: str, value: Any) -> Callable[[], bool | int | float]:
    """A logged number, from a Python number or a tensor of shape `[]`, which its device may still compute.

    Its value is kept exactly.
    """
    if isinstance(value, torch.Tensor) and value.dim() == 0 and not value.is_complex():
        copy = bring(value)
        return lambda: copy().item()
    number = leaf(name, value)
    if isinstance(number, bool | int | float):
        return lambda: number
    raise InvalidInput(f"metric {name} is not one real number", where=name)
