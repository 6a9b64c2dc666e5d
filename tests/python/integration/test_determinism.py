"""What `docs/recorder.md` says of equal bits, in processes of their own; each control shows that bits can differ."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

import bits
from counterfoil.torch import determinism
from counterfoil.torch.collect import VARIABLES

pytestmark = pytest.mark.slow

PORTABLE = {"profile": {"portable": True}}
EXPORTED = determinism.PORTABLE
x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="the profile is x86-64's"
)


def train(*variants, **environment):
    """What the variants came to, one after the other in one new process."""
    kept = {name: value for name, value in os.environ.items() if name not in {*VARIABLES, "OMP_NUM_THREADS"}}
    done = subprocess.run(
        [sys.executable, "-W", "error", bits.__file__, json.dumps(variants)],
        env=kept | {"OMP_WAIT_POLICY": "passive"} | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def here():
    """Two threads, one, what an optimiser or a batch may be split into, and without oneDNN."""
    return train(
        {"profile": {}, "threads": 2},
        {"threads": 1},
        {"threads": 1, "foreach": True},
        {"threads": 1, "fused": True},
        {"threads": 1, "micro": 2},
        {"threads": 1, "mkldnn": False},
    )


@pytest.fixture(scope="module")
def portable():
    return train(PORTABLE)


def differing(one, other):
    return {name for name in one if one[name] != other[name]}


def test_two_runs_are_equal_to_the_bit(here):
    """A setting that lets bits vary between processes; on a CPU they are also those without the function."""
    assert train({"threads": 2}, {"profile": {}, "threads": 2}) == here[:1] * 2


def test_what_changes_bits(here):
    """The table of the docs; a digest that does not see the weights."""
    two, one, foreach, fused, micro, without = here
    assert differing(two, one) == set(one)
    assert foreach == one
    assert differing(fused, one) == differing(micro, one) == set(one)
    assert differing(without, one) == {"convolution, SGD"}


@x86
def test_the_portable_profile_overrides_what_the_process_was_started_with(portable):
    """A variable that is read before it is set, or that the function does not know."""
    other = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert train(PORTABLE, OMP_NUM_THREADS="1", MKL_ENABLE_INSTRUCTIONS="SSE4_2", **other) == portable
    assert train(PORTABLE | {"compute": True}, OMP_NUM_THREADS="3", **EXPORTED) == portable


@x86
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="no vector instructions here"
)
def test_without_the_profile_the_instructions_change_bits(here, portable):
    """Those that torch chooses, and those that MKL does beside it."""
    (oldest,) = train({"threads": 1}, ATEN_CPU_CAPABILITY="default")
    assert differing(oldest, here[1]) == differing(oldest, portable[0]) == set(oldest)


@x86
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="no vector instructions here"
)
@pytest.mark.parametrize("exported", ["avx2", "default"])
def test_what_comes_too_late_is_refused_and_leaves_no_trace(monkeypatch, exported):
    """A profile that claims to hold although torch or MKL had chosen before, as they have here."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", exported)
    before, threads = dict(os.environ), torch.get_num_threads()
    with pytest.raises(determinism.InvalidInput) as refused:
        determinism.deterministic(portable=True)
    assert all(f"{name}={value}" in str(refused.value) for name, value in EXPORTED.items())
    assert (dict(os.environ), torch.get_num_threads()) == (before, threads)


def test_cuda_that_began_without_a_fixed_workspace_is_refused(monkeypatch):
    """cuBLAS reads the variable when it starts: setting it later changes nothing."""
    monkeypatch.delenv(determinism.CUBLAS, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(determinism.InvalidInput, match=f"export {determinism.CUBLAS}=:4096:8"):
        determinism.deterministic()
    assert determinism.CUBLAS not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()
