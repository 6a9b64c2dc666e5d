"""Executes recorded steps again and compares.

A step that cannot be executed is reported as such and never counts as replayed; on a machine whose bits may
differ from the recording one's, a difference is not held against the run.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import counterfoil
from counterfoil import Record
from counterfoil.attest import OTHER, SAME, Attestation
from counterfoil.diff import Difference
from counterfoil.errors import InvalidInput
from counterfoil.sampling import choose, draw, odds, sampled
from counterfoil.torch.environments import checked
from counterfoil.torch.execution import ELSEWHERE, Differs, Execution, Lane
from counterfoil.torch.judge import Fingerprints, begins_alike, judge
from counterfoil.torch.process import Child, NotReplayable
from counterfoil.torch.recipes import locked
from counterfoil.torch.tolerance import Calibration
from counterfoil.verify import Mismatch, ReplayReport

if TYPE_CHECKING:
    from counterfoil import Chain, Key, Verdict
    from counterfoil.torch.collect import State


UNLIKE = 10
"""Most versions that are named because the recipe locks others."""


def replay(
    path: str | Path,
    steps: str | Sequence[int] = "all",
    *,
    recipe: str | None = None,
    run_untrusted: bool = False,
    signer: str | None = None,
    require: str = "integrity",
    chain: Chain | None = None,
    trusted_blocks: Iterable[str] = (),
    timeout: float = 120.0,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    attest: Key | None = None,
    beacon: bytes | None = None,
    tolerance: Calibration | None = None,
    environment: Mapping[str, str | int | bool] | None = None,
    fingerprint_key: bytes | None = None,
) -> Verdict:
    """Verifies a run, executes chosen steps of it again and compares them bit for bit.

    Args:
        path: The run folder, or a bundle.
        steps: `"all"`, `"sample:20"` (drawn here and now, without replacement), `"beacon:20"` (drawn by the block
            that `Chain.beacon` names), step numbers, or steps and spans as in `"0,3,207:217"`. Step 0 is the state
            before the first: whether the recipe makes it.
        recipe: The recipe's digest (`0x` and 64 hex digits) that you have read and trust.
        run_untrusted: Runs the recipe without such a pin.
        signer, require, chain, trusted_blocks: As for `counterfoil.verify`.
        timeout: Seconds a step may take.
        jobs: Processes that execute steps at the same time, each with as many threads as the run had.
        progress: Called with the steps that are done, and all that are to be done.
        attest: Signs with this key what came of each step, in a lane of its own in the run's folder. Steps that it
            attested before, with the same outcome, are not executed again: an interrupted replay goes on.
        beacon: 32 bytes that nobody knew before, such as a block's hash: then the answers are promised, and given by
            `counterfoil.attest.reveal`.
        tolerance: Thresholds of `calibrate`, for steps whose bits differ on this machine: each is judged from the
            state that is stored just before it, by its stored gradient and what is stored behind it.
        environment: What the steps are executed with where the run says otherwise; names as in `diff_live`.
        fingerprint_key: The 32 bytes that you gave whoever signed fingerprints, for gradients that are not stored; by
            default each step's own key, under which a fingerprint shows errors and no lies.

    Of each lane the chosen steps are executed. A step of several ranks needs a checkpoint just before it, and only what
    its rank computed alone is compared, its contribution: such a step does not count as replayed.

    Returns:
        The verdict, its Transition line counting the steps that came out bit-exact.

    Raises:
        Refuted: The evidence is broken, or a step came out differently; carries the verdict.
        InvalidInput: The recipe is missing or not pinned, or a step does not exist.

    Source:
        docs/format.md, section 4.
    """
    record = Record(path)
    pins: dict[str, Any] = {"signer": signer, "recipe": recipe, "require": require, "chain": chain}
    pins["trusted_blocks"] = tuple(trusted_blocks)

    def verify(report: ReplayReport | None) -> Verdict:
        return counterfoil.verify(record, replay=report, **pins)

    verify(None)
    check_recipe(record, recipe, run_untrusted)
    if tolerance is not None:
        tolerance.check(record)
    with contextlib.ExitStack() as stack:
        attestation = None
        if attest is not None:
            attestation = stack.enter_context(Attestation(record, attest, beacon))
        options: dict[str, Any] = {"jobs": jobs, "progress": progress, "attestation": attestation}
        options |= {"tolerance": tolerance, "environment": environment or {}}
        options["prints"] = None if tolerance is None else Fingerprints.of(record, fingerprint_key)
        return verify(re_execute(record, steps, timeout, chain=chain, **options))


def check_recipe(record: Record, pinned: str | None, run_untrusted: bool) -> None:
    """Refuses a recipe that the verifier did not choose to run.

    Raises:
        InvalidInput: It is missing, not pinned, or not what was pinned.
    """
    digest, names = record.recipe_digest, sorted(record.recipe)
    if digest is None:
        raise InvalidInput("the run has no recipe: its steps cannot be executed again", where="recipe")
    paths = [PurePosixPath(name) for name in names]
    if any(path.is_absolute() or ".." in path.parts or "\\" in str(path) for path in paths):
        raise InvalidInput("a recipe file's name leads out of its folder", where="recipe")
    if pinned is not None and pinned.lower() != digest:
        raise InvalidInput("the recipe is not the pinned one", expected=pinned, actual=digest, where="recipe")
    if pinned is None and not run_untrusted:
        raise InvalidInput(
            f"the recipe is the prover's code and was not run. Read {', '.join(names)} (counterfoil inspect "
            f'{record.path} --recipe prints it), then pin it with recipe="{digest}" (--recipe), or say '
            "run_untrusted=True (--run-untrusted)",
            actual=digest,
            where="recipe",
        )


@dataclass
class Part:
    """Chosen steps of one lane that one process executes in order, and what came of them."""

    lane: Lane
    steps: list[int]
    replayed: list[int] = field(default_factory=list)
    tolerated: list[int] = field(default_factory=list)
    hidden: float = 0.0
    sketched: list[int] = field(default_factory=list)
    contributed: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    differing: list[Differs] = field(default_factory=list)
    refuted: list[Difference] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    begins: bool = False


def re_execute(
    record: Record,
    steps: str | Sequence[int],
    timeout: float,
    *,
    chain: Chain | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
    attestation: Attestation | None = None,
    tolerance: Calibration | None = None,
    environment: Mapping[str, str | int | bool] = MappingProxyType({}),
    prints: Fingerprints | None = None,
) -> ReplayReport:
    """Executes chosen steps of each lane and reports what was seen, up to the first that differs."""
    # By number, which is the rank: by the workers' addresses, chance would say who is executed before one that differs.
    places = sorted(record.lanes, key=lambda place: place[1])
    lanes = [lane for lane in (Lane(record, *place) for place in places) if lane.steps]
    if len(lanes) == 1:
        lanes[0].prefix = ""
    last = max((max(lane.steps) for lane in lanes), default=0)
    unlike = locked(record.recipe)
    notes, parts = unlike[:UNLIKE], list[Part]()
    drawn: list[int] | None = None
    if isinstance(steps, str) and steps.startswith("beacon:") and chain is not None:
        if len(lanes) > 1:
            raise InvalidInput("a beacon samples a run of one lane: others can be added later", where="steps")
        block, head, last = chain.beacon(record)
        drawn = draw(block, head, last, sampled(steps))
    for lane in lanes:
        every = choose(steps, last, drawn)
        if attestation is not None:
            known = [step for step in every if lane.is_whole(step) and attestation.knows(lane.steps[step])]
            parts.append(Part(lane, [], known))
            every = sorted(set(every) - set(known))
        chosen = [step for step in every if step in lane.steps]
        numbered = len(every) - every.count(0)
        if len(chosen) < numbered:
            notes.append(f"{lane.prefix}has {len(chosen)} of the {numbered} chosen steps")
        initial = [Part(lane, [0]) for _ in range(every.count(0))]
        parts += initial + [Part(lane, group) for group in _groups(lane, chosen, jobs)]
    if last and sampled(steps):
        notes.append(odds(last, min(sampled(steps), last)))
    if jobs < 1:
        raise InvalidInput("at least one process executes steps", actual=str(jobs), where="jobs")
    settings = Settings(
        timeout,
        bool(unlike),
        attestation,
        progress or (lambda *_: None),
        tolerance,
        prints,
        *checked(environment),
    )
    _run(record, parts, min(jobs, max(1, len(parts))), settings)
    return _reported(parts, notes, tolerance)


def _groups(lane: Lane, chosen: list[int], jobs: int) -> list[list[int]]:
    """The steps that one process executes, in order: all, or for several processes those of each checkpoint."""
    if jobs == 1:
        return [chosen] * bool(chosen)
    return [list(group) for _, group in itertools.groupby(chosen, lane.start)]


@dataclass(frozen=True)
class Settings:
    """What is the same for all parts."""

    timeout: float
    unlike: bool
    attestation: Attestation | None
    progress: Callable[[int, int], None]
    tolerance: Calibration | None
    prints: Fingerprints | None
    chosen: Mapping[str, Any]
    variables: Mapping[str, str]


def _run(record: Record, parts: list[Part], jobs: int, settings: Settings) -> None:
    """Executes all parts up to the first that is refuted, with as many processes."""
    total, done, until = sum(len(part.steps) for part in parts), 0, len(parts)
    children: queue.SimpleQueue[Child] = queue.SimpleQueue()
    lock = threading.Lock()

    def work(place: int) -> None:
        nonlocal done, until
        part, child = parts[place], children.get()
        execution = Execution(part.lane, child, settings.timeout, settings.chosen, unlike=settings.unlike)
        try:
            for _ in _execute(part, execution, settings) if place < until else ():
                with lock:
                    done += 1
                    settings.progress(done, total)
                if place > until:
                    break
            with lock:
                until = min(until, place if part.refuted else until)
        except BaseException:
            until = -1
            raise
        finally:
            part.notes += execution.notes + child.notes
            children.put(child)

    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(Child(record, settings.variables)) for _ in range(jobs)]
        for child in started:
            children.put(child)
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        try:
            list(pool.map(work, range(len(parts))))
        except BaseException:
            until = -1
            for child in started:
                child.end()
            raise


def _execute(part: Part, execution: Execution, settings: Settings) -> Generator[None]:
    """Executes a part's steps; yields when one of them is done, whatever came of it."""
    lane, child, left = part.lane, execution.child, list(part.steps)
    attestation, tolerance = settings.attestation, settings.tolerance
    # From the first step on whose bits differ as another machine's do.
    is_judging = False

    def passed(computed: dict[str, State], *, is_recorded: bool = True) -> None:
        if not is_recorded:
            part.notes.append(
                f"{lane.prefix}step {left[0]} not replayed: neither gradients nor parameters are recorded"
            )
            return
        if lane.is_shared(left[0]):
            part.contributed.append(left[0])
            return
        part.replayed.append(left[0])
        if attestation is not None:
            attestation.add(lane.steps[left[0]], SAME, computed)

    while left and not part.refuted:
        try:
            if left[0] == 0:
                execution.begin()
                part.begins = True
            elif is_judging and tolerance is not None:
                judged = judge(execution, left[0], tolerance, settings.prints)
                if judged.is_exact:
                    passed(judged.computed)
                elif judged.hidden is None:
                    part.sketched.append(left[0])
                else:
                    part.tolerated.append(left[0])
                    part.hidden = max(part.hidden, judged.hidden)
            else:
                # As long as no checkpoint lies nearer to the next chosen step than the one before it.
                pairs = itertools.pairwise(left)
                end = next((one for one, other in pairs if lane.start(other) > one), left[-1])
                with contextlib.closing(execution.steps(left[0], end)) as steps:
                    for number, computed in steps:
                        is_recorded = execution.compare(number, computed)
                        if number == left[0]:
                            passed(computed, is_recorded=is_recorded)
                            if number < end:
                                left.pop(0)
                                yield
        except NotReplayable as reason:
            what = f"step {left[0]}" if left[0] else "the state before the first step"
            how = "judged" if is_judging else "replayed"
            part.notes.append(f"{lane.prefix}{what} not {how}: {reason}")
            part.undecided += [part.notes[-1]] * is_judging
            child.stands = None
            if reason.fatal:
                child.fail()
        except Differs as differs:
            if (
                left[0] == 0
                and _is_elsewhere(differs, settings)
                and begins_alike(execution, differs.computed)
            ):
                part.notes.append(
                    f"{lane.prefix}the initial state is the one that the recipe makes, but for roundings"
                )
            elif left[0] == 0:
                part.undecided.append(
                    f"the run did not begin from the state that its recipe makes ({differs.found.field} "
                    f"{differs.found.tensor}): it was seeded otherwise, or trained before"
                )
            elif _is_elsewhere(differs, settings):
                is_judging, child.stands = True, None
                continue
            elif is_judging:
                part.refuted.append(differs.found)
            elif differs.excuse == ELSEWHERE and part.differing:
                # Nothing else would come of executing all of the lane once more.
                part.differing.append(differs)
                child.stands = None
            else:
                try:
                    computed = execution.confirm(differs)
                    if differs.found.step < left[0]:
                        continue
                    passed(computed)
                except Differs as again:
                    child.stands = None
                    if again.excuse is not None:
                        part.differing.append(again)
                    else:
                        part.refuted.append(again.found)
                        if attestation is not None and not lane.is_shared(again.found.step):
                            attestation.add(lane.steps[again.found.step], OTHER, again.computed)
        left.pop(0)
        yield


def _is_elsewhere(differs: Differs, settings: Settings) -> bool:
    """Whether a difference is for a tolerance to judge: one has been given, and the machine may be its cause."""
    return settings.tolerance is not None and differs.excuse == ELSEWHERE


def _named(found: Difference) -> str:
    """A field as the verdict calls it: with its lane where there are several, and as a checkpoint's where it is one."""
    lane = f"{found.lane}: " if found.lane else ""
    return lane + (found.field if found.kind == "step" else f"checkpoint {found.field}")


def _mismatch(found: Difference) -> Mismatch:
    at = "" if found.index is None else f" at {list(found.index)}, chunk {found.chunk}"
    return Mismatch(found.step, _named(found), found.tensor, found.ours + at, found.theirs)


def _reported(parts: list[Part], notes: list[str], tolerance: Calibration | None) -> ReplayReport:
    """What the parts showed together, up to the first lane that differs."""
    replayed: list[int] = []
    tolerated: list[int] = []
    undecided: list[str] = []
    refuted: list[Difference] = []
    for lane, group in itertools.groupby(parts, lambda part: part.lane):
        of_lane = list(group)
        seen = [step for part in of_lane for step in part.replayed]
        shared = sum(len(part.contributed) for part in of_lane)
        differing = [wrong for part in of_lane for wrong in part.differing]
        refuted = next((part.refuted for part in of_lane if part.refuted), [])
        replayed += seen
        tolerated += [step for part in of_lane for step in part.tolerated]
        notes += [note for part in of_lane for note in part.notes]
        if shared:
            notes.append(
                f"{lane.prefix}its contribution to {shared} steps was computed again, bit-exact; what several "
                "ranks made of theirs is not executed again"
            )
        undecided += [text for part in of_lane for text in part.undecided]
        if refuted:
            notes += [
                f"{_named(wrong)}: {text}" for wrong in refuted for text in (wrong.diagnosis, *wrong.notes)
            ]
            break
        undecided += [
            f"step {each.found.step} differs in {_named(each.found)}, on another kind of machine or behind what the "
            "recipe keeps"
            for each in differing
        ]
    chosen = [step for part in parts for step in part.steps if step]
    if chosen and not (
        replayed or tolerated or undecided or any(part.contributed or part.sketched for part in parts)
    ):
        # Else who asked for a replay could take the verdict on signatures for its outcome.
        undecided.append(f"none of the {len(chosen)} chosen steps could be executed: the notes say why")
    begins = [part.begins for part in parts if part.steps == [0]]
    not_seen = tolerance.not_seen() if tolerance and tolerated else []
    hidden = max((part.hidden for part in parts), default=0.0)
    not_seen += [f"an update that is off by {hidden:.0e} of itself, which roundings hide"] * (hidden > 0)
    sketched = sum(len(part.sketched) for part in parts)
    if sketched:
        notes.append(
            f"the gradients of {sketched} steps lie within tolerance by fingerprints; their updates were not executed, "
            "since the gradients are not stored"
        )
    if any(part.differing for part in parts) and tolerance is None:
        notes.append(
            "steps whose bits differ here are judged by `replay --tolerance`: `counterfoil calibrate` makes one"
        )
    if tolerated and replayed:
        notes.append(
            f"the bits of {len(replayed)} steps came out on this machine, and those of {len(tolerated)} did not"
        )
    return ReplayReport(
        steps=tuple(replayed),
        refuted=tuple(_mismatch(wrong) for wrong in refuted),
        notes=tuple(dict.fromkeys(notes)),
        undecided=() if refuted else tuple(dict.fromkeys(undecided)),
        begins=bool(begins) and all(begins),
        tolerated=tuple(tolerated),
        not_seen=tuple(not_seen),
        thresholds=tolerance.digest if tolerance else None,
    )
