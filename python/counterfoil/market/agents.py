"""Workers, verifiers and challengers that run unattended.

An agent looks at the chain and does what is due, so it can be stopped anywhere and started again. What the chain does
not carry lies in a folder that all of them see, the *board*: `<job>/spec.json` and `<job>/recipe.py` of the requester,
`<job>/run.counterfoil` of the worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from counterfoil._native import DEVELOPMENT_CHAIN, Key, Receipt, Record
from counterfoil.bundle import export
from counterfoil.errors import ChainError, CounterfoilError
from counterfoil.market import faults
from counterfoil.market.client import Job, Market, State, now
from counterfoil.market.terms import FIELDS, is_consistent, is_flat

SPECIFICATION, RECIPE, DELIVERY = "spec.json", "recipe.py", "run.counterfoil"
_COPY = ".disputed.counterfoil"
_PAUSE = 0.3


def publish(board: Path, job: Job, specification: bytes, recipe: str | os.PathLike[str]) -> None:
    """Lays a job's specification and recipe onto the board."""
    folder = place(board, job)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE).write_bytes(Path(recipe).read_bytes())
    (folder / SPECIFICATION).write_bytes(specification)


def _stamp(path: Path) -> tuple[int, int]:
    """Tells a file from another one in its place."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def place(board: Path, job: Job) -> Path:
    """Where a job's files lie."""
    return board / job.id.hex()


class Agent:
    """What all agents have in common.

    Args:
        market: The market.
        key: Signs the agent's transactions.
        board: The folder that all see.
        say: Is told what the agent did, and why something was refused; a line each.
    """

    def __init__(self, market: Market, key: Key, board: Path, say: Callable[[str], None] = print) -> None:
        self.market, self.key, self.board, self._say = market, key, board, say
        self._jobs: dict[bytes, Job] = {}

    def tick(self) -> None:
        """Does what is due, once."""
        raise NotImplementedError

    def run(self, is_over: Callable[[], bool]) -> None:
        """Does what is due until `is_over` says so; what goes wrong is told, and tried again."""
        while not is_over():
            try:
                self.tick()
            except CounterfoilError as failed:
                self._say(f"not done: {failed}")
            time.sleep(_PAUSE)

    def each(self, do: Callable[[Job], None]) -> None:
        """Does something for each job. What goes wrong with one is told, and keeps nobody from the others."""
        for job in self.jobs():
            try:
                do(job)
            except Exception as failed:  # A stranger's specification or delivery can raise whatever it likes.
                self._say(f"job 0x{job.id.hex()}: not done: {failed!r}")

    def jobs(self) -> list[Job]:
        """All jobs known so far."""
        last = max((job.block for job in self._jobs.values()), default=0)
        self._jobs |= {job.id: job for job in self.market.jobs(last)}
        return list(self._jobs.values())

    def attempt(self, what: str, call: Callable[[], Any]) -> bool:
        """Tells what was done, or why the chain refused it: a deadline passed, or somebody else was first."""
        try:
            call()
        except ChainError as refused:
            self._say(f"{what}: not done: {refused}")
            return False
        self._say(what)
        return True

    def claim(self) -> None:
        """Withdraws what is owed."""
        if self.market.owed(self.key.address):
            self.attempt("withdraws what is owed", lambda: self.market.claim(self.key))

    def tend(self, job: Job) -> list[dict[str, Any]]:
        """Draws and settles a job's disputes when that is due; the rounds that are open."""
        rounds = []
        for event in self.market.disputes.events("Disputed", job.block, job=job.id):
            id, begun = event["fields"]["id"], event["block"]
            dispute = self.market.disputes.read("disputeOf", id)
            if dispute["verdict"]:
                continue
            number = int(dispute["isAppealed"])
            round = self.market.disputes.read("roundOf", id, number)
            vote = self.market.parameters.vote
            is_drawn = any(round["beacon"])
            end = round["revealEnds"] if is_drawn else round["drawEnds"]
            if not is_drawn and now() < end:
                self._draw(id, begun)
            elif now() >= end + (0 if number else vote):
                self.attempt("settles a dispute", partial(self.market.settle, job, id, self.key))
            rounds.append({"id": id, "number": number, "end": end} | dispute | round)
        return rounds

    def appeal(self, job: Job, round: dict[str, Any], wanted: int) -> None:
        """Asks a larger panel where the first one found otherwise than `wanted`, 1 upheld or 2 refuted.

        Not where nobody is left on the roll who could be drawn: what is asked then is lost.
        """
        is_due = round["end"] <= now() < round["end"] + self.market.parameters.vote
        if round["number"] or not is_due:
            return
        votes = self.market.disputes.events("Voted", job.block, id=round["id"])
        outcomes = [each["fields"]["outcome"] for each in votes]
        # What nobody showed to be wrong is upheld.
        found = 2 if outcomes.count(2) > outcomes.count(1) else 1
        roll = self.market.disputes.events("Enlisted", epoch=round["epoch"])
        worker = self.market.state(job)["worker"]
        barred = {
            each.lower() for each in (job.requester, worker, round["by"], self.key.address, *round["panel"])
        }
        is_left = any(each["fields"]["verifier"].lower() not in barred for each in roll)
        if found != wanted and is_left:
            self.attempt("appeals to a larger panel", partial(self.market.appeal, job, round["id"], self.key))

    def _draw(self, id: bytes, begun: int) -> None:
        # A development chain has no blocks but those of its transactions: the first call makes the one that decides.
        latest = int(self.market.chain.rpc("eth_blockNumber"), 16)
        is_due = latest > begun or self.market.chain.chain_id == DEVELOPMENT_CHAIN
        if is_due and self.market.disputes.send("draw", id, key=self.key).events:
            self._say("draws a panel")

    def sees_the_board(self) -> bool:
        """Whether there is anything on the board: who sees nothing cannot say that a run was not delivered."""
        return self.board.is_dir() and any(self.board.iterdir())

    def delivered(self, job: Job) -> Record | None:
        """The run that was delivered for a job, if it is whole and the chain says that it is the one that was submitted.

        Where the worker has taken its delivery back, a challenger's copy does.
        """
        folder = place(self.board, job)
        paths = [folder / DELIVERY, *sorted(folder.glob(f"*{_COPY}"))]
        return next((found for path in paths if (found := self.submitted(job, path)) is not None), None)

    def submitted(self, job: Job, path: Path) -> Record | None:
        """The run in a bundle, if it is whole and was submitted for the job."""
        try:
            record = Record(path)
            head, shown, state = record.tree_head(), record.receipts(), self.market.state(job)
        except CounterfoilError:
            return None
        if head is None or record.run is None or bytes.fromhex(record.run[2:]) != state["run"]:
            return None
        if len(shown) < head.size:
            return None
        for anchor in record.anchors:
            told = (anchor["index"], anchor["root"], anchor["headDigest"])
            if told == (str(state["anchor"]), f"0x{head.root.hex()}", f"0x{head.digest.hex()}"):
                found = self.market.chain.confirm(anchor)
                return record if found is not None and found[1] else None
        return None


class Worker(Agent):
    """Bids for jobs, trains, submits, delivers, answers demands, appeals and collects.

    Args:
        market, key, board, say: As of `Agent`.
        folder: Where runs are recorded.
        price: What to ask for a job with this specification, wei; None for no bid.
        train: Records the run: gets the specification's bytes, the recipe's path, the nonce and the folder.
        opens: Names of `FIELDS` whose bytes `train` keeps, at each step or checkpoint. There is no bid for a job in which
            others may be demanded: who cannot answer loses the stake.
    """

    def __init__(
        self,
        market: Market,
        key: Key,
        board: Path,
        *,
        folder: Path,
        price: Callable[[Job, dict[str, Any]], int | None],
        train: Callable[[bytes, Path, bytes, Path], None],
        opens: Collection[str],
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(market, key, board, say)
        self._folder, self._price, self._train = folder, price, train
        self._opens = sum(1 << FIELDS[field] for field in set(opens))
        self._delivered: dict[bytes, tuple[int, int]] = {}

    def tick(self) -> None:
        """Does what is due, once; trains where a job was accepted."""
        self.each(self._advance)
        self.claim()

    def _advance(self, job: Job) -> None:
        state = self.market.state(job)
        is_mine = state["worker"].lower() == self.key.address.lower()
        if state["state"] == State.POSTED:
            self._bid(job, is_mine)
        elif is_mine and state["state"] == State.ACCEPTED and now() < job.terms.work_ends:
            self._work(job)
        elif is_mine and state["state"] == State.SUBMITTED:
            self._answer(job)
            if state["open"]:
                for round in self.tend(job):
                    self.appeal(job, round, 1)
            if now() >= state["challengeEnds"] and not state["open"]:
                self.attempt("has its work paid", partial(self.market.finalise, job, self.key))

    def _bid(self, job: Job, is_leading: bool) -> None:
        terms, own = job.terms, {"bidder": self.key.address}
        has_bid = bool(self.market.escrow.events("BidMade", job.block, job=job.id, **own))
        if now() < terms.bidding_ends:
            content = self._read(job)
            if has_bid or content is None:
                return
            # A demand for what nobody keeps is there to slash who trains.
            if terms.openable & ~self._opens:
                return
            price = self._price(job, json.loads(content))
            if price is not None and self._unpromised_stake() >= terms.stake:
                self.attempt("bids in a sealed envelope", lambda: self.market.bid(job, price, self.key))
        elif now() < terms.reveal_ends:
            if has_bid and not self.market.escrow.events("BidRevealed", job.block, job=job.id, **own):
                self.attempt("reveals its bid", lambda: self.market.reveal(job, self.key))
        elif is_leading and now() < terms.accept_ends:
            self.attempt("accepts the job", lambda: self.market.accept(job, self.key))

    def _unpromised_stake(self) -> int:
        """The free stake that no sealed bid needs yet: a bid that cannot be revealed loses its deposit."""
        made, revealed = (
            {each["fields"]["job"] for each in self.market.escrow.events(name, bidder=self.key.address)}
            for name in ("BidMade", "BidRevealed")
        )
        waiting = (self._jobs[id].terms for id in made - revealed)
        promised = sum(terms.stake for terms in waiting if now() < terms.reveal_ends)
        return self.market.stake(self.key.address)["free"] - promised

    def _read(self, job: Job) -> bytes | None:
        """The specification, if it lies on the board, is the one that the job names, and can be kept to.

        A worker who trains for pins that it cannot see, or that contradict each other, loses its stake.
        """
        try:
            content = (place(self.board, job) / SPECIFICATION).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).digest() != job.terms.specification or not is_flat(content):
            return None
        return content if is_consistent(job.terms, json.loads(content)) else None

    def _work(self, job: Job) -> None:
        content, path = self._read(job), self._folder / job.id.hex()
        if content is None:
            return
        if not path.exists():
            self._say("trains")
            self._train(content, place(self.board, job) / RECIPE, self.market.nonce(job), path)
        elif Record(path).receipts()[-1].kind != "close":
            # Recorded anew under the same nonce it would have two histories, which costs the stake.
            self._say(f"{path} is not closed: go on with it by `Run.open`, and never record it anew")
            return
        fault = faults.find(job, Record(path))
        if fault is not None:
            self._say(f"does not submit: the run has a fault that costs the stake, {fault[0]}")
            return
        if self.attempt("submits the run", lambda: self.market.submit(job, path, self.key)):
            self._deliver(job, path)

    def _deliver(self, job: Job, path: Path) -> None:
        target = place(self.board, job) / DELIVERY
        partial = target.with_suffix(".partial")
        export(path, partial, key=self.key)
        partial.replace(target)
        self._delivered[job.id] = _stamp(target)
        self._say("delivers the run")

    def _answer(self, job: Job) -> None:
        path, target = self._folder / job.id.hex(), place(self.board, job) / DELIVERY
        # Somebody may have taken it away, or laid something else into its place.
        if not target.exists() or _stamp(target) != self._delivered.get(job.id):
            self._deliver(job, path)
        for event in self.market.challenge.events("Demanded", job.block, job=job.id):
            id = event["fields"]["id"]
            demand = self.market.challenge.read("demandOf", id)
            # Whether it is too late the chain decides: a clock that is ahead would cost the stake.
            if not demand["isSettled"]:
                record = Record(path)
                self.attempt(
                    "answers a demand",
                    partial(self.market.answer, job, id, record, self.key),
                )


class Verifier(Agent):
    """Sits on panels: executes disputed steps again, promises its vote and reveals it.

    It votes against a run that is not delivered when half of the time for promises is over.

    Args:
        market, key, board, say: As of `Agent`.
        execute: Executes a step of a run again under a beacon, or looks at the whole run for its close receipt:
            outcome (1 as recorded, 2 otherwise) and answer of docs/format.md, section 16; None if it cannot be
            executed, and then there is no vote.
    """

    def __init__(
        self,
        market: Market,
        key: Key,
        board: Path,
        *,
        execute: Callable[[Job, Record, Receipt, bytes], tuple[int, bytes] | None],
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(market, key, board, say)
        self._execute = execute
        self._found: dict[tuple[bytes, int], tuple[int, bytes] | None] = {}
        self._enlisted = 0

    def tick(self) -> None:
        """Enlists for the next epoch, and votes where it was drawn."""
        following = now() // self.market.parameters.epoch + 1
        if following > self._enlisted:
            known = self.market.disputes.events("Enlisted", epoch=following, verifier=self.key.address)
            if known or self.attempt(f"enlists for epoch {following}", lambda: self.market.enlist(self.key)):
                self._enlisted = following
        self.each(self._judge)
        self.claim()

    def _judge(self, job: Job) -> None:
        if self.market.state(job)["open"]:
            for round in self.tend(job):
                if self.key.address.lower() in (each.lower() for each in round["panel"]):
                    self._vote(job, round)

    def _vote(self, job: Job, round: dict[str, Any]) -> None:
        key, own = (round["id"], round["number"]), {"id": round["id"], "verifier": self.key.address}
        told = {
            name: [each["fields"]["round"] for each in self.market.disputes.events(name, job.block, **own)]
            for name in ("Committed", "Voted")
        }
        if key[1] not in told["Committed"]:
            if now() < round["commitEnds"]:
                self._promise(job, round)
        elif round["commitEnds"] <= now() < round["end"] and key[1] not in told["Voted"]:
            self.attempt("reveals its vote", lambda: self.market.reveal_vote(*key, self.key))

    def _promise(self, job: Job, round: dict[str, Any]) -> None:
        """Executes once; what came out is promised until the chain takes it."""
        key = (round["id"], round["number"])
        if key not in self._found:
            record = self.delivered(job)
            if record is not None:
                # A step whose execution raises would raise again.
                self._found[key] = None
                receipts = record.receipts()
                receipt = receipts[min(round["index"], len(receipts) - 1)]
                self._found[key] = self._execute(job, record, receipt, round["beacon"])
                if self._found[key] is None:
                    self._say(f"cannot execute receipt {receipt.sequence}, and does not vote")
            elif now() + max(1, self.market.parameters.vote // 2) < round["commitEnds"]:
                return
            elif not self.sees_the_board():
                self._say("sees nothing on the board, and does not vote")
                return
            else:
                self._say("the run was not delivered")
                self._found[key] = (2, bytes(32))
        found = self._found[key]
        if found is None:
            return
        outcome, answer = found
        said = {1: "as recorded", 2: "otherwise"}[outcome]
        what = f"judged receipt {round['index']}, promises its vote (sealed: {said})"
        self.attempt(what, lambda: self.market.vote(*key, outcome, answer, self.key))


class Challenger(Agent):
    """Looks through submitted runs: proves faults to the chain, disputes wrong steps and what was not delivered.

    A run that was not delivered when a third of its challenge window is over is disputed, and a kilobyte of its result
    demanded. It appeals where a panel upholds what it found wrong itself.

    Args:
        market, key, board, say: As of `Agent`.
        check: Looks through a delivered run: the receipt to dispute, a step or the close; None if it finds none.
    """

    def __init__(
        self,
        market: Market,
        key: Key,
        board: Path,
        *,
        check: Callable[[Job, Record], Receipt | None],
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(market, key, board, say)
        self._check = check
        self._found: dict[bytes, tuple[str, Callable[[], Any] | None]] = {}
        self._examined: set[bytes] = set()

    def tick(self) -> None:
        """Examines each submitted run once, and brings its own disputes and demands to their end."""
        self.each(self._watch)
        self.each(self._end)
        self.claim()

    def _watch(self, job: Job) -> None:
        if job.id in self._examined:
            return
        state = self.market.state(job)
        if state["state"] == State.SUBMITTED:
            self._examine(job, state["challengeEnds"])

    def _end(self, job: Job) -> None:
        if self.market.state(job)["open"]:
            for round in self.tend(job):
                # In a run that it was not given it found nothing.
                _, act = self._found.get(job.id, ("", None))
                if act is not None and round["by"].lower() == self.key.address.lower():
                    self.appeal(job, round, 2)
            self._expire(job)

    def _examine(self, job: Job, ends: int) -> None:
        """Looks through a run once; what it finds is tried until the chain takes it."""
        if job.id not in self._found:
            record = self._copied(job)
            if record is None:
                is_due = ends - job.terms.challenge_window * 2 / 3 <= now() < ends
                if is_due and self.sees_the_board():
                    self._miss(job)
                # What is delivered later is still to be looked through.
                return
            self._found[job.id] = self._act(job, record)
        what, act = self._found[job.id]
        if act is None:
            self._say(what)
        if act is None or self.attempt(what, act):
            self._examined.add(job.id)

    def _copied(self, job: Job) -> Record | None:
        """What was delivered, in a copy: a panel finds what was disputed, whatever becomes of the delivery."""
        path = place(self.board, job) / f"{self.key.address}{_COPY}"
        try:
            shutil.copyfile(place(self.board, job) / DELIVERY, path)
        except FileNotFoundError:
            return None
        return self.submitted(job, path)

    def _act(self, job: Job, record: Record) -> tuple[str, Callable[[], Any] | None]:
        fault = faults.find(job, record)
        if fault is not None:
            return f"shows the chain a fault: {fault[0]}", lambda: self.market.prove(job, fault, self.key)
        if self._has_disputed(job):
            return "has disputed it already", None
        step = self._check(job, record)
        if step is None:
            with contextlib.suppress(OSError):
                Path(record.path).unlink()
            return "finds nothing to dispute", None
        what = f"disputes step {step.fields['step']}" if step.kind == "step" else "disputes the whole run"
        index = [each.digest for each in record.receipts()].index(step.digest)
        return what, lambda: self.market.dispute(job, index, self.key)

    def _miss(self, job: Job) -> None:
        """Disputes a run that was not delivered, and demands a kilobyte of its result, the checkpoint before its end.

        Whoever does not answer the demand loses the stake; whoever answers and delivers nothing, the reward.
        """
        (submitted,) = self.market.escrow.events("Submitted", job.block, job=job.id)
        size = submitted["fields"]["size"]
        if not self._has_disputed(job):
            dispute = partial(self.market.dispute, job, size - 1, self.key)
            self.attempt("the run was not delivered: disputes it", dispute)
        is_openable = job.terms.openable >> FIELDS["checkpoint.parameters"] & 1
        # A second one would cost twice as much, and bring no more.
        if is_openable and not self.market.challenge.events("Demanded", job.block, job=job.id):
            place = (size - 2, "checkpoint.parameters", secrets.randbits(64), secrets.randbits(64))
            demand = partial(self.market.demand, job, place, self.key)
            self.attempt("the run was not delivered: demands a kilobyte of its result", demand)

    def _has_disputed(self, job: Job) -> bool:
        """Whether the chain has a dispute of this agent, maybe from before it was started anew."""
        return bool(self.market.disputes.events("Disputed", job.block, job=job.id, by=self.key.address))

    def _expire(self, job: Job) -> None:
        for event in self.market.challenge.events("Demanded", job.block, job=job.id, by=self.key.address):
            id = event["fields"]["id"]
            demand = self.market.challenge.read("demandOf", id)
            if not demand["isSettled"] and now() >= demand["answerEnds"]:
                self.attempt(
                    "convicts a worker that did not answer",
                    partial(self.market.expire, job, id, self.key),
                )
