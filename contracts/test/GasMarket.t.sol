// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../src/interfaces/IChallenge.sol";
import {IDataListing} from "../src/interfaces/IDataListing.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IPurse} from "../src/interfaces/IPurse.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {IWorkSortition} from "../src/interfaces/IWorkSortition.sol";
import {MarketCase} from "./MarketCase.sol";

/// @dev What whole transactions of the market cost, compared with the committed figures as in Gas.t.sol. The run has
/// seven receipts and tensors of up to three chunks; each doubling of either costs one hash more, about 500 gas.
contract GasMarket is MarketCase {
    function setUp() external {
        openMarket();
    }

    /// @dev A transaction, and its price under a name.
    function pay(string memory name, address from, address to, uint256 value, bytes memory data)
        private
        returns (bytes memory answer)
    {
        answer = send(from, to, value, data);
        vm.snapshotValue("Gas", name, vm.lastCallGas().gasTotalUsed);
    }

    function test_deployment() external {
        // 32,000 for a creation, 200 a byte of code, and the words of its input.
        uint256 before = gasleft();
        deploy("artifacts/Market.json", abi.encode(chain, parameters()));
        uint256 used = before - gasleft();
        require(used < 16_000_000, "a market does not fit into a block");
        vm.snapshotValue("Gas", "market: deployment, without its calldata", used / 100_000 * 100_000);
    }

    function test_a_paid_job() external {
        IJobEscrow.Terms memory t = terms();
        address worker = vm.addr(WORKER);
        address to = address(escrow);
        pay("market: deposit", worker, address(vault), 5, abi.encodeCall(IStakeVault.deposit, (worker)));
        job = abi.decode(
            pay("market: post", REQUESTER, to, costOf(t), abi.encodeCall(IJobEscrow.post, (t))), (bytes32)
        );
        pay("market: bid", worker, to, DEPOSIT, bidData(t, WORKER, 600));
        vm.warp(t.biddingEnds);
        pay("market: reveal a bid", worker, to, 0, revealData(t, WORKER, 600));
        vm.warp(t.revealEnds);
        bytes memory answer =
            pay("market: accept", worker, to, 0, abi.encodeCall(IJobEscrow.accept, (job, t)));
        (run,) = abi.decode(answer, (bytes32, bytes32));
        Run memory r = recorded(WORKER, run, UNITS, Fault.None);
        anchored(chain, r);
        pay("market: submit", worker, to, 0, submission(t, r));
        vm.warp(escrow.jobOf(job).challengeEnds);
        pay("market: finalise", CHALLENGER, to, 0, abi.encodeCall(IJobEscrow.finalise, (job, t)));
        pay("market: withdraw", worker, to, 0, abi.encodeCall(IPurse.withdraw, (payable(worker))));
        pay("market: begin an exit", worker, address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (9)));
        vm.warp(vault.stakeOf(worker).release);
        pay("market: exit", worker, address(vault), 0, abi.encodeCall(IStakeVault.exit, ()));
        uint64 epoch = sortition.epoch();
        bytes memory seal = abi.encodeCall(IWorkSortition.seal, (epoch));
        pay("market: seal, name the block", CHALLENGER, address(sortition), 0, seal);
        mine();
        pay("market: seal, fetch its hash", CHALLENGER, address(sortition), 0, seal);
        bytes memory draw = abi.encodeCall(IWorkSortition.proposer, (epoch, 1));
        pay("market: proposer", CHALLENGER, address(sortition), 0, draw);
    }

    function votes(bytes32 id, address[] memory panel) private {
        bytes32 promised =
            disputes.voteOf(id, roundNumber(id), panel[0], IDisputes.Outcome.Refuted, bytes32(0), "salt");
        bytes memory data = abi.encodeCall(IDisputes.commit, (id, promised));
        pay("market: promise a vote", panel[0], address(disputes), 0, data);
        vm.warp(disputes.roundOf(id, roundNumber(id)).commitEnds);
        data = abi.encodeCall(IDisputes.reveal, (id, IDisputes.Outcome.Refuted, bytes32(0), "salt"));
        pay("market: reveal a vote", panel[0], address(disputes), 0, data);
        vm.warp(disputes.roundOf(id, roundNumber(id)).revealEnds);
    }

    function test_a_dispute() external {
        IJobEscrow.Terms memory t = terms();
        address to = address(disputes);
        bytes memory data = abi.encodeCall(IDisputes.enlist, ());
        pay("market: enlist", vm.addr(VERIFIER), to, 0, data);
        submitted(t, Fault.None);
        bytes32 id = abi.decode(pay("market: dispute", CHALLENGER, to, 4 * FEE, disputeData(t, 2)), (bytes32));
        mine();
        data = abi.encodeCall(IDisputes.draw, (id));
        pay("market: draw a panel of 3", CHALLENGER, to, 0, data);
        votes(id, disputes.roundOf(id, 0).panel);
        bytes memory again = abi.encodeCall(IDisputes.appeal, (id, t));
        pay("market: appeal", REQUESTER, to, 8 * FEE, again);
        mine();
        pay("market: draw a panel of 7", CHALLENGER, to, 0, data);
        voted(id, disputes.roundOf(id, 1).panel, 0, 7);
        pay("market: settle after an appeal", REQUESTER, to, 0, abi.encodeCall(IDisputes.settle, (id, t)));
    }

    function test_demands() external {
        IJobEscrow.Terms memory t = terms();
        Run memory r = submitted(t, Fault.None);
        IChallenge.Place memory place = IChallenge.Place(3, GRADIENTS, 0, 1);
        address to = address(challenge);
        bytes memory data = abi.encodeCall(IChallenge.demand, (job, t, place));
        bytes32 id = abi.decode(pay("market: demand", CHALLENGER, to, FEE, data), (bytes32));
        data = abi.encodeCall(IChallenge.answer, (id, t, r.head, included(r, 3), openingOf(GRADIENTS, 0, 1)));
        pay("market: answer with a kilobyte", r.worker, to, 0, data);
        id = demanded(t, place);
        vm.warp(challenge.demandOf(id).answerEnds);
        data = abi.encodeCall(IChallenge.expire, (id, t));
        pay("market: expire", CHALLENGER, to, 0, data);
    }

    function proves(string memory name, Fault fault, bytes4 kind) private {
        openMarket();
        IJobEscrow.Terms memory t = terms();
        Run memory r = submitted(t, fault);
        bytes memory data;
        if (kind == IChallenge.proveContradiction.selector) {
            data = abi.encodeWithSelector(kind, job, t, r.receipts[3], changed(r, 3, WORKER));
        } else if (kind == IChallenge.proveMisplaced.selector) {
            data = abi.encodeWithSelector(kind, job, t, r.head, included(r, FAULTY), included(r, FAULTY - 1));
        } else if (kind == IChallenge.proveSignature.selector) {
            data = abi.encodeWithSelector(kind, job, t, r.head, included(r, FAULTY));
        } else {
            data = abi.encodeCall(
                IChallenge.provePin,
                (
                    job,
                    t,
                    r.head,
                    included(r, 3),
                    openingOf(HYPERPARAMETERS, 0, 0),
                    pin(0, HYPERPARAMETERS, "0/lr", wrong()),
                    0,
                    new bytes32[](0)
                )
            );
        }
        pay(name, CHALLENGER, address(challenge), 0, data);
    }

    function test_proofs() external {
        proves("market: prove a contradiction", Fault.None, IChallenge.proveContradiction.selector);
        proves("market: prove a misplaced receipt", Fault.Link, IChallenge.proveMisplaced.selector);
        proves("market: prove a foreign signature", Fault.Signature, IChallenge.proveSignature.selector);
        proves("market: prove another pinned value", Fault.None, IChallenge.provePin.selector);
    }

    function test_data() external {
        IDataListing data = IDataListing(deploy("artifacts/DataListing.json", abi.encode(chain)));
        bytes memory call_ = abi.encodeCall(IDataListing.list, (tensorRoot(), keccak256("licence"), 5));
        bytes32 listing = abi.decode(pay("data: list", CHALLENGER, address(data), 0, call_), (bytes32));
        bytes32 id = chain.register(vm.addr(WORKER), SPECIFICATION, 0, NONCE);
        call_ = abi.encodeCall(IDataListing.fund, (listing, id, BEGIN + EPOCH));
        pay("data: fund", REQUESTER, address(data), 5, call_);
        Run memory r = recorded(WORKER, id, UNITS, Fault.None);
        anchored(chain, r);
        call_ = abi.encodeCall(
            IDataListing.claim, (listing, id, 0, r.head, included(r, 0), openingOf(GRADIENTS, 0, 0))
        );
        pay("data: claim", CHALLENGER, address(data), 0, call_);
    }
}
