"""The market's contracts, called by whoever takes part."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from counterfoil._native import Key, Receipt, Record
from counterfoil.chain import Chain
from counterfoil.contracts import Contract, Sent
from counterfoil.durable import create
from counterfoil.errors import ChainError, InvalidInput, NotFound
from counterfoil.market import proofs
from counterfoil.market.terms import FIELDS, NAMES, Terms

NOBODY = "0x" + "00" * 20


class State(IntEnum):
    """Where a job stands: `IJobEscrow.State`."""

    UNKNOWN, POSTED, ACCEPTED, SUBMITTED, PAID, REFUSED, CANCELLED = range(7)


@dataclass(frozen=True)
class Parameters:
    """What a market is made with; nobody changes it later.

    Attributes:
        vote: Seconds for each phase of a dispute, and for an answer to a demand.
        epoch: Seconds of an epoch of the rolls.
        shortest_window, longest_window: Seconds, between which the jobs' challenge windows lie.
        seat: Stake for one seat on the roll of verifiers, wei.
        fee_per_unit: Burned for each finalised unit of work, wei.
        issuance: The most that may be issued in an epoch for finalised work, wei.
    """

    vote: int
    epoch: int
    shortest_window: int
    longest_window: int
    seat: int
    fee_per_unit: int
    issuance: int


@dataclass(frozen=True)
class Job:
    """A posted job.

    Attributes:
        id: Its name, 32 bytes.
        requester: Who posted it.
        terms: Its terms.
        block: The block in which it was posted.
    """

    id: bytes
    requester: str
    terms: Terms
    block: int


class Market:
    """A market on a chain; make one with `Market.deploy`, or from its address.

    Attributes:
        chain: The chain.
        address: The market contract's address.
        parameters: What it was made with.
        vault, escrow, challenge, disputes, sortition: Its contracts.
    """

    def __init__(self, chain: Chain, address: str) -> None:
        """Finds a market's contracts.

        Args:
            chain: The chain, with its run ledger.
            address: The market contract's.

        Raises:
            InvalidInput: The market is for another run ledger.
            ChainError: There is no market, or the node does not answer.
        """
        self.chain, self.address = chain, address
        market = Contract(chain, address, "Market")
        ledger = market.read("LEDGER")
        if ledger.lower() != chain.contract.lower():
            raise InvalidInput(
                "the market belongs to another run ledger",
                expected=chain.contract,
                actual=ledger,
                where=address,
            )
        self.parameters = Parameters(*market.read("parameters").values())
        self.vault = Contract(chain, market.read("VAULT"), "StakeVault")
        self.escrow = Contract(chain, market.read("ESCROW"), "JobEscrow")
        self.challenge = Contract(chain, market.read("CHALLENGE"), "Challenge")
        self.disputes = Contract(chain, market.read("DISPUTES"), "Disputes")
        self.sortition = Contract(chain, market.read("SORTITION"), "WorkSortition")

    @classmethod
    def deploy(cls, chain: Chain, parameters: Parameters, key: Key | None = None) -> Self:
        """Creates a market. Nobody owns it.

        Args:
            chain: The chain, with its run ledger.
            parameters: What it is made with.
            key: The key that pays; by default the device key, which pays on development chains only.

        Raises:
            ChainError: The parameters make no market, or the node refuses.
        """
        values = dict(zip(_PARAMETERS, vars(parameters).values(), strict=True))
        return cls(chain, Contract.deploy(chain, "Market", chain.contract, values, key=key).address)

    def jobs(self, from_block: int = 0) -> list[Job]:
        """All jobs that were posted, the oldest first."""
        return [
            Job(
                event["fields"]["job"],
                event["fields"]["requester"],
                Terms.from_event(event["fields"]["terms"]),
                event["block"],
            )
            for event in self.escrow.events("Posted", from_block)
        ]

    def job(self, id: bytes) -> Job:
        """The job of this name.

        Raises:
            NotFound: There is none.
        """
        for job in self.jobs():
            if job.id == id:
                return job
        raise NotFound(f"nobody posted the job 0x{id.hex()}", where=self.address)

    def state(self, job: Job) -> dict[str, Any]:
        """Where a job stands: the members of `IJobEscrow.Job`.

        Raises:
            ChainError: The node does not answer, or names a state that there is not.
        """
        found: dict[str, Any] = self.escrow.read("jobOf", job.id)
        try:
            return found | {"state": State(found["state"])}
        except ValueError as none:
            raise ChainError(f"the node's answer is none: {none}", where="jobOf") from None

    def stake(self, account: str) -> dict[str, int]:
        """An account's stake, wei: `free`, `locked` and `leaving`, the last until `release`, in Unix seconds."""
        found: dict[str, int] = self.vault.read("stakeOf", account)
        return found

    def owed(self, account: str) -> int:
        """What an account can withdraw of all contracts, wei; of the zero address what was burned."""
        return sum(each.read("owed", account) for each in self._purses())

    # Stake

    def deposit(self, amount: int, key: Key | None = None) -> Sent:
        """Adds to the payer's stake, wei. Calling it twice deposits twice."""
        return self.vault.send("deposit", _address(key), value=amount, key=key)

    def begin_exit(self, amount: int, key: Key | None = None) -> Sent:
        """Begins to take out free stake, which leaves after a delay longer than any dispute."""
        return self.vault.send("beginExit", amount, key=key)

    def exit(self, key: Key | None = None) -> Sent:
        """Moves the stake that has left to what is owed."""
        return self.vault.send("exit", key=key)

    def claim(self, key: Key | None = None) -> int:
        """Withdraws everything that is owed to the payer; how much, wei."""
        account, amount = _address(key), 0
        for purse in self._purses():
            owed = purse.read("owed", account)
            if owed:
                purse.send("withdraw", account, key=key)
                amount += owed
        return amount

    # Jobs

    def post(self, terms: Terms, key: Key | None = None) -> Job:
        """Posts a job, and pays its reward and its burn in.

        Raises:
            ChainError: The terms are refused; its message counts their members from 0.
        """
        encoded = terms.encoded()
        value = terms.reward + self.escrow.read("burnOf", encoded)
        sent = self.escrow.send("post", encoded, value=value, key=key)
        return Job(self.escrow.read("jobId", _address(key), encoded), _address(key), terms, sent.block)

    def cancel(self, job: Job, key: Key | None = None) -> Sent:
        """Takes the money of a job back on which nobody has bid."""
        return self._send("cancel", job, key=key)

    def bid(self, job: Job, price: int, key: Key | None = None) -> Sent:
        """Bids for a job, in an envelope, and pays the deposit in.

        What opens the envelope lies in the user's folder before the bid leaves.

        Args:
            job: The job.
            price: What the bidder asks for, wei. The cheapest one is paid what the next one asks for.
            key: The bidder's.
        """
        salt = self._keep(job.id, key, {"price": price})
        commitment = self.escrow.read("commitmentOf", job.id, _address(key), price, salt)
        return self._send("bid", job, commitment, value=job.terms.deposit, key=key)

    def reveal(self, job: Job, key: Key | None = None) -> Sent:
        """Opens the bid; the leader's stake is locked.

        Raises:
            NotFound: The bid was made elsewhere.
        """
        kept = self._kept(job.id, key)
        return self._send("reveal", job, kept["price"], bytes.fromhex(kept["salt"]), key=key)

    def accept(self, job: Job, key: Key | None = None) -> bytes:
        """Takes a job whose cheapest bid is the payer's; the nonce that the run must have, for `Run.create`."""
        self._send("accept", job, key=key)
        return self.nonce(job)

    def nonce(self, job: Job) -> bytes:
        """The nonce of an accepted job's run.

        Raises:
            NotFound: Nobody accepted it.
        """
        for event in self.escrow.events("Accepted", job.block, job=job.id):
            nonce: bytes = event["fields"]["nonce"]
            return nonce
        raise NotFound(f"nobody accepted the job 0x{job.id.hex()}", where="nonce")

    def submit(self, job: Job, run: str | os.PathLike[str], key: Key | None = None) -> Sent:
        """Submits a closed run: anchors it, if that is to be done, and shows its last receipts to the escrow.

        They are the checkpoint of the last step, which is the result, and the close receipt.

        Args:
            job: The job.
            run: The run's folder.
            key: The worker's.
        """
        anchored = self.chain.anchor(run, key)
        record = Record(run)
        receipts, head = record.receipts(), record.tree_head()
        assert head is not None, "what is anchored has a head"
        shown = [proofs.included(receipts[: head.size], head.size - end) for end in (1, 2)]
        return self._send("submit", job, anchored.index, proofs.head(head), *shown, key=key)

    def finalise(self, job: Job, key: Key | None = None) -> Sent:
        """Pays a job's worker, behind the challenge window. Anybody can."""
        return self._send("finalise", job, key=key)

    def reclaim(self, job: Job, key: Key | None = None) -> Sent:
        """Gives a job's money back where nobody bid, accepted or submitted in time. Anybody can."""
        return self._send("reclaim", job, key=key)

    # What people decide

    def enlist(self, key: Key | None = None) -> Sent:
        """Puts the payer on the next epoch's roll of verifiers."""
        return self.disputes.send("enlist", key=key)

    def dispute(self, job: Job, index: int, key: Key | None = None) -> bytes:
        """Disputes a step of a submitted run: verifiers shall execute it again. Returns the dispute's name.

        Args:
            job: A submitted job.
            index: Place of the step's receipt in the submitted log; that of the close receipt, or any behind it, for the
                whole run: one that was not delivered, lacks what it was to have, or is not the job's.
            key: Who pays the bond.
        """
        encoded = job.terms.encoded()
        price = self.disputes.read("bondOf", job.id, encoded)
        sent = self.disputes.send("dispute", job.id, encoded, index, value=price, key=key)
        return self._named(sent, "Disputed")

    def appeal(self, job: Job, dispute: bytes, key: Key | None = None) -> Sent:
        """Asks a larger panel, whose verdict is final."""
        return self.disputes.send("appeal", dispute, job.terms.encoded(), value=8 * job.terms.fee, key=key)

    def vote(self, dispute: bytes, round: int, outcome: int, answer: bytes, key: Key | None = None) -> Sent:
        """Promises a vote; what opens it lies in the user's folder before it leaves.

        Args:
            dispute: The dispute.
            round: 0, or 1 behind an appeal.
            outcome: 1 if the step came out as recorded, 2 if not: the words of docs/format.md, section 16.
            answer: The replay's answer of that section, under the round's beacon.
            key: The verifier's.
        """
        kept = {"outcome": outcome, "answer": answer.hex()}
        salt = self._keep(dispute + bytes([round]), key, kept)
        promised = self.disputes.read("voteOf", dispute, round, _address(key), outcome, answer, salt)
        return self.disputes.send("commit", dispute, promised, key=key)

    def reveal_vote(self, dispute: bytes, round: int, key: Key | None = None) -> Sent:
        """Opens a promised vote.

        Raises:
            NotFound: It was promised elsewhere.
        """
        kept = self._kept(dispute + bytes([round]), key)
        answer, salt = bytes.fromhex(kept["answer"]), bytes.fromhex(kept["salt"])
        return self.disputes.send("reveal", dispute, kept["outcome"], answer, salt, key=key)

    def settle(self, job: Job, dispute: bytes, key: Key | None = None) -> Sent:
        """Ends a dispute, behind its last round. Anybody can."""
        return self.disputes.send("settle", dispute, job.terms.encoded(), key=key)

    # What the chain decides

    def demand(self, job: Job, place: tuple[int, str, int, int], key: Key | None = None) -> bytes:
        """Demands one kilobyte of the worker. Returns the demand's name.

        Args:
            job: A submitted job.
            place: Receipt, field, entry and chunk: numbers of any size, taken modulo what there is.
            key: Who pays the bond.
        """
        index, field, entry, chunk = place
        told = {"index": index, "field": FIELDS[field], "entry": entry, "chunk": chunk}
        price = self.challenge.read("bondOf", job.id, job.terms.encoded())
        sent = self.challenge.send("demand", job.id, job.terms.encoded(), told, value=price, key=key)
        return self._named(sent, "Demanded")

    def answer(self, job: Job, demand: bytes, record: Record, key: Key | None = None) -> Sent:
        """Answers a demand out of the run's folder.

        Raises:
            NotFound: The folder does not hold what is demanded.
        """
        place = self.challenge.read("demandOf", demand)["place"]
        head = record.tree_head()
        assert head is not None, "what is submitted has a head"
        receipt = record.receipts()[place["index"] % head.size]
        opened = proofs.opening(record, receipt, NAMES[place["field"]], place["entry"], place["chunk"])
        shown = self._shown(record, receipt)
        return self.challenge.send("answer", demand, job.terms.encoded(), *shown, opened, key=key)

    def expire(self, job: Job, demand: bytes, key: Key | None = None) -> Sent:
        """Convicts a worker that did not answer a demand. Anybody can."""
        return self.challenge.send("expire", demand, job.terms.encoded(), key=key)

    def prove(self, job: Job, fault: tuple[str, tuple[Any, ...]], key: Key | None = None) -> Sent:
        """Shows a fault, as `counterfoil.market.faults.find` returns it, to the contract, which decides at once."""
        name, shown = fault
        return self.challenge.send(name, job.id, job.terms.encoded(), *shown, key=key)

    def _send(self, name: str, job: Job, *arguments: Any, value: int = 0, key: Key | None = None) -> Sent:
        return self.escrow.send(name, job.id, job.terms.encoded(), *arguments, value=value, key=key)

    def _shown(self, record: Record, receipt: Receipt) -> tuple[dict[str, Any], dict[str, Any]]:
        head = record.tree_head()
        assert head is not None, "what is submitted has a head"
        receipts = record.receipts()[: head.size]
        place = [each.digest for each in receipts].index(receipt.digest)
        return proofs.head(head), proofs.included(receipts, place)

    def _purses(self) -> tuple[Contract, ...]:
        return self.vault, self.escrow, self.challenge, self.disputes

    @staticmethod
    def _named(sent: Sent, event: str) -> bytes:
        found: bytes = next(each["fields"]["id"] for each in sent.events if each["name"] == event)
        return found

    def _keep(self, what: bytes, key: Key | None, opened: Mapping[str, Any]) -> bytes:
        """The salt of a promise, which lies on disk with what it opens before the promise leaves.

        What was promised cannot be changed: the first envelope may be on the chain, and must stay openable.
        """
        path = self._path(what, key)
        if not path.exists():
            salt = secrets.token_bytes(32)
            create(path, json.dumps({**opened, "salt": salt.hex()}).encode(), mode=0o600)
        # Read back: another process of the same account may have been first, and its envelope on the chain.
        kept = self._kept(what, key)
        before = {name: kept[name] for name in opened}
        if before != dict(opened):
            raise InvalidInput(
                "this was promised otherwise before",
                expected=str(before),
                actual=str(opened),
                where=str(path),
            )
        return bytes.fromhex(kept["salt"])

    def _kept(self, what: bytes, key: Key | None) -> dict[str, Any]:
        path = self._path(what, key)
        try:
            kept: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise NotFound("what opens this promise was not made here", where=str(path)) from None
        return kept

    def _path(self, what: bytes, key: Key | None) -> Path:
        place = f"{self.chain.chain_id}-{self.address.lower()}-{_address(key).lower()}"
        return home() / "market" / place / f"{what.hex()}.json"


def home() -> Path:
    """The user's folder."""
    return Path(os.environ.get("COUNTERFOIL_HOME") or Path.home() / ".counterfoil")


def now() -> int:
    """Unix seconds, as whoever plans by them counts them; the contracts count by their blocks' time."""
    return int(time.time())


def _address(key: Key | None) -> str:
    return (key or Key.device()).address


_PARAMETERS = ("vote", "epoch", "shortestWindow", "longestWindow", "seat", "feePerUnit", "issuance")
