// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../src/interfaces/IChallenge.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {IPurse} from "../src/interfaces/IPurse.sol";
import {IRunLedger} from "../src/interfaces/IRunLedger.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {IWorkSortition} from "../src/interfaces/IWorkSortition.sol";
import {RunCase} from "./RunCase.sol";

/// @title A market with a job and ten verifiers
abstract contract MarketCase is RunCase {
    uint64 internal constant HOUR = 3600;
    uint64 internal constant VOTE = HOUR;
    uint64 internal constant EPOCH = 24 * HOUR;
    uint64 internal constant WINDOW = 5 * HOUR;
    uint64 internal constant LONGEST = 7 * EPOCH;
    uint64 internal constant EXIT_DELAY = LONGEST + 7 * VOTE + 2 * EPOCH;
    uint64 internal constant BEGIN = 20_000 * EPOCH;
    uint128 internal constant SEAT = 1_000;
    uint128 internal constant FEE_PER_UNIT = 3;

    uint64 internal constant UNITS = 50;
    uint128 internal constant REWARD = 1_000;
    uint128 internal constant STAKE = 5_001;
    uint128 internal constant DEPOSIT = 77;
    uint128 internal constant FEE = 10;
    uint256 internal constant BURN = uint256(UNITS) * FEE_PER_UNIT;

    uint256 internal constant WORKER = 1;
    /// @dev Signs what faulty receipts of the worker are signed with.
    uint256 internal constant OTHER = 2;
    uint256 internal constant VERIFIERS = 10;
    /// @dev Keys from here on are those of the verifiers.
    uint256 internal constant VERIFIER = 20;

    address internal immutable REQUESTER = address(0xA11CE);
    address internal immutable CHALLENGER = address(0xB0B);

    IRunLedger internal chain;
    IMarket internal market;
    IStakeVault internal vault;
    IJobEscrow internal escrow;
    IChallenge internal challenge;
    IDisputes internal disputes;
    IWorkSortition internal sortition;
    bytes32 internal job;
    bytes32 internal run;
    uint256 internal height = 1_000;

    function parameters() internal pure virtual returns (IMarket.Parameters memory) {
        return IMarket.Parameters(VOTE, EPOCH, HOUR, LONGEST, SEAT, FEE_PER_UNIT, 1 ether);
    }

    function deploy(string memory artifact, bytes memory arguments) internal returns (address created) {
        bytes memory code = abi.encodePacked(vm.parseJsonBytes(vm.readFile(artifact), ".bytecode"), arguments);
        assembly {
            created := create(0, add(code, 0x20), mload(code))
        }
    }

    function openMarket() internal {
        chain = ledger();
        market = IMarket(deploy("artifacts/Market.json", abi.encode(chain, parameters())));
        (vault, escrow, challenge) = (market.VAULT(), market.ESCROW(), market.CHALLENGE());
        (disputes, sortition) = (market.DISPUTES(), market.SORTITION());
        commitStates();
        vm.deal(address(this), 1 ether);
        vm.deal(REQUESTER, 1 ether);
        vm.deal(CHALLENGER, 1 ether);
        vm.warp(BEGIN - EPOCH);
        for (uint256 n = 0; n < VERIFIERS; ++n) {
            address verifier = vm.addr(VERIFIER + n);
            vault.deposit{value: SEAT}(verifier);
            vm.prank(verifier);
            disputes.enlist();
        }
        vm.warp(BEGIN);
        vm.roll(height);
        stake(WORKER);
    }

    function stake(uint256 key) internal {
        vm.deal(vm.addr(key), 1 ether);
        vault.deposit{value: STAKE}(vm.addr(key));
    }

    function terms() internal pure returns (IJobEscrow.Terms memory t) {
        (t.specification, t.units, t.reward, t.stake) = (SPECIFICATION, UNITS, REWARD, STAKE);
        (t.deposit, t.fee) = (DEPOSIT, FEE);
        (t.pins, t.pinCount) =
        (sha256(abi.encodePacked(hex"00", pin(0, HYPERPARAMETERS, "0/lr", wrong()))), 1);
        t.openable = 0x1e03e0;
        (t.biddingEnds, t.revealEnds) = (BEGIN + HOUR, BEGIN + 2 * HOUR);
        (t.acceptEnds, t.workEnds) = (BEGIN + 3 * HOUR, BEGIN + 4 * HOUR);
        (t.challengeWindow, t.salt) = (WINDOW, keccak256("salt"));
    }

    /// @dev Another learning rate than steps have.
    function wrong() internal pure returns (bytes memory value) {
        value = content(8);
        value[0] ^= 0x01;
    }

    function pin(uint64 number, uint8 field, string memory name, bytes memory value)
        internal
        pure
        returns (bytes memory)
    {
        return abi.encodePacked(number, field, uint16(bytes(name).length), name, value);
    }

    /// @dev A transaction. Data first, then the account: a hash in between would take the account's place.
    function send(address from, address to, uint256 value, bytes memory data)
        internal
        returns (bytes memory answer)
    {
        bool succeeded;
        vm.prank(from);
        (succeeded, answer) = to.call{value: value}(data);
        if (succeeded) return answer;
        assembly {
            revert(add(answer, 0x20), mload(answer))
        }
    }

    /// @dev A transaction that reverts with `reason`, of which the selector may be given alone.
    function refuse(address from, address to, uint256 value, bytes memory data, bytes memory reason)
        internal
    {
        vm.prank(from);
        (bool succeeded, bytes memory answer) = to.call{value: value}(data);
        require(!succeeded, "it was taken");
        if (reason.length == 4) {
            require(bytes4(answer) == bytes4(reason), "another error");
        } else {
            require(keccak256(answer) == keccak256(reason), "another reason");
        }
    }

    function only(bytes4 selector) internal pure returns (bytes memory) {
        return abi.encodePacked(selector);
    }

    function costOf(IJobEscrow.Terms memory t) internal pure returns (uint256) {
        return t.reward + uint256(FEE_PER_UNIT) * t.units;
    }

    function post(IJobEscrow.Terms memory t) internal {
        bytes memory data = abi.encodeCall(IJobEscrow.post, (t));
        job = abi.decode(send(REQUESTER, address(escrow), costOf(t), data), (bytes32));
    }

    function bidData(IJobEscrow.Terms memory t, uint256 key, uint128 price)
        internal
        view
        returns (bytes memory)
    {
        bytes32 commitment = escrow.commitmentOf(job, vm.addr(key), price, bytes32(key));
        return abi.encodeCall(IJobEscrow.bid, (job, t, commitment));
    }

    function bid(IJobEscrow.Terms memory t, uint256 key, uint128 price) internal {
        vm.deal(vm.addr(key), 1 ether);
        send(vm.addr(key), address(escrow), t.deposit, bidData(t, key, price));
    }

    function revealData(IJobEscrow.Terms memory t, uint256 key, uint128 price)
        internal
        view
        returns (bytes memory)
    {
        return abi.encodeCall(IJobEscrow.reveal, (job, t, price, bytes32(key)));
    }

    function reveal(IJobEscrow.Terms memory t, uint256 key, uint128 price) internal {
        send(vm.addr(key), address(escrow), 0, revealData(t, key, price));
    }

    /// @dev A job that the worker alone bid for, up to its state.
    function accepted(IJobEscrow.Terms memory t) internal {
        post(t);
        bid(t, WORKER, 600);
        vm.warp(t.biddingEnds);
        reveal(t, WORKER, 600);
        vm.warp(t.revealEnds);
        bytes memory data = abi.encodeCall(IJobEscrow.accept, (job, t));
        (run,) = abi.decode(send(vm.addr(WORKER), address(escrow), 0, data), (bytes32, bytes32));
    }

    function submission(IJobEscrow.Terms memory t, Run memory r) internal view returns (bytes memory) {
        return
            abi.encodeCall(
                IJobEscrow.submit, (job, t, 0, r.head, included(r, SIZE - 1), included(r, SIZE - 2))
            );
    }

    function submitted(IJobEscrow.Terms memory t, Fault fault) internal returns (Run memory r) {
        accepted(t);
        r = recorded(WORKER, run, UNITS, fault);
        anchored(chain, r);
        send(r.worker, address(escrow), 0, submission(t, r));
    }

    function finalise(IJobEscrow.Terms memory t) internal {
        vm.warp(escrow.jobOf(job).challengeEnds);
        escrow.finalise(job, t);
    }

    function disputeData(IJobEscrow.Terms memory t, uint64 index) internal view returns (bytes memory) {
        return abi.encodeCall(IDisputes.dispute, (job, t, index));
    }

    /// @dev A dispute of receipt 2, by the challenger.
    function disputed(IJobEscrow.Terms memory t) internal returns (bytes32 id) {
        uint256 price = disputes.bondOf(job, t);
        bytes memory data = disputeData(t, 2);
        return abi.decode(send(CHALLENGER, address(disputes), price, data), (bytes32));
    }

    function mine() internal {
        height += 2;
        vm.roll(height);
    }

    function roundNumber(bytes32 id) internal view returns (uint8) {
        return disputes.disputeOf(id).isAppealed ? 1 : 0;
    }

    function drawn(bytes32 id) internal returns (address[] memory panel) {
        mine();
        require(disputes.draw(id) != 0, "not drawn");
        return disputes.roundOf(id, roundNumber(id)).panel;
    }

    /// @dev The first `upheld` of a drawn panel vote so, and the next `refuted` otherwise.
    function voted(bytes32 id, address[] memory panel, uint256 upheld, uint256 refuted) internal {
        uint8 number = roundNumber(id);
        for (uint256 n = 0; n < upheld + refuted; ++n) {
            IDisputes.Outcome outcome = n < upheld ? IDisputes.Outcome.Upheld : IDisputes.Outcome.Refuted;
            bytes32 vote = disputes.voteOf(id, number, panel[n], outcome, bytes32(n), "salt");
            send(panel[n], address(disputes), 0, abi.encodeCall(IDisputes.commit, (id, vote)));
        }
        vm.warp(disputes.roundOf(id, number).commitEnds);
        for (uint256 n = 0; n < upheld + refuted; ++n) {
            IDisputes.Outcome outcome = n < upheld ? IDisputes.Outcome.Upheld : IDisputes.Outcome.Refuted;
            bytes memory data = abi.encodeCall(IDisputes.reveal, (id, outcome, bytes32(n), "salt"));
            send(panel[n], address(disputes), 0, data);
        }
        vm.warp(disputes.roundOf(id, number).revealEnds);
    }

    function demanded(IJobEscrow.Terms memory t, IChallenge.Place memory place)
        internal
        returns (bytes32 id)
    {
        uint256 price = challenge.bondOf(job, t);
        bytes memory data = abi.encodeCall(IChallenge.demand, (job, t, place));
        return abi.decode(send(CHALLENGER, address(challenge), price, data), (bytes32));
    }

    function stateIs(IJobEscrow.State state) internal view {
        require(escrow.jobOf(job).state == state, "another state");
    }

    function owes(IPurse purse, address account, uint256 amount, string memory what) internal view {
        equal(purse.owed(account), amount, what);
    }

    function stakeIs(address account, uint256 free, uint256 locked, uint256 leaving) internal view {
        IStakeVault.Stake memory known = vault.stakeOf(account);
        equal(known.free, free, "free stake");
        equal(known.locked, locked, "locked stake");
        equal(known.leaving, leaving, "leaving stake");
    }
}
