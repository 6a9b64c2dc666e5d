"""Each thing that goes wrong has its own error, which says where and what to do."""

import os
import re
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import samples
from counterfoil import Record, Run, errors
from oracle import ROOT


def test_every_error_has_one_base_and_a_code() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    classes = [each for each in classes if issubclass(each, Exception)]
    assert errors.CounterfoilError in classes
    for each in classes:
        assert issubclass(each, errors.CounterfoilError)
    codes = [each.code for each in classes if each is not errors.CounterfoilError]
    assert len(set(codes)) == len(codes)


def test_every_code_of_the_core_has_its_exception() -> None:
    """A code without one reaches users as KeyError, with neither message nor advice."""
    functions = [
        body
        for source in [*ROOT.glob("src/**/*.rs"), *ROOT.glob("crates/*/src/**/*.rs")]
        for body in re.findall(
            r"fn code\(&self\) -> &'static str \{(.*?)\n    \}", source.read_text(), re.DOTALL
        )
    ]
    codes = {code for body in functions for code in re.findall(r'"([a-z-]+)"', body)}
    assert {"chain", "unfinished", "journal-corrupt"} <= codes
    for code in codes:
        assert errors.from_code(code, "", None, None, None).code == code


def test_unsupported_dtype_names_the_tensor() -> None:
    with pytest.raises(errors.UnsupportedDtype) as caught:
        counterfoil.commit_tensors({"layer.weight": np.zeros(2, np.complex128)})
    assert caught.value.code == "unsupported-dtype"
    assert caught.value.where == "layer.weight"
    assert "complex128" in str(caught.value.actual)


def test_a_closed_run_records_nothing(tmp_path: Path) -> None:
    run = samples.create(tmp_path / "run")
    training = samples.LeastSquares()
    training.record(run, 1, 1)
    run.close()
    assert run.closed
    with pytest.raises(errors.RunClosed):
        run.record_step(2, training.step(2))
    run.close()  # closing twice is no error


def test_an_exception_seals_the_run_and_passes_on(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), samples.create(tmp_path / "run") as run:
        samples.LeastSquares().record(run, 1, 2)
        raise ZeroDivisionError
    last = Record(tmp_path / "run").receipts()[-1]
    assert (last.kind, last.fields["reason"]) == ("close", 1)
    assert counterfoil.verify(tmp_path / "run").integrity.startswith("intact")


def test_creating_over_an_existing_run_is_refused(copy: Path) -> None:
    with pytest.raises(errors.RunExists):
        Run.create(copy)


def test_steps_cannot_be_skipped_or_repeated(tmp_path: Path) -> None:
    with samples.create(tmp_path / "run") as run:
        training = samples.LeastSquares()
        training.record(run, 1, 2)
        for number in (2, 4, 0):
            with pytest.raises(errors.InvalidInput):
                run.record_step(number, training.step(3))
        with pytest.raises(errors.InvalidInput):
            run.record_step(3, {"unheard of": counterfoil.commit_tensors({})})
        with pytest.raises(errors.InvalidInput):  # a due field is missing
            run.record_step(3, {})
        with pytest.raises(errors.InvalidInput):  # a commitment to bytes in a state's place
            run.record_step(3, {**training.step(3), "metrics": counterfoil.commit_bytes(b"x")})
    assert counterfoil.verify(tmp_path / "run").integrity.startswith("intact")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for use in (counterfoil.verify, Record, Run.open, partial(Run.join, lane=1)):
        with pytest.raises(errors.NotFound) as caught:
            use(tmp_path / "nowhere")
        assert "nowhere" in str(caught.value)
    with pytest.raises(errors.NotFound):
        counterfoil.commit_file(tmp_path / "nothing")


def test_a_second_writer_in_another_process_is_refused(tmp_path: Path) -> None:
    """Two writers would sign two receipts of one sequence: a fork by accident."""
    path = tmp_path / "run"
    run = samples.create(path)
    samples.LeastSquares().record(run, 1, 2)
    run.flush()
    program = (
        "import sys, counterfoil\n"
        "try: counterfoil.Run.open(sys.argv[1])\n"
        "except counterfoil.errors.RunLocked: print('locked')"
    )
    command = [sys.executable, "-c", program, str(path)]
    assert subprocess.check_output(command, text=True).strip() == "locked"
    with pytest.raises(errors.RunLocked):
        Run.open(path)
    run.close()
    assert subprocess.check_output(command, text=True).strip() == ""


def test_a_full_disk_is_named_and_what_was_durable_stays(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the full disk: a write beyond it fails in the kernel."""
    program = """
import resource, signal, sys
from pathlib import Path
import counterfoil, samples
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run = samples.create(Path(sys.argv[1]))
training = samples.LeastSquares()
training.record(run, 1, 3)
run.flush()
size = samples.journal(Path(sys.argv[1])).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, size + 700))
try:
    for number in range(4, 40):
        run.record_step(number, training.step(number) | {
            'parameters': counterfoil.commit_tensors({'w': training.weights})})
        run.flush()
except counterfoil.errors.StorageFull as error:
    print('full', error.code)
    sys.stdout.flush()
    import os; os._exit(0)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(Path(samples.__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.stdout.strip() == "full storage-full", result.stdout + result.stderr
    verdict = counterfoil.verify(tmp_path / "run")
    assert verdict.integrity.startswith("intact")
    steps = [r for r in Record(tmp_path / "run").receipts() if r.kind == "step"]
    assert len(steps) >= 3


def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(errors.CounterfoilError) as caught:
        Run.create(tmp_path / "file" / "run")
    assert "file" in str(caught.value)


def test_a_corrupt_journal_is_named_with_its_place(copy: Path) -> None:
    """Damage in front of valid frames is not a torn tail: nothing may be cut off."""
    path = samples.journal(copy)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(errors.CorruptJournal) as caught:
        Run.open(copy)
    assert "journal" in str(caught.value.where)
    with pytest.raises(errors.Refuted):
        counterfoil.verify(copy)
    assert path.read_bytes() == data


@pytest.mark.parametrize("cut", [1, 5, 40, 200])
def test_a_torn_tail_is_reported_and_repaired_only_by_a_writer(copy: Path, home: Path, cut: int) -> None:
    """A crash leaves half a frame: readers look past it, the next writer truncates it."""
    for noted in (home / "released").iterdir():
        noted.unlink()  # what a crash cuts off had not left the device
    path = samples.journal(copy)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    verdict = counterfoil.verify(copy)
    assert verdict.integrity.startswith("intact")
    assert path.read_bytes() == whole[:-cut]
    with Run.open(copy) as run:
        assert run.step == samples.STEPS
        training = samples.LeastSquares()
        for number in range(1, samples.STEPS + 1):
            training.step(number)
        training.record(run, samples.STEPS + 1, samples.STEPS + 2)
    resumed = [r for r in Record(copy).receipts() if r.kind == "resume"]
    assert len(resumed) == 1
    assert resumed[0].fields["droppedBytes"] > 0
    assert counterfoil.verify(copy).integrity.startswith("intact")


def test_an_older_copy_of_a_run_is_not_continued(tmp_path: Path) -> None:
    """Receipts that left the device must not be signed again with other contents."""
    run = Run.create(tmp_path / "run")
    samples.LeastSquares().record(run, 1, 3)
    run.flush()
    shutil.copytree(tmp_path / "run", tmp_path / "older")
    run.close()
    with pytest.raises(errors.CorruptJournal) as caught:
        Run.open(tmp_path / "older")
    assert int(caught.value.expected or 0) > int(caught.value.actual or 0)
    Run.open(tmp_path / "run").close()


def test_a_run_continues_where_it_stopped(tmp_path: Path) -> None:
    """Open, record, close: the second part follows the first without a gap."""
    path = tmp_path / "run"
    training = samples.LeastSquares()
    with samples.create(path) as run:
        training.record(run, 1, 5)
    with Run.open(path) as run:
        assert run.step == 5
        training.record(run, 6, 8)
    kinds = [receipt.kind for receipt in Record(path).receipts()]
    assert kinds.count("resume") == 1
    assert kinds.count("close") == 2
    assert counterfoil.verify(path).integrity.startswith("intact")


def test_a_second_worker_joins_with_its_own_ledger(tmp_path: Path) -> None:
    path = tmp_path / "run"
    training = samples.LeastSquares()
    other = counterfoil.Key.generate()
    with samples.create(path) as run, Run.join(path, lane=0, key=other) as joined:
        assert joined.id == run.id
        training.record(run, 1, 2)
        samples.LeastSquares().record(joined, 1, 3)
    verdict = counterfoil.verify(path)
    assert verdict.integrity.startswith("intact")
    assert len(Record(path).receipts(worker=other.address)) == 1 + 3 + 1
    assert "1 more worker" in str(verdict)


def test_an_exposed_key_is_refused(tmp_path: Path) -> None:
    """A key that others can read signs for others too."""
    path = tmp_path / "key"
    path.write_text("11" * 32)
    path.chmod(0o644)
    with pytest.raises(errors.KeyRefused) as caught:
        counterfoil.Key.load(path)
    assert "chmod 600" in str(caught.value)
    path.chmod(0o600)
    assert counterfoil.Key.load(path).address.startswith("0x")


@pytest.mark.parametrize("text", ["", "00" * 32, "11" * 31, "zz" * 32, "ff" * 32, "11" * 33])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(errors.KeyRefused) as caught:
        counterfoil.Key.load(path)
    assert not text or text not in str(caught.value)


def test_no_error_shows_a_key(tmp_path: Path) -> None:
    """repr and str of a key show its address only."""
    key = counterfoil.Key.generate()
    assert key.address in repr(key)
    path = tmp_path / "key"
    path.write_text("11" * 32)
    path.chmod(0o600)
    loaded = counterfoil.Key.load(path)
    assert "11" * 32 not in repr(loaded) + str(loaded) + str(vars(type(loaded)))


def test_the_device_key_is_made_once_for_its_owner_only(home: Path) -> None:
    first = counterfoil.Key.device()
    assert counterfoil.Key.device().address == first.address
    assert (home / "device.key").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o077 == 0 or os.getuid() == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_neither_writes_nor_frees_the_lane(tmp_path: Path) -> None:
    """Loader workers inherit the writer: a second signer of one lane would be a fork."""
    run = Run.create(tmp_path / "run")
    child = os.fork()
    if child == 0:
        try:
            run.flush()
        except errors.RunLocked:
            run._ledger.release()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    program = f"import counterfoil; counterfoil.Run.open({str(tmp_path / 'run')!r})"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "RunLocked" in other.stderr
    run.close()


RECORD_UNTIL_KILLED = """
import sys
import counterfoil
run = counterfoil.Run.create(sys.argv[1])
for step in range(1, 10_000):
    run.record_step(step, {"metrics": counterfoil.commit_tensors({"loss": 1 / step}, keep=True)})
    if step % 20 == 0:
        run.flush()
        print(step, flush=True)
"""


def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-c", RECORD_UNTIL_KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(5)][-1]
        process.kill()
    verdict = counterfoil.verify(path)
    assert verdict.status == "verified"
    assert "not shown to its end" in verdict.integrity
    with Run.open(path) as run:
        assert run.step >= said
        run.record_step(run.step + 1, {})
    (resumed,) = [receipt for receipt in Record(path).receipts() if receipt.kind == "resume"]
    assert resumed.fields["reason"] == 1
    assert counterfoil.verify(path).integrity.startswith("intact;")


def test_every_code_says_what_to_do_in_words_of_its_own() -> None:
    """A code without a remedy would stand on the page of error codes with nothing to try."""
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.CounterfoilError)
    ]
    remedies = [vars(each).get("remedy", "") for each in classes]
    assert all(remedy.endswith(".") for remedy in remedies), [
        each.code for each, remedy in zip(classes, remedies, strict=True) if not remedy
    ]
    assert len(set(remedies)) == len(classes)
    for each in classes:
        assert each.__doc__ and each.__doc__.splitlines()[0].endswith(".")
