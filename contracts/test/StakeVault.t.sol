// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../src/interfaces/IChallenge.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {IPurse} from "../src/interfaces/IPurse.sol";
import {IStakeVault} from "../src/interfaces/IStakeVault.sol";
import {MarketCase} from "./MarketCase.sol";

/// @dev An account whose code does something else than take money.
contract Payee {
    enum Mode {
        Takes,
        Reverts,
        Reenters,
        Burns,
        Bombs
    }

    Mode private immutable MODE;
    bool public isRefused;

    constructor(Mode mode) {
        MODE = mode;
    }

    function run(address to, uint256 value, bytes calldata data) external {
        (bool succeeded,) = to.call{value: value}(data);
        require(succeeded, "refused");
    }

    receive() external payable {
        if (MODE == Mode.Reverts) revert("no");
        if (MODE == Mode.Reenters) {
            try IPurse(msg.sender).withdraw(payable(address(this))) returns (uint256) {}
            catch {
                isRefused = true;
            }
        }
        if (MODE == Mode.Burns) {
            for (uint256 n = 0; gasleft() > 5_000; ++n) {}
            assembly {
                invalid()
            }
        }
        if (MODE == Mode.Bombs) {
            assembly {
                revert(0, 1000000)
            }
        }
    }
}

contract StakeVaultTest is MarketCase {
    function setUp() external {
        openMarket();
    }

    function worker() private pure returns (address) {
        return vm.addr(WORKER);
    }

    /// Stake that is credited to who pays, or replaces what was there.
    function test_deposits_are_the_accounts() external {
        bytes memory data = abi.encodeCall(IStakeVault.deposit, (worker()));
        send(CHALLENGER, address(vault), 7, data);
        stakeIs(worker(), STAKE + 7, 0, 0);
        stakeIs(CHALLENGER, 0, 0, 0);
        equal(vault.weightOf(worker()), STAKE + 7, "weight");
    }

    /// Stake that leaves before its release, later than it, or beside what began to leave after it.
    function test_an_exit_takes_its_time() external {
        equal(vault.EXIT_DELAY(), EXIT_DELAY, "delay");
        bytes memory exit = abi.encodeCall(IStakeVault.exit, ());
        bytes memory begin = abi.encodeCall(IStakeVault.beginExit, (STAKE + 1));
        bytes memory reason =
            abi.encodeWithSelector(IStakeVault.NotEnoughStake.selector, worker(), STAKE + 1, STAKE);
        refuse(worker(), address(vault), 0, begin, reason);
        send(worker(), address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (100)));
        stakeIs(worker(), STAKE - 100, 0, 100);
        equal(vault.weightOf(worker()), STAKE - 100, "what leaves weighs nothing");
        vm.warp(BEGIN + 5);
        send(worker(), address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (20)));
        uint64 release = BEGIN + 5 + EXIT_DELAY;
        reason = abi.encodeWithSelector(IStakeVault.TooEarly.selector, release);
        vm.warp(release - 1);
        refuse(worker(), address(vault), 0, exit, reason);
        vm.warp(release);
        send(worker(), address(vault), 0, exit);
        stakeIs(worker(), STAKE - 120, 0, 0);
        owes(vault, worker(), 120, "what left");
        vm.warp(release + 1);
        send(worker(), address(vault), 0, exit);
        owes(vault, worker(), 120, "twice");
    }

    /// Stake that answers for a job and leaves.
    function test_locked_stake_stays() external {
        accepted(terms());
        stakeIs(worker(), 0, STAKE, 0);
        bytes memory reason = abi.encodeWithSelector(IStakeVault.NotEnoughStake.selector, worker(), 1, 0);
        refuse(worker(), address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (1)), reason);
    }

    /// Anybody who locks, frees or takes the stake of others.
    function test_strangers_are_refused() external {
        bytes memory reason = abi.encodeWithSelector(IStakeVault.NotAllowed.selector, CHALLENGER);
        bytes memory data = abi.encodeCall(IStakeVault.lock, (worker(), 1));
        refuse(CHALLENGER, address(vault), 0, data, reason);
        data = abi.encodeCall(IStakeVault.unlock, (worker(), 1));
        refuse(CHALLENGER, address(vault), 0, data, reason);
        data = abi.encodeCall(IStakeVault.slash, (worker(), 1, false, CHALLENGER));
        refuse(CHALLENGER, address(vault), 0, data, reason);
        // The challenge contract does not lock, and the escrow does not slash.
        reason = abi.encodeWithSelector(IStakeVault.NotAllowed.selector, address(challenge));
        data = abi.encodeCall(IStakeVault.lock, (worker(), 1));
        refuse(address(challenge), address(vault), 0, data, reason);
        reason = abi.encodeWithSelector(IStakeVault.NotAllowed.selector, address(escrow));
        data = abi.encodeCall(IStakeVault.slash, (worker(), 1, false, CHALLENGER));
        refuse(address(escrow), address(vault), 0, data, reason);
    }

    /// A worker that is paid, begins to leave and so keeps what its fault should cost; half a wei that vanishes.
    function test_what_leaves_is_slashed_too() external {
        IJobEscrow.Terms memory t = terms();
        Run memory r = submitted(t, Fault.None);
        finalise(t);
        stakeIs(worker(), STAKE, 0, 0);
        send(worker(), address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (STAKE - 1_000)));
        bytes memory proof =
            abi.encodeCall(IChallenge.proveContradiction, (job, t, r.receipts[1], changed(r, 1, WORKER)));
        send(CHALLENGER, address(challenge), 0, proof);
        stakeIs(worker(), 0, 0, 0);
        owes(vault, CHALLENGER, STAKE / 2, "half");
        owes(vault, address(0), STAKE - STAKE / 2, "the larger half is burned");
        // What was paid stays paid.
        stateIs(IJobEscrow.State.Paid);
    }

    /// Slashed more than the job's stake.
    function test_no_more_than_the_jobs_stake_is_taken() external {
        IJobEscrow.Terms memory t = terms();
        Run memory r = submitted(t, Fault.None);
        finalise(t);
        vault.deposit{value: 900}(worker());
        bytes memory proof =
            abi.encodeCall(IChallenge.proveContradiction, (job, t, r.receipts[1], changed(r, 1, WORKER)));
        send(CHALLENGER, address(challenge), 0, proof);
        send(CHALLENGER, address(challenge), 0, proof);
        stakeIs(worker(), 900, 0, 0);
    }

    /// Money sent twice, to nobody, or lost because its receiver refused it.
    function test_withdrawals() external {
        bytes memory data = abi.encodeCall(IPurse.withdraw, (payable(CHALLENGER)));
        bytes memory reason = abi.encodeWithSelector(IPurse.NothingToWithdraw.selector, CHALLENGER);
        refuse(CHALLENGER, address(vault), 0, data, reason);
        for (uint256 mode = 0; mode < 5; ++mode) {
            withdrawTo(Payee.Mode(mode));
        }
    }

    function withdrawTo(Payee.Mode mode) private {
        Payee payee = new Payee(mode);
        vm.deal(address(payee), 0);
        uint256 held = address(vault).balance;
        vault.deposit{value: 50}(address(payee));
        payee.run(address(vault), 0, abi.encodeCall(IStakeVault.beginExit, (50)));
        vm.warp(vault.stakeOf(address(payee)).release);
        payee.run(address(vault), 0, abi.encodeCall(IStakeVault.exit, ()));
        bytes memory nobody = abi.encodeCall(IPurse.withdraw, (payable(address(0))));
        bytes memory reason = abi.encodeWithSelector(IPurse.NothingToWithdraw.selector, address(payee));
        refuse(address(payee), address(vault), 0, nobody, reason);
        bytes memory data = abi.encodeCall(IPurse.withdraw, (payable(address(payee))));
        if (mode == Payee.Mode.Takes || mode == Payee.Mode.Reenters) {
            send(address(payee), address(vault), 0, data);
            require(payee.isRefused() == (mode == Payee.Mode.Reenters), "paid twice");
        } else {
            reason = abi.encodeWithSelector(IPurse.NotReceived.selector, address(payee), 50);
            vm.prank(address(payee));
            (bool succeeded, bytes memory answer) = address(vault).call{gas: 3_000_000}(data);
            require(!succeeded, "a refusal is no payment");
            if (mode != Payee.Mode.Burns) require(keccak256(answer) == keccak256(reason), "its reason");
            owes(vault, address(payee), 50, "still owed");
            bytes memory elsewhere = abi.encodeCall(IPurse.withdraw, (payable(CHALLENGER)));
            send(address(payee), address(vault), 0, elsewhere);
        }
        equal(address(vault).balance, held, "only its own");
        owes(vault, address(payee), 0, "nothing is owed");
    }

    /// Payees that block the requester, a displaced leader, or everybody else in their job.
    function test_no_payee_blocks_another() external {
        IJobEscrow.Terms memory t = terms();
        t.stake = 0;
        post(t);
        Payee[5] memory payees;
        for (uint256 n = 0; n < 5; ++n) {
            payees[n] = new Payee(Payee.Mode(n));
            vm.deal(address(payees[n]), 1 ether);
            bytes32 sealedBid = escrow.commitmentOf(job, address(payees[n]), uint128(900 - n), "salt");
            payees[n].run(address(escrow), DEPOSIT, abi.encodeCall(IJobEscrow.bid, (job, t, sealedBid)));
        }
        bid(t, WORKER, 600);
        vm.warp(t.biddingEnds);
        for (uint256 n = 0; n < 5; ++n) {
            bytes memory data = abi.encodeCall(IJobEscrow.reveal, (job, t, uint128(900 - n), "salt"));
            payees[n].run(address(escrow), 0, data);
        }
        reveal(t, WORKER, 600);
        require(escrow.jobOf(job).worker == worker() && escrow.jobOf(job).next == 896, "the best of them");
        for (uint256 n = 0; n < 5; ++n) {
            owes(escrow, address(payees[n]), DEPOSIT, "its deposit");
        }
    }

    /// A market whose parameters let a state last for ever, or no time.
    function test_parameters_that_make_no_market() external {
        for (uint8 place = 0; place < 6; ++place) {
            IMarket.Parameters memory p = parameters();
            if (place == 0) p.vote = 0;
            if (place == 1) p.epoch = 0;
            if (place == 2) p.shortestWindow = 0;
            if (place == 3) p.longestWindow = p.shortestWindow - 1;
            if (place == 4) p.seat = 0;
            if (place == 5) p.feePerUnit = 0;
            require(deploy("artifacts/Market.json", abi.encode(chain, p)) == address(0), "it opened");
        }
        IMarket.Parameters memory longest = parameters();
        (longest.vote, longest.epoch, longest.longestWindow) = (365 days, 365 days, 365 days);
        require(deploy("artifacts/Market.json", abi.encode(chain, longest)) != address(0), "a year");
        longest.vote += 1;
        require(deploy("artifacts/Market.json", abi.encode(chain, longest)) == address(0), "a longer vote");
    }
}
