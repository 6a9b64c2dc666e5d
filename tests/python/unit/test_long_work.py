"""Long work and strange input: progress, interruption, odd files, and what changes meanwhile."""

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import oracle
from counterfoil import Sharded, _native, commit_shard, merge_shards
from counterfoil.errors import InvalidInput, NotFound, StorageError
from oracle import CHUNK

LARGE = 64 << 30  # bytes of a file with nothing in it: more than is read before a test ends
GIB = 1 << 30


@pytest.fixture
def slow() -> Iterator[None]:
    """The slowest backend, so that a second's work takes a second on any machine."""
    _native.force_backend("portable")
    yield
    _native.force_backend(None)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, LARGE)
    return path


class Enough(Exception):
    """Raised by a callback that has seen what it wanted."""


class Watcher:
    """Collects what progress reports, and stops the work after some calls."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.seen: list[tuple[int, int, int, float]] = []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append((done, total, threading.get_ident(), time.monotonic()))
        if len(self.seen) == self.calls:
            raise Enough

    def check(self, total: int) -> None:
        done = [each[0] for each in self.seen]
        assert len(done) == self.calls
        assert done == sorted(done)
        assert 0 <= done[0] < done[-1] <= total
        assert {each[1:3] for each in self.seen} == {(total, threading.get_ident())}


def test_progress_of_a_file(large: Path, slow: None) -> None:
    """Done rises to at most all of it, on this thread, and the callback's exception arrives."""
    watcher = Watcher(6)
    with pytest.raises(Enough):
        counterfoil.commit_file(large, progress=watcher)
    watcher.check(LARGE)
    between = watcher.seen[-1][3] - watcher.seen[0][3]
    assert 0.05 < between < 5, "about 20 calls a second"


@pytest.mark.parametrize("what", ["bytes", "tensors"])
def test_progress_in_memory(slow: None, what: str) -> None:
    """The total of a state is that of all its tensors."""
    zeros, watcher = np.zeros(4 * GIB, np.uint8), Watcher(2)
    with pytest.raises(Enough):
        if what == "bytes":
            counterfoil.commit_bytes(zeros, progress=watcher)
        else:
            tensors = {"a": zeros[:GIB], "b": np.zeros(3), "c": zeros[GIB:].view("<f4")}
            counterfoil.commit_tensors(tensors, progress=watcher)
    watcher.check(4 * GIB + (24 if what == "tensors" else 0))
    assert counterfoil.commit_bytes(b"abc").root == oracle.root([b"abc"])  # the pool still works


def test_progress_changes_no_result(tmp_path: Path) -> None:
    data = random.Random(12).randbytes(30 << 20)
    (tmp_path / "data").write_bytes(data)
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    expected = counterfoil.commit_bytes(data)
    assert counterfoil.commit_bytes(data, progress=progress) == expected
    assert counterfoil.commit_file(tmp_path / "data", progress=progress) == expected
    tensors = {"a": np.frombuffer(data, "<f8"), "b": np.zeros(5), "c": None}
    found = counterfoil.commit_tensors(tensors, progress=progress)
    assert found == counterfoil.commit_tensors(tensors)
    assert all(0 <= done <= total for done, total in seen)


def test_work_of_no_time_reports_nothing() -> None:
    """A callback for every small tensor would cost more than the hash."""

    watcher = Watcher(10)  # not none: a busy machine may stop this thread for longer than that
    for _ in range(100):
        counterfoil.commit_bytes(bytes(5000), progress=watcher)
        counterfoil.commit_tensors({"w": np.zeros(500)}, progress=watcher)


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python of its own in which something may hang or be interrupted."""
    prelude = """
        import os, signal, sys, threading, time
        import numpy as np
        import counterfoil
        from counterfoil import _native, errors
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be inherited as ignored
    """
    script = textwrap.dedent(prelude) + textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


WORK = {
    "file": "counterfoil.commit_file(sys.argv[1])",
    "file with progress": "counterfoil.commit_file(sys.argv[1], progress=lambda done, total: None)",
    "bytes": "counterfoil.commit_bytes(zeros)",
    "tensors": "counterfoil.commit_tensors({'a': zeros[:9], 'b': zeros[9:]})",
}


@pytest.mark.parametrize("work", WORK)
def test_an_interrupt_stops_long_work(large: Path, work: str) -> None:
    """Ctrl-C that waits for the end of 64 GiB is no Ctrl-C."""
    code = f"""
        _native.force_backend("portable")
        zeros = np.zeros(4 << 30, np.uint8)
        try:
            print("begin", flush=True)
            while True:
                {WORK[work]}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    process = child(code, large)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert output == "interrupted\n"
    assert process.returncode == 0


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to a pipe"])
def test_only_regular_files_are_hashed(tmp_path: Path, kind: str) -> None:
    """Opening a pipe waits for a writer, and a device has no end."""
    path = tmp_path / "strange"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    code = """
        try:
            counterfoil.commit_file(sys.argv[1])
        except errors.InvalidInput as refused:
            print(type(refused).__name__)
    """
    process = child(code, path)
    try:
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert output == "InvalidInput\n"


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path / "folder" / "missing", str(tmp_path / "missing")):
        with pytest.raises(NotFound):
            counterfoil.commit_file(path)


def test_a_file_that_shrinks_is_refused(large: Path) -> None:
    """Neither a root of the part that was read, nor zeros for the rest, nor SIGBUS."""
    code = """
        _native.force_backend("portable")
        def shrink(done, total):
            os.truncate(sys.argv[1], 5000)
        try:
            counterfoil.commit_file(sys.argv[1], progress=shrink)
        except errors.StorageError as refused:
            print(type(refused).__name__)
    """
    process = child(code, large)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert output == "StorageError\n"


def test_a_file_that_grows_is_refused(tmp_path: Path, slow: None) -> None:
    """A root of what the file held when it was opened is a root of nothing that exists."""
    path, stopped = tmp_path / "log", threading.Event()
    path.write_bytes(bytes(64 << 20))

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stopped.is_set():
                file.write(b"x")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(StorageError):
            counterfoil.commit_file(path)
    finally:
        stopped.set()
        writer.join()
    assert counterfoil.commit_file(path) == counterfoil.commit_bytes(path.read_bytes())


@pytest.mark.parametrize("size", [(5 << 20) + 1, (16 << 20) - 1, (33 << 20) + 513, (40 << 20) + CHUNK])
def test_large_sparse_files_commit_like_their_bytes(tmp_path: Path, size: int) -> None:
    """A slab read short, or read twice, at a size that no buffer divides."""
    chosen, path = random.Random(size), tmp_path / "sparse"
    with path.open("wb") as file:
        for _ in range(20):
            file.seek(chosen.randrange(size - 5000))
            file.write(chosen.randbytes(chosen.randint(1, 5000)))
        file.truncate(size)
    data = path.read_bytes()
    assert len(data) == size
    expected = counterfoil.commit_bytes(data)
    assert counterfoil.commit_file(path) == expected
    borders = [0, *sorted(chosen.randrange(size) for _ in range(5)), size]
    shards = (commit_shard(data[low:high], low) for low, high in itertools.pairwise(borders))
    assert merge_shards(shards) == expected
    assert expected.root == oracle.root(oracle.chunks(data))


# What hostile readers found.


def test_an_exception_is_not_lost_when_the_work_is_done_at_that_moment() -> None:
    """What `progress` raised while the last batch was hashed was swallowed, or ended in a panic."""
    data = np.zeros(300 << 20, np.uint8)
    others = [threading.Thread(target=counterfoil.commit_bytes, args=(data,)) for _ in range(2)]
    for other in others:
        other.start()
    _native.force_backend("portable")

    def refuse(done: int, total: int) -> None:
        time.sleep(0.3)
        raise RuntimeError("no more")

    try:
        with pytest.raises(RuntimeError, match="no more"):
            counterfoil.commit_bytes(data, progress=refuse)
    finally:
        _native.force_backend(None)
        for other in others:
            other.join()


def test_a_fork_inside_progress_goes_on_in_both_processes() -> None:
    """The child has none of its parent's threads, and waited for them for ever."""
    code = """
        _native.force_backend("portable")
        zeros, children = np.zeros(400 << 20, np.uint8), []
        def fork(done, total):
            if not children:
                children.append(os.fork())
        root = counterfoil.commit_bytes(zeros, progress=fork).root
        os.write(1, root.hex().encode() + b" ")
        if children[0]:
            os.write(1, str(os.waitpid(children[0], 0)[1]).encode())
        os._exit(0)
    """
    process = child(code)
    output, _ = process.communicate(timeout=60)
    root = counterfoil.commit_bytes(np.zeros(400 << 20, np.uint8)).root.hex()
    assert output.split() == [root, root, "0"]
    assert process.returncode == 0


def test_a_file_that_holds_more_than_the_system_says_is_refused() -> None:
    """Files of /proc have size 0 by their metadata; the root of nothing was returned for them."""
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("there is no /proc here")
    with pytest.raises(StorageError, match="changed"):
        counterfoil.commit_file("/proc/cpuinfo")


def test_a_mapping_that_changes_while_it_is_described_ends_in_no_panic() -> None:
    tensors: dict[str, object] = {}

    class Text(str):
        def encode(self, *_: object) -> bytes:  # type: ignore[override]
            tensors[f"more {len(tensors)}"] = 1
            return b"text"

    tensors["text"] = Text("text")
    assert counterfoil.commit_tensors(tensors).count == 1


@pytest.mark.parametrize("strange", [[("a", 1)], b"bytes", 5])
def test_only_mappings_have_names(strange: object) -> None:
    with pytest.raises(InvalidInput):
        counterfoil.commit_tensors(strange)  # type: ignore[arg-type]


def test_truth_is_one_byte_of_zero_or_one() -> None:
    """A view of other bytes as booleans gave another root than the same truths."""
    odd = np.array([2, 0, 255], np.uint8).view(np.bool_)
    plain = np.array([True, False, True])
    assert counterfoil.commit_tensors({"b": odd}) == counterfoil.commit_tensors({"b": plain})


def test_a_mask_is_not_ignored() -> None:
    masked = np.ma.masked_array(np.zeros(3), mask=[True, False, False])
    with pytest.raises(InvalidInput, match="masked"):
        counterfoil.commit_tensors({"m": masked})


def test_an_array_that_changes_its_dtype_meanwhile_ends_no_process() -> None:
    array = np.zeros(80 << 20, np.float64)
    _native.force_backend("portable")

    def change(done: int, total: int) -> None:
        array.dtype = np.uint8  # type: ignore[misc]

    try:
        counterfoil.commit_tensors({"a": array}, progress=change)
    finally:
        _native.force_backend(None)


@pytest.mark.parametrize(
    "value",
    [counterfoil.Alias(3), Sharded(np.float32, (1,), []), Sharded("F32", 5, [])],  # type: ignore[arg-type]
)
def test_values_of_wrong_types_are_named(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        counterfoil.commit_tensors({"w": value})
    assert caught.value.where == "w"
