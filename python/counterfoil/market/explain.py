"""Why a job was not paid, or not yet, step by step."""

from __future__ import annotations

from counterfoil.market.client import Job, Market, State, now
from counterfoil.market.terms import Terms

FAULTS = {
    1: "signed two receipts for one place, or two roots for one size",
    2: "has a receipt of another place in the submitted log",
    3: "has a receipt in the submitted log that its key did not sign",
    4: "has another value than the job pins",
    5: "did not answer a demand in time",
}


def why(market: Market, job: Job) -> list[str]:
    """What happened to a job and what can be done about it, a line each, the oldest first.

    Raises:
        ChainError: The node does not answer.
    """
    state = market.state(job)
    terms, worker, found = job.terms, state["worker"], state["state"]
    lines = [f"posted by {job.requester}: up to {terms.reward} wei for {terms.units} units"]
    bids = market.escrow.events("BidMade", job.block, job=job.id)
    shown = market.escrow.events("BidRevealed", job.block, job=job.id)
    lines += [f"{len(bids)} bids, {len(shown)} of them revealed"]
    lines += [
        f"  {each['fields']['bidder']} asked for {each['fields']['price']} wei"
        + ("" if each["fields"]["isLeading"] else _behind(terms, each["fields"]["price"]))
        for each in shown
    ]
    for event in market.escrow.events("Accepted", job.block, job=job.id):
        lines.append(f"accepted by {event['fields']['worker']}: run 0x{event['fields']['run'].hex()}")
    for event in market.escrow.events("Submitted", job.block, job=job.id):
        lines.append(f"submitted; challenges until {event['fields']['challengeEnds']}")
    lines += _challenges(market, job)
    lines.append(_ending(job, found, worker, state["next"]))
    if found in (State.POSTED, State.ACCEPTED, State.SUBMITTED):
        lines.append(_next(job, found, worker, state["challengeEnds"], state["open"]))
    return lines


def _behind(terms: Terms, price: int) -> str:
    return ": more than the reward" if price > terms.reward else ": no better than the cheapest so far"


def _challenges(market: Market, job: Job) -> list[str]:
    lines = []
    for event in market.disputes.events("Disputed", job.block, job=job.id):
        told = event["fields"]
        lines.append(f"receipt {told['index']} was disputed by {told['by']}")
        for vote in market.disputes.events("Voted", job.block, id=told["id"]):
            said = {1: "as recorded", 2: "otherwise, or not delivered"}[vote["fields"]["outcome"]]
            lines.append(f"  {vote['fields']['verifier']} executed it again, and voted: {said}")
        for settled in market.disputes.events("Settled", job.block, id=told["id"]):
            verdict = {1: "upheld", 2: "refuted"}[settled["fields"]["verdict"]]
            lines.append(f"  attested: {verdict}. That is the panel's word, and slashes nobody")
    for event in market.challenge.events("Convicted", job.block, job=job.id):
        told = event["fields"]
        lines.append(f"decided by the chain: {told['worker']} {FAULTS[told['fault']]}, shown by {told['by']}")
    return lines


def _ending(job: Job, found: State, worker: str, price: int) -> str:
    return {
        State.UNKNOWN: "it is not known to this market",
        State.POSTED: "nobody has accepted it",
        State.ACCEPTED: f"{worker} trains",
        State.SUBMITTED: "it can be challenged, or awaits payment",
        State.PAID: f"paid: {price} wei to {worker}, and {job.terms.reward - price} back to the requester",
        State.REFUSED: f"refused: the reward went back to {job.requester}, less a bounty where a panel's verdict refused it",
        State.CANCELLED: "cancelled, by its poster or as nobody bid, accepted or submitted: reward and burn went back",
    }[found]


def _next(job: Job, found: State, worker: str, challenge_ends: int, open_: int) -> str:
    terms, time = job.terms, now()
    if found == State.POSTED:
        if time < terms.bidding_ends:
            return f"bids are taken until {terms.bidding_ends}"
        if time < terms.reveal_ends:
            return f"bids are revealed until {terms.reveal_ends}; what is not revealed loses its deposit"
        if int(worker, 16) and time < terms.accept_ends:
            return f"{worker} accepts until {terms.accept_ends}, or loses its deposit"
        return "anybody can give the money back: `reclaim`"
    if found == State.ACCEPTED:
        if time < terms.work_ends:
            return f"it is submitted until {terms.work_ends}, or the deposit is lost"
        return "anybody can give the money back: `reclaim`"
    if time < challenge_ends:
        return f"it is paid from {challenge_ends} on, if nothing is open"
    if open_:
        return f"{open_} disputes or demands are open: anybody can end them, `settle` or `expire`, when they are due"
    return "anybody can have it paid: `finalise`"
