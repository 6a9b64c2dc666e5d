"""A training executed in two environments: where it first differs is where two plain programs differ, to the element."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import counterfoil
import hunted
import oracle
import replays
from counterfoil import cli
from counterfoil.errors import InvalidInput
from counterfoil.torch import diff_live
from hunted import STEPS

pytestmark = pytest.mark.slow

SPEC = {"seed": 1, "dropout": 0.0, "urandom": False}
CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
NARROW = {"ATEN_CPU_CAPABILITY": "default"}
FIELDS = ("gradients", "metrics", "parameters")
"""What a step of this recipe gives, in the order in which data flow."""


def train(run, batches, **options):
    """Records a lane of a run with the recipe's own step."""
    model, optimizer, step = hunted.recipe(run.spec)
    begun = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    recorder = run.attach(model, optimizer, every=1, checkpoint_every=2, **options)
    for number, batch in enumerate(run.batches(batches), 1):
        step(batch, number, recorder.log)
    return begun


def record(path: Path, spec=SPEC, batches=None, **options):
    """A recorded training with one thread, and the weights that it began with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with counterfoil.Run.create(path, spec=spec, recipe=hunted.__file__) as run:
            begun = train(run, batches or hunted.batches(), **options)
    finally:
        torch.set_num_threads(before)
    return path, begun


@pytest.fixture(scope="module")
def plain(home, tmp_path_factory):
    """A run without a fault; not to be changed."""
    return record(tmp_path_factory.mktemp("plain") / "run", store_gradients=True)


@pytest.fixture(scope="module")
def trained(plain, tmp_path_factory):
    """What each step gives in three environments, by programs that know nothing of the library."""
    folder = tmp_path_factory.mktemp("oracle")
    _, begun = plain
    for number, (x, y) in enumerate(hunted.batches(), 1):
        begun = begun | {f"x{number}": x.numpy(), f"y{number}": y.numpy()}
    np.savez(folder / "begin.npz", **begun)
    # What a process takes from its environment when it starts needs one of its own.
    programs = [
        subprocess.Popen(
            [sys.executable, hunted.__file__, folder / "begin.npz", folder, *names],
            env={"OMP_WAIT_POLICY": "PASSIVE", **variables},
        )
        for names, variables in ((("one", "two", "nudged"), {}), (("narrow",), NARROW))
    ]
    assert [program.wait(120) for program in programs] == [0, 0]
    return {name: dict(np.load(folder / f"{name}.npz")) for name in ("one", "two", "nudged", "narrow")}


def first(ours, theirs):
    """Step, field, tensor, index, the two numbers and how many differ, where two trainings first differ; or None."""
    for number in range(1, STEPS + 1):
        for field in FIELDS:
            names = sorted(name for name in ours if name.startswith(f"{number}/{field}/"))
            for name in names:
                unequal = np.argwhere(np.atleast_1d(bits(ours[name]) != bits(theirs[name])))
                if len(unequal):
                    index = tuple(unequal[0].tolist()) if ours[name].shape else ()
                    tensor = name.removeprefix(f"{number}/{field}/")
                    return number, field, tensor, index, ours[name][index], theirs[name][index], len(unequal)
    return None


def bits(array):
    return np.ascontiguousarray(array).view(np.int32)


def shown(number):
    return f"{number!s} (0x{int(bits(number).reshape(-1)[0]) & 0xFFFFFFFF:08x})"


def is_as_expected(found, expected):
    """Compares a difference whose both values are at hand with the oracle's."""
    if expected is None:
        assert found is None
        return
    step, field, tensor, index, ours, theirs, differing = expected
    assert (found.step, found.field, found.tensor, found.index) == (step, field, tensor, index)
    assert (found.ours, found.theirs, found.differing) == (shown(ours), shown(theirs), differing)
    apart = abs(int(bits(ours).reshape(-1)[0]) - int(bits(theirs).reshape(-1)[0]))
    assert found.ulps == (apart if np.signbit(ours) == np.signbit(theirs) else None)


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `counterfoil ARGUMENTS` in this process: (exit code, standard output)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["counterfoil", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().out

    return run


def test_equal_environments_differ_nowhere(plain, command):
    """A hunt that finds something in the same training twice would accuse every machine."""
    path, _ = plain
    pinned = counterfoil.Record(path).recipe_digest
    code, said = command("diff", path, "--env", "threads=1", "--env", "threads=1", "--recipe", pinned)
    assert (code, said) == (0, f"nothing differs in {STEPS} steps ({6 * STEPS} fields)\n")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one thread is all there is")
def test_two_numbers_of_threads(plain, trained, command):
    """The first element, both values and the cause, in a bundle as in a folder; exit code 3."""
    path, _ = plain
    expected = first(trained["one"], trained["two"])
    bundle = path.with_suffix(".counterfoil")
    counterfoil.export(path, bundle)
    compared = diff_live(bundle, {"threads": 1}, {"threads": 2}, run_untrusted=True)
    is_as_expected(compared.first, expected)
    if expected is None:
        return
    cause = "the inputs are equal and the environments differ in threads (1 | 2): expect other bits"
    assert compared.first.diagnosis.endswith(cause)
    code, said = command("diff", path, "--env", "threads=2", "--run-untrusted")
    assert code == 3
    # Beside the record: its gradients are stored behind checkpoints.
    assert f"first difference: step {expected[0]}: {expected[1]} {expected[2]!r}" in said
    assert f"first   {shown(expected[4])}\n  second  {shown(expected[5])}" in said and cause in said


@pytest.mark.skipif(CAPABILITY not in ("avx2", "avx512"), reason="this processor has one set of instructions")
def test_other_instructions(plain, trained):
    """A variable of the environment reaches the process, and what follows from it is named."""
    path, _ = plain
    expected = first(trained["one"], trained["narrow"])
    found = diff_live(path, {}, NARROW, run_untrusted=True).first
    is_as_expected(found, expected)
    if expected is not None:
        assert "ATEN_CPU_CAPABILITY (not set | default)" in found.diagnosis
        assert f"cpu_capability ({CAPABILITY.upper()} | DEFAULT)" in found.diagnosis


def test_a_planted_unit_in_the_last_place(plain, trained):
    """The smallest fault that there is, in one environment only; the record stores the gradient that it changes."""
    path, _ = plain
    expected = first(trained["one"], trained["nudged"])
    assert expected is not None and expected[0] == 3
    found = diff_live(path, {"NUDGED": "1"}, run_untrusted=True)
    is_as_expected(found.first, expected)
    assert (found.steps, found.gaps) == (3, ())
    assert "the environments differ in NUDGED (not set | 1)" in found.first.diagnosis
    roots = [
        f"0x{oracle.root(oracle.chunks(trained[which][f'3/{expected[1]}/{expected[2]}'].tobytes())).hex()}"
        for which in ("one", "nudged")
    ]
    assert [found.first.ours_root, found.first.theirs_root] == roots


def test_a_generator_that_one_side_advanced(home, tmp_path):
    """Dropout draws other numbers there; the generators' recorded states go into both at each step."""
    path, _ = record(tmp_path / "run", SPEC | {"dropout": 0.5})
    found = diff_live(path, {}, {"DREW": "1"}, run_untrusted=True).first
    assert (found.step, found.field) == (2, "gradients")
    assert "the environments differ in DREW (not set | 1)" in found.diagnosis


def test_chance_is_found_in_two_equal_environments(home, tmp_path):
    """A recipe that asks the machine for a number: nothing else differs, and that is what is said."""
    path, _ = record(tmp_path / "run", SPEC | {"urandom": True})
    compared = diff_live(path, {}, {}, run_untrusted=True)
    assert (compared.first.step, compared.first.field, compared.steps) == (4, "gradients", 4)
    assert compared.first.diagnosis.endswith("forged, other code or precision, or nondeterminism")


def test_several_lanes(home, tmp_path):
    """A difference in the second lane is found and named with that lane, behind all steps of the first."""
    path, _ = record(tmp_path / "run")
    batches = hunted.batches()
    batches[1][0][0, 0] = 60.0
    worker = counterfoil.Key.generate()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with counterfoil.Run.join(path, lane=1, rank=1, key=worker) as run:
            train(run, batches)
    finally:
        torch.set_num_threads(before)
    told = []
    compared = diff_live(
        path,
        {"MARKED": "1"},
        run_untrusted=True,
        progress=lambda done, all_of_them: told.append((done, all_of_them)),
    )
    assert (compared.first.lane, compared.first.step) == (f"{worker.address} lane 1", 2)
    assert compared.steps == STEPS + 2
    assert told == [(done, 2 * STEPS) for done in range(1, STEPS + 3)]


def test_a_step_that_cannot_be_executed_is_a_gap(home, tmp_path, command):
    """It must not pass for equal, nor keep what lies behind the next checkpoint from being compared."""
    batches = [(x, y, "text") if number == 3 else (x, y) for number, (x, y) in enumerate(hunted.batches(), 1)]
    path, _ = record(tmp_path / "run", batches=batches)
    code, said = command("diff", path, "--env", "threads=1", "--run-untrusted")
    assert code == 4
    assert said.startswith("nothing differs in 4 steps (24 fields)\n  not compared: ")
    assert said.endswith("step 3 is flagged as skipped or not replayable\n")


def test_a_bundle_of_some_steps(plain, tmp_path):
    """A step that is not shown is a gap: it was a KeyError. The next checkpoint goes on."""
    path, _ = plain
    counterfoil.export(path, tmp_path / "some.counterfoil", steps=[0, 1, 2, 4, 5, 6])
    compared = diff_live(tmp_path / "some.counterfoil", {"threads": 1}, run_untrusted=True)
    assert (compared.first, compared.steps) == (None, 4)
    (gap,) = compared.gaps
    assert gap.endswith("step 3 is not shown")


@pytest.mark.parametrize(
    "environment",
    [
        {"threads": "2"},
        {"threads": 0},
        {"threads": True},
        {"deterministic": "true"},
        {"mkldnn": 1},
        {"matmul_precision": "bogus"},
        {"default_dtype": "torch.int8"},
        {"A=B": "1"},
        {"A": "\0"},
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused(plain, environment):
    """What the child cannot set would end it, and look like a step that cannot be executed."""
    path, _ = plain
    with pytest.raises(InvalidInput):
        diff_live(path, {}, environment, run_untrusted=True)


def test_one_environment_or_two(plain, command):
    """Nothing to compare with, or a third that would be ignored."""
    path, _ = plain
    for environments in ((), ({}, {}, {})):
        with pytest.raises(InvalidInput, match="one environment"):
            diff_live(path, *environments, run_untrusted=True)
    assert command("diff", path, path, "--env", "threads=1")[0] == 2
    assert command("diff", path)[0] == 2
    assert command("diff", path, "--env", "threads", "--run-untrusted")[0] == 2


def test_a_recipe_that_was_not_pinned_is_not_run(plain):
    """It is the prover's code."""
    path, _ = plain
    with pytest.raises(InvalidInput, match="was not run"):
        diff_live(path, {}, {})
    with pytest.raises(InvalidInput, match="pinned"):
        diff_live(path, {}, {}, recipe="0x" + "00" * 32)


def test_the_command_leaves_variables_as_text(plain):
    """`true` is a flag of a setting, and four letters of a variable."""
    assert cli._environment("deterministic=true,FLAG=true,threads=2,mkldnn=false") == {
        "deterministic": True, "FLAG": "true", "threads": 2, "mkldnn": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["thread", "Threads", "", "OMP_NUM_THREADS", "PYTHONHASHSEED", "a=b"])
def test_a_setting_that_nothing_reads_is_refused(tmp_path, name):
    """A misspelt setting would find no difference, and look like an environment that was tried."""
    path = replays.record(tmp_path / "run", steps=1)
    with pytest.raises(InvalidInput, match="no setting"):
        diff_live(path, {name: "2"}, run_untrusted=True)
