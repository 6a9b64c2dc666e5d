"""The interpolation spoof of proof-of-learning: a thousand segments pass a verifier of weight distances, and none ours.

`pytest -s` prints the counts and seconds. The thief claims a tiny learning rate, or the pinned one, and signs the
gradients that lead along its line; a lazier one writes the weights of its line behind each step.
"""

import re
import time
from pathlib import Path

import numpy as np
import pytest

import counterfoil
import planted
from counterfoil.attacks.interpolation_spoof import CLAIMED, claim, led_to
from counterfoil.attacks.proof_of_learning import distances, tolerance, trained
from counterfoil.attacks.training import SPEC, before_recording, honestly, weights, write
from counterfoil.errors import Refuted
from counterfoil.testing import forge
from counterfoil.torch.execution import Differs, Execution, Lane
from counterfoil.torch.process import Child

pytestmark = pytest.mark.slow

SEGMENTS = 1_100
SHARES = (0.001, 0.01, 0.1)
"""Of the distance between two trainings from other seeds, what the verifier of distances tolerates."""


@pytest.fixture(scope="module")
def stolen(home):
    with planted.one_thread():
        yield trained(SEGMENTS, SPEC | {"seed": 7})


@pytest.fixture(scope="module")
def tolerances(stolen):
    whole = tolerance(SEGMENTS, 1.0)
    return {share: share * whole for share in SHARES}


def written(stolen):
    """The lazy thief: each step applies one stale gradient, and writes the line's weights behind it."""
    line = []

    def deed(training, batch, number):
        if number == 1:
            line.extend(forge.interpolate(weights(training.model), stolen, SEGMENTS))
        with before_recording(training.optimizer, lambda: write(training.model, line[number - 1])):
            if number == 1:
                training.step(batch, number)
            else:
                training.optimizer.step()

    return deed


MADE = {
    "honest": lambda stolen: (honestly, SPEC),
    "tiny rate": lambda stolen: (led_to(stolen, SEGMENTS), CLAIMED),
    "pinned rate": lambda stolen: (led_to(stolen, SEGMENTS), SPEC),
    "written": lambda stolen: (written(stolen), SPEC),
}


@pytest.fixture(scope="module")
def recorded(stolen):
    """A function that records one of `MADE`, once, in memory: every step stores a state."""
    paths = {}
    with planted.memory() as folder:

        def make(kind):
            if kind not in paths:
                begun = time.perf_counter()
                deed, spec = MADE[kind](stolen)
                paths[kind] = claim(
                    Path(folder, kind.replace(" ", "-")), deed, spec, SEGMENTS, store_gradients=True
                )
                told(kind, "recorded", SEGMENTS, begun)
            return paths[kind]

        yield make


def told(kind, what, count, begun):
    print(f"{kind}: {what} {count} of {SEGMENTS} segments in {time.perf_counter() - begun:.1f} s")


def accepted(kind, path, tolerances, learning_rate=None):
    """How many segments a verifier of distances accepts, for each of its tolerances."""
    begun = time.perf_counter()
    found = np.array(distances(path, learning_rate))
    assert len(found) == SEGMENTS
    counts = {share: int((found <= allowed).sum()) for share, allowed in tolerances.items()}
    pinned = "" if learning_rate is None else f" with the rate pinned to {learning_rate}"
    told(kind, f"accepted by distance{pinned}, by tolerance {counts}:", max(counts.values()), begun)
    return counts


def refused_by_replay(kind, path):
    """Each segment executed from its own stored state and compared bit for bit; how many differ."""
    begun = time.perf_counter()
    record = counterfoil.Record(path)
    lane = Lane(record, *record.lanes[0])
    found = []
    with Child(record) as child:
        execution = Execution(lane, child, 60.0)
        for step in lane.steps:
            child.stands = None
            try:
                execution.reach(step)
            except Differs as differs:
                found.append((step, differs.found.step, differs.excuse))
    assert all(step == at and excuse is None for step, at, excuse in found)
    told(kind, "refused by replay", len(found), begun)
    return len(found)


def refused_by_verify(kind, path):
    """How many steps' updates `verify` names, without recipe or torch: in bundles, since it lists 64 edges at most."""
    begun = time.perf_counter()
    refused, bundle, together = set(), path.with_suffix(".counterfoil"), 15
    for first in range(1, SEGMENTS + 1, together):
        # The state before a step lies with the step before it.
        counterfoil.export(path, bundle, steps=range(first - 1, first + together))
        try:
            counterfoil.verify(bundle)
        except Refuted as refuted:
            edges = [
                re.search(r"\(step (\d+)\): update of parameters", e.edge) for e in refuted.verdict.broken
            ]
            assert all(edges)
            refused |= {int(edge[1]) for edge in edges}
    told(kind, "refused by verify", len(refused), begun)
    return len(refused)


def test_an_honest_training_is_accepted_by_all(recorded, tolerances):
    """A verifier that refuses everybody: the spoof's refusals would say nothing."""
    path = recorded("honest")
    assert set(accepted("honest", path, tolerances).values()) == {SEGMENTS}
    assert refused_by_replay("honest", path) == 0
    assert counterfoil.verify(path).status == "verified"


def test_a_spoof_with_a_tiny_rate_passes_distances_and_no_replay(recorded, tolerances):
    """The attack of the papers, and what it costs to see it: the signed gradients are not those of the batches."""
    path = recorded("tiny rate")
    assert set(accepted("tiny rate", path, tolerances).values()) == {SEGMENTS}
    assert refused_by_replay("tiny rate", path) == SEGMENTS


def test_a_pinned_rate_is_seen_by_distance_where_another_was_claimed(recorded, tolerances):
    """Who fixes the rate beforehand needs no bits for that thief: only its first step, without momentum, is near."""
    assert max(accepted("tiny rate", recorded("tiny rate"), tolerances, SPEC["learning_rate"]).values()) <= 1


def test_a_spoof_at_the_pinned_rate_passes_wide_distances_and_no_replay(recorded, tolerances):
    """Pinning the rate alone is no defence where a step is shorter than the tolerance."""
    path = recorded("pinned rate")
    counts = accepted("pinned rate", path, tolerances, SPEC["learning_rate"])
    assert counts[0.01] == counts[0.1] == SEGMENTS
    assert refused_by_replay("pinned rate", path) == SEGMENTS


def test_verify_alone_sees_updates_that_do_not_follow_and_not_where_gradients_come_from(recorded):
    """Stored gradients show the lazy thief; the one who signs gradients that lead there is shown by replay alone."""
    assert refused_by_verify("written", recorded("written")) == SEGMENTS
    notes = counterfoil.verify(recorded("tiny rate")).notes
    assert f"update of {SEGMENTS} steps was executed again from stored gradients, bit-exact" in str(notes)


def test_weights_that_were_written_pass_distances(recorded, tolerances):
    """The lazy thief, too, is nobody whom a verifier of distances sees."""
    assert accepted("written", recorded("written"), tolerances)[0.01] == SEGMENTS
