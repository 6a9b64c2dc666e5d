"""The whole way from Python to the kernel, through a stand-in for NVIDIA's driver (tests/cuda/driver.cpp).

A process loads the driver once and keeps what it loaded, so that all of this runs in children, which
call functions of this file: each `check_*` holds or raises, the others return what they saw.
"""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import host_kernel
from counterfoil import _native, commit_bytes, cuda
from counterfoil.commit import start
from counterfoil.errors import DeviceError

SOURCE = host_kernel.SHIM.parent / "driver.cpp"
PTX = host_kernel.KERNEL.with_suffix(".ptx")
PROGRAM = "import json, sys, test_cuda_driver as t; print(json.dumps(getattr(t, sys.argv[1])()))"
OPTIONS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-shared", "-fPIC"]

LOADING = ["cuInit", "cuDriverGetVersion", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"]
LOADING += ["cuDevicePrimaryCtxRetain", "cuCtxGetCurrent", "cuCtxSetCurrent"]
LOADING += ["cuModuleLoadData", "cuModuleGetFunction"]
CODES = {
    222: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
    209: "CUDA_ERROR_NO_BINARY_FOR_GPU",
    100: "CUDA_ERROR_NO_DEVICE",
    700: "CUDA_ERROR_ILLEGAL_ADDRESS",
    # Codes that CUDA 12.0 did not know: two of later versions, and one of none.
    721: "error 721",
    917: "error 917",
    9999: "error 9999",
}
STREAM = 5000
FOREIGN = 2
CHUNK = 1024
SIZES = [0, 1, 31, 32, 33, 54, 55, 56, 63, 64, 65, 119, 120, 1000]
SIZES += [chunks * CHUNK + more for chunks in (1, 2, 3, 5, 16, 255, 256, 257) for more in (-1, 0, 1)]
SIZES += [600 * CHUNK + 11]

Launches = list[tuple[int, int, int, int, int]]


# What children use.


class Driver:
    """The stand-in that this process loads, called directly."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so")
        self.library.fake_context.restype = ctypes.c_void_p
        assert self.library.cuInit(0) == 0

    def context(self, number: int | None) -> int | None:
        """The primary context of a device, or the foreign one; both exist afterwards."""
        if number in (0, 1):
            device, context = ctypes.c_int(), ctypes.c_void_p()
            assert self.library.cuDeviceGet(ctypes.byref(device), number) == 0
            assert self.library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
        return None if number is None else self.library.fake_context(number)

    def make_current(self, context: int | None) -> None:
        assert self.library.cuCtxSetCurrent(ctypes.c_void_p(context)) == 0

    def current(self) -> int | None:
        found = ctypes.c_void_p()
        assert self.library.cuCtxGetCurrent(ctypes.byref(found)) == 0
        return found.value

    def calls(self, name: str) -> int:
        return self.library.fake_calls(name.encode())


class Job:
    """Arrays whose roots a device is to compute, at any alignment."""

    def __init__(self, sizes: list[int], seed: int = 1) -> None:
        chosen = random.Random(seed)
        pool = np.frombuffer(chosen.randbytes(max(sizes) + 64), np.uint8)
        starts = [chosen.randrange(64) for _ in sizes]
        self.arrays = [pool[at : at + size] for at, size in zip(starts, sizes, strict=True)]
        self.expected = [commit_bytes(array).root for array in self.arrays]
        self._plan = _native.CudaPlan(sizes)
        memory = np.zeros(self._plan.size + 32, np.uint8)
        self.memory = memory[-memory.ctypes.data % 32 :][: self._plan.size]
        addresses = [array.ctypes.data for array in self.arrays]
        table, self.launches = self._plan.launches(addresses, self.memory.ctypes.data)
        self.memory[: len(table)] = np.frombuffer(table, np.uint8)

    def roots(self) -> list[bytes]:
        return self._plan.roots(self.memory[self._plan.size - self._plan.roots_size :].tobytes())

    def run(self, device: int = 0, stream: int = 0) -> None:
        """Launches and compares."""
        _native.cuda_launch(device, stream, self.launches)
        assert self.roots() == self.expected, (device, stream)


def refused(device: int, stream: int, launches: Launches) -> DeviceError:
    try:
        _native.cuda_launch(device, stream, launches)
    except DeviceError as error:
        return error
    raise AssertionError(("a launch was not refused", device, stream, launches))


# Checks of one process with the driver, in this order.


def check_info_lists_the_devices_and_the_version(driver: Driver) -> None:
    """Catches numbers taken for handles, attributes mixed up, and a context that costs GPU memory."""
    found = cuda.info()
    names = (cuda.Device("Stand-in 0", (9, 0)), cuda.Device("Stand-in 1", (9, 0)))
    assert (found.available, found.reason, found.driver, found.devices) == (True, "", "12.4", names), found
    assert driver.calls("cuDevicePrimaryCtxRetain") == 0, "info() made a context"
    assert driver.current() is None


def check_first_launches_from_many_threads(driver: Driver) -> None:
    """Catches a module loaded twice, or used before it is there, when several threads come first."""
    together, failed = threading.Barrier(8), []

    def work(number: int) -> None:
        try:
            job = Job([1, 300 * CHUNK + number, 5000], number)
            together.wait()
            job.run(number % 2)
            assert driver.current() is None, "the thread was left with a context"
        except BaseException:
            failed.append(traceback.format_exc())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    for call in ("cuDevicePrimaryCtxRetain", "cuModuleLoadData", "cuModuleGetFunction"):
        assert driver.calls(call) == 2, (call, driver.calls(call))


def check_roots_of_mixed_sizes(driver: Driver) -> None:
    """Catches parameters in a wrong order or size, a wrong block, and a table read at a wrong address."""
    for seed in range(3):
        sizes = SIZES.copy()
        random.Random(seed).shuffle(sizes)
        Job(sizes, seed).run(0)
    Job([0]).run()
    Job([1]).run()


def check_roots_on_the_second_device(driver: Driver) -> None:
    """Catches a function of device 0 that is launched in the context of device 1."""
    Job(SIZES, 5).run(1)
    Job(SIZES, 6).run(0)


def check_streams_are_passed_on(driver: Driver) -> None:
    """Catches a stream that is dropped, so that hashing runs before the work it is to wait for."""
    job = Job(SIZES, 7)
    job.run(0, STREAM)
    job.run(1, STREAM + 1)
    for device, stream in ((0, STREAM + 1), (1, STREAM), (0, 1 << 63)):
        error = refused(device, stream, job.launches)
        assert error.where == "cuLaunchKernel", error
        assert error.actual == "CUDA_ERROR_INVALID_HANDLE", error


def check_a_bad_launch_among_good_ones(driver: Driver) -> None:
    """Catches a launch whose refusal is forgotten because the next one succeeds."""
    job = Job([300 * CHUNK, 17], 8)
    first, last = job.launches
    for bad in [(blocks, *first[1:]) for blocks in (0, 1 << 31, first[0] + 1)]:
        job.memory[-64:] = 0
        error = refused(0, 0, [first, bad, last])
        assert error.where == "cuLaunchKernel", error
        assert not job.memory[-64:].any(), "what follows a refused launch was launched"
    job.run()


def check_the_current_context_stays(driver: Driver) -> None:
    """Catches a launch, good or refused, after which PyTorch works in another context, or in none."""
    job = Job([5000, 1], 9)
    bad = [(0, *job.launches[0][1:])]
    for before in (None, FOREIGN, 0, 1):
        context = driver.context(before)
        for device in (0, 1):
            driver.make_current(context)
            job.run(device)
            assert driver.current() == context, (before, device)
            refused(device, 0, bad)
            assert driver.current() == context, (before, device, "refused")
            _native.cuda_launch(device, 0, [])
            assert driver.current() == context, (before, device, "without launches")
    driver.make_current(None)


def check_a_thread_of_its_own(driver: Driver) -> None:
    """Catches a context that is current only in the thread that loaded the kernel."""
    seen: list[object] = []

    def work() -> None:
        driver.make_current(driver.context(FOREIGN))
        Job(SIZES, 10).run(1)
        seen.append(driver.current() == driver.context(FOREIGN))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
    assert driver.current() is None, "a thread changed the context of another"


def check_devices_that_are_not_there(driver: Driver) -> None:
    """Catches a number that wraps around to a device, and a failure that stays for good."""
    for device in (2, 3, 1 << 31, (1 << 32) - 1):
        error = refused(device, 0, [])
        assert (error.where, error.actual) == ("cuDeviceGet", "CUDA_ERROR_INVALID_DEVICE"), error
    Job(SIZES, 11).run(0)


def check_nothing_was_loaded_again(driver: Driver) -> None:
    """Catches a launch that compiles the PTX each time, which takes seconds on a GPU."""
    assert driver.calls("cuModuleLoadData") == 2
    assert driver.calls("cuModuleGetFunction") == 2


def check_a_forked_process(driver: Driver) -> None:
    """Catches a child that hangs, dies or hashes with handles which are its parent's."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(20)
        try:
            told = [f"{error.where} {error.actual}" for error in (refused(0, 0, []), refused(2, 0, []))]
            os.write(writer, " ".join([*told, cuda.info().reason]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 4096).decode()
    assert os.waitpid(child, 0)[1] == 0, told
    state = "CUDA_ERROR_NOT_INITIALIZED"
    assert told.startswith(f"cuCtxGetCurrent {state} cuInit {state} cuInit failed with {state}"), told
    Job(SIZES, 12).run(0)


def check_a_context_that_was_destroyed(driver: Driver) -> None:
    """Catches a crash, or a launch elsewhere, after a library has reset the device."""
    foreign = driver.context(FOREIGN)
    driver.make_current(foreign)
    driver.library.fake_reset(1)
    error = refused(1, 0, Job([9]).launches)
    assert error.actual == "CUDA_ERROR_CONTEXT_IS_DESTROYED", error
    assert driver.current() == foreign
    driver.make_current(None)
    Job(SIZES, 13).run(0)


def check_the_stand_in_is_strict(driver: Driver) -> None:
    """Catches a stand-in that lets everything pass, with which the checks above would show nothing."""
    library, pointer = driver.library, ctypes.c_void_p
    module, function, ptx = pointer(), pointer(), PTX.read_bytes()
    assert library.cuModuleLoadData(ctypes.byref(module), ptx) == 201, "no context is current"
    driver.make_current(driver.context(0))
    for image, code in ((b"", 218), (ptx + b"x", 218), (ptx.replace(b"version 7", b"version 9"), 222)):
        assert library.cuModuleLoadData(ctypes.byref(module), image) == code
    assert library.cuModuleLoadData(ctypes.byref(module), ptx) == 0
    assert library.cuModuleGetFunction(ctypes.byref(function), module, b"counterfoil") == 500
    assert library.cuModuleGetFunction(ctypes.byref(function), module, b"counterfoil_reduce") == 0
    job = Job([7, 8], 14)
    blocks, *given = job.launches[0]
    long, word = ctypes.c_uint64, ctypes.c_uint32
    values = [kind(value) for kind, value in zip((long, word, word, long), given, strict=True)]

    def launch(order: tuple[int, ...] = (0, 1, 2, 3), threads: int = 256, made: Any = function) -> int:
        addresses = (pointer * 4)(*(ctypes.addressof(values[at]) for at in order))
        return library.cuLaunchKernel(made, blocks, 1, 1, threads, 1, 1, 0, pointer(), addresses, pointer())

    assert (launch((3, 1, 2, 0)), launch((0, 2, 1, 3))) == (700, 700)
    assert (launch(threads=128), launch(made=pointer()), launch(made=module)) == (1, 400, 400)
    driver.make_current(driver.context(FOREIGN))
    assert launch() == 400, "another context is current"
    driver.make_current(None)
    assert launch() == 201, "no context is current"
    assert not job.memory[-64:].any()
    driver.make_current(driver.context(0))
    assert launch() == 0
    assert job.roots() == job.expected
    driver.make_current(None)


CHECKS: dict[str, Callable[[Driver], None]] = {
    name.removeprefix("check_"): value for name, value in globals().items() if name.startswith("check_")
}


def checks() -> dict[str, str]:
    """What each check found wrong."""
    driver, told = Driver(), {}
    for name, check in CHECKS.items():
        try:
            check(driver)
            told[name] = ""
        except BaseException:
            told[name] = traceback.format_exc()
    return told


# What other children see.


def attempt(work: Callable[[], object]) -> dict[str, Any]:
    """What a call raised."""
    try:
        work()
    except BaseException as error:
        evidence = {name: getattr(error, name, None) for name in ("expected", "actual", "where")}
        return {"kind": type(error).__name__, "text": str(error), **evidence}
    return {"kind": None}


def informed() -> dict[str, Any]:
    found = cuda.info()
    return {"available": found.available, "reason": found.reason, "driver": found.driver, "text": str(found)}


def failures() -> dict[str, Any]:
    """Attempts under each failure, one process long; nothing is loaded before the last ones."""
    driver, told = Driver(), {}
    foreign = driver.context(FOREIGN)

    def under(name: str, work: Callable[[], Any], **settings: object) -> None:
        driver.make_current(foreign)
        variables = {f"FAKE_CUDA_{key.upper()}": str(value) for key, value in settings.items()}
        os.environ.update(variables)
        seen = [work(), work()]
        for variable in variables:
            del os.environ[variable]
        told[name] = {"seen": seen, "kept": driver.current() == foreign}

    def load() -> dict[str, Any]:
        return attempt(lambda: _native.cuda_launch(0, 0, []))

    under("old driver", load, version=11070)
    under("old device", load, capability="7.0")
    told["contexts"] = driver.calls("cuDevicePrimaryCtxRetain")
    for call in LOADING:
        for code in CODES:
            under(f"{call}:{code}", load, fail=f"{call}:{code}")
    under("nameless", load, fail="cuModuleLoadData:222,cuGetErrorName:1,cuGetErrorString:1")
    under("info: old driver", informed, version=11070)
    under("info: old device", informed, capability="7.0")
    under("info: no device", informed, devices=0, fail="cuInit:100")
    for call in ("cuDeviceGetCount", "cuDeviceGetName", "cuDeviceGetAttribute"):
        under(f"info: {call}", informed, fail=f"{call}:700")
    jobs = [Job(SIZES, 20), Job(SIZES, 21)]
    under("oldest device", lambda: attempt(jobs[0].run), version=11080, capability="7.5")
    under("newer device", lambda: attempt(lambda: jobs[1].run(1)), capability="8.0")
    for call in ("cuLaunchKernel", "cuCtxGetCurrent", "cuCtxSetCurrent"):
        for code in CODES:
            under(f"loaded, {call}:{code}", lambda: attempt(jobs[0].run), fail=f"{call}:{code}")
    under("afterwards", lambda: attempt(jobs[0].run))
    return told


def missing() -> dict[str, Any]:
    """What a process without a driver is told."""
    for name in ("libcuda.so", "libcuda.so.1"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return {"real": name}
    launches = [attempt(lambda: _native.cuda_launch(0, 0, [])) for _ in range(2)]
    return {"real": None, "launches": launches, "info": informed()}


def incomplete() -> dict[str, Any]:
    return {"launch": attempt(lambda: _native.cuda_launch(0, 0, [])), "info": informed()}


class Everywhere:
    """Takes each torch tensor for one of device 0."""

    launched = 0

    def away(self, value: Any) -> bool:
        return hasattr(value, "is_cpu")

    def takes(self, device: Any) -> bool:
        return True

    def launch(self, device: Any, launches: Launches) -> None:
        self.launched += 1
        _native.cuda_launch(0, 0, launches)

    def mark(self, device: Any) -> Callable[[], object]:
        return lambda: None


def tensors() -> dict[str, Any]:
    """States of torch tensors, hashed by way of the driver while it is too old, right, wrong and broken."""
    import torch

    torch.manual_seed(1)
    many = torch.randint(256, (400 * CHUNK + 3,), dtype=torch.uint8)
    state = {
        "weights": torch.randn(300, 500),
        "turned": torch.randn(70, 90).T,
        "half": torch.randn(1001).bfloat16(),
        "none of it": torch.zeros(0, 3),
        "scalar": torch.tensor(1.5),
        "many": many,
        "unaligned": many[3:5000],
        "numpy": np.arange(100.0),
        "rate": 0.1,
    }
    expected, told = start(state).finish().root, {}
    for name, setting in {
        "old": ("FAKE_CUDA_VERSION", "11070"),
        "right": ("FAKE_CUDA_VERSION", "11080"),
        "wrong": ("FAKE_CUDA_WRONG", "1"),
    }.items():
        cuda.engine, cuda._problems = Everywhere(), {}
        os.environ.update([setting])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pending = [start(state), start(state)]
            told[name] = {
                "right": [each.finish().root == expected for each in pending],
                "fallback": [each.fallback for each in pending],
                "launched": cuda.engine.launched,
                "warnings": [[each.category.__name__, str(each.message)] for each in caught],
            }
        del os.environ[setting[0]]
    cuda._problems.clear()
    assert cuda.usable(torch.device("cpu"))
    os.environ["FAKE_CUDA_FAIL"] = "cuLaunchKernel:700"
    told["broken"] = attempt(lambda: start(state).finish())
    return told


# The tests, each of which reads what a child saw.


def child(folder: Path, function: str) -> Any:
    """What a function of this file returns in a process that finds the libraries of a folder first."""
    here = Path(__file__).parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAKE_CUDA")}
    paths = os.pathsep.join([str(here), str(here.parent), kept.get("PYTHONPATH", "")])
    environment = {**kept, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": paths.rstrip(os.pathsep)}
    command = [sys.executable, "-c", PROGRAM, function]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert "panicked" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in."""
    if host_kernel.COMPILER is None or not sys.platform.startswith("linux"):
        pytest.skip("no C++ compiler here, or no Linux: no stand-in for the driver")
    folder = tmp_path_factory.mktemp("driver")
    command = [host_kernel.COMPILER, *OPTIONS, str(SOURCE), "-o", str(folder / "libcuda.so")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def checked(stand_in: Path) -> dict[str, str]:
    return child(stand_in, "checks")


@pytest.fixture(scope="module")
def failed(stand_in: Path) -> dict[str, Any]:
    return child(stand_in, "failures")


@pytest.fixture(scope="module")
def hashed(stand_in: Path) -> dict[str, Any]:
    return child(stand_in, "tensors")


@pytest.mark.parametrize("name", CHECKS)
def test_in_a_process_with_a_driver(checked: dict[str, str], name: str) -> None:
    """Each check says what it catches."""
    assert not checked[name], checked[name]


def both(seen: dict[str, Any]) -> dict[str, Any]:
    """What two attempts under one failure met: the same, in the context that was current before."""
    assert seen["kept"], "another context is current"
    first, second = seen["seen"]
    assert first == second
    return first


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", LOADING)
def test_a_call_that_fails_while_the_kernel_is_loaded(failed: dict[str, Any], call: str, code: int) -> None:
    """Catches an error under another call's name, a panic at an unknown code, a lock that stays poisoned."""
    error = both(failed[f"{call}:{code}"])
    assert error["kind"] == "DeviceError", error
    assert (error["where"], error["actual"]) == (call, CODES[code]), error
    assert error["text"].startswith(f"{call} failed with {CODES[code]}: "), error


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", ["cuLaunchKernel", "cuCtxGetCurrent", "cuCtxSetCurrent"])
def test_a_call_that_fails_at_a_launch(failed: dict[str, Any], call: str, code: int) -> None:
    """Catches a launch that fails unseen, whose roots would be what lay in memory before."""
    error = both(failed[f"loaded, {call}:{code}"])
    assert (error["kind"], error["where"], error["actual"]) == ("DeviceError", call, CODES[code]), error


def test_a_code_that_the_driver_cannot_name(failed: dict[str, Any]) -> None:
    """Catches a name read through a pointer that the driver did not set."""
    assert both(failed["nameless"])["text"] == "cuModuleLoadData failed with error 222: error 222"


@pytest.mark.parametrize("name", ["oldest device", "newer device", "afterwards"])
def test_later_attempts_succeed(failed: dict[str, Any], name: str) -> None:
    """Catches a failure that is remembered, and the oldest driver or a capability like 8.0 refused."""
    assert both(failed[name])["kind"] is None, failed[name]


def test_an_old_driver_is_named(failed: dict[str, Any]) -> None:
    """Catches the driver's own complaint about the PTX, from which nobody learns what to install."""
    error = both(failed["old driver"])
    assert (error["kind"], error["expected"], error["actual"]) == ("DeviceError", "CUDA 11.8", "CUDA 11.7")
    assert "supports CUDA 11.7" in error["text"]
    assert "525" in error["text"]


def test_an_old_device_is_named(failed: dict[str, Any]) -> None:
    """Catches a context, and its memory, on a GPU that cannot hash."""
    error = both(failed["old device"])
    assert (error["kind"], error["where"], error["actual"]) == ("DeviceError", "Stand-in 0", "7.0")
    assert error["text"] == "GPU 0 (Stand-in 0) has compute capability 7.0, the kernel needs 7.5"
    assert failed["contexts"] == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("old driver", "supports CUDA 11.7, the kernel needs 11.8: install driver 525"),
        ("old device", "no GPU of compute capability 7.5"),
        ("no device", "no GPU of compute capability 7.5"),
        ("cuDeviceGetCount", "cuDeviceGetCount failed with CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("cuDeviceGetName", "cuDeviceGetName failed with CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("cuDeviceGetAttribute", "cuDeviceGetAttribute failed with CUDA_ERROR_ILLEGAL_ADDRESS"),
    ],
)
def test_info_says_why_not(failed: dict[str, Any], name: str, reason: str) -> None:
    """Catches an info() that raises, or that calls a GPU available which no launch reaches."""
    found = both(failed[f"info: {name}"])
    assert not found["available"]
    assert reason in found["reason"]
    assert found["reason"] in found["text"]


def test_a_library_that_is_no_whole_driver(tmp_path: Path) -> None:
    """Catches the panic at a symbol that a stub or a broken installation lacks."""
    if host_kernel.COMPILER is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C++ compiler here, or no Linux, to make a broken driver with")
    (tmp_path / "half.cpp").write_text('extern "C" int cuInit(unsigned) { return 0; }')
    command = [host_kernel.COMPILER, "-shared", "-fPIC", str(tmp_path / "half.cpp")]
    subprocess.run([*command, "-o", str(tmp_path / "libcuda.so")], check=True)
    told = child(tmp_path, "incomplete")
    assert told["launch"]["kind"] == "DeviceError"
    assert "has no cuCtxGetCurrent" in told["info"]["reason"]


def test_without_a_driver(tmp_path: Path) -> None:
    """Catches the panic of a library that is loaded without asking whether it is there."""
    found = child(tmp_path, "missing")
    if found["real"]:
        pytest.skip(f"this machine has a driver, {found['real']}, so that none is missing")
    for error in found["launches"]:
        assert (error["kind"], error["expected"]) == ("DeviceError", "libcuda.so.1")
        assert "libcuda.so.1 could not be loaded; install the driver (525 or newer)" in error["text"]
    assert (found["info"]["available"], found["info"]["driver"]) == (False, None)
    assert "install the driver" in found["info"]["reason"]


def test_tensors_by_way_of_the_driver(hashed: dict[str, Any]) -> None:
    """Catches a launch that the first question passes and states do not."""
    found = hashed["right"]
    assert (found["right"], found["fallback"]) == ([True, True], [False, False])
    assert (found["launched"], found["warnings"]) == (3, [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong", "its answers to a known question are wrong"),
        ("old", "the NVIDIA driver supports CUDA 11.7, the kernel needs 11.8: install driver 525 or newer"),
    ],
)
def test_tensors_of_a_device_that_cannot_be_trusted(hashed: dict[str, Any], name: str, reason: str) -> None:
    """Catches a receipt over a wrong root, a warning at each step, and one that does not say why."""
    text = f"tensors on cpu are copied and hashed by the CPU: {reason}"
    found = hashed[name]
    assert found["right"] == [True, True]
    assert found["fallback"] == [True, True]
    assert found["launched"] == 1, "the known question only"
    assert found["warnings"] == [["RuntimeWarning", text]]


def test_a_device_that_breaks_later(hashed: dict[str, Any]) -> None:
    """Catches a root made of what lay in memory when a launch of a known device fails."""
    assert (hashed["broken"]["kind"], hashed["broken"]["where"]) == ("DeviceError", "cuLaunchKernel")
