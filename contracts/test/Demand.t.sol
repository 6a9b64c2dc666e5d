// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IChallenge} from "../src/interfaces/IChallenge.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IOpenings} from "../src/interfaces/IOpenings.sol";
import {ISubmissions} from "../src/interfaces/ISubmissions.sol";
import {MarketCase} from "./MarketCase.sol";

/// @title Demands of one kilobyte, and their answers
contract DemandTest is MarketCase {
    function setUp() external {
        openMarket();
    }

    function answer(bytes32 id, Run memory of_, IChallenge.Place memory place)
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeCall(
            IChallenge.answer,
            (
                id,
                terms(),
                of_.head,
                included(of_, place.index % SIZE),
                openingOf(place.field, place.entry, place.chunk)
            )
        );
    }

    function fails(bytes memory data, bytes4 reason) private {
        refuse(CHALLENGER, address(challenge), 0, data, only(reason));
    }

    /// An answer that an honest worker has and that is refused: every field, entry and chunk, modulo all numbers.
    function test_every_place_has_an_answer() external {
        Run memory one = submitted(terms(), Fault.None);
        uint256 number;
        for (uint8 field = GRADIENTS; field <= HYPERPARAMETERS + RESULT; ++field) {
            if (field > HYPERPARAMETERS && field < PARAMETERS + RESULT) continue;
            for (uint64 place = 0; place < 4; ++place) {
                uint64 index = place == 3 ? type(uint64).max : (field > 16 ? 5 : 2) + place * uint64(SIZE);
                bytes32 id = demanded(terms(), IChallenge.Place(index, field, place, place * 2 + 1));
                bytes memory data = answer(id, one, challenge.demandOf(id).place);
                send(vm.addr(OTHER), address(challenge), 0, data);
                fails(data, ISubmissions.Unknown.selector);
                ++number;
            }
        }
        equal(number, 36, "places");
        owes(challenge, one.worker, number * FEE, "a fee for each");
        uint256 bonds = FEE * (2 ** number - 1);
        owes(challenge, address(0), bonds - number * FEE, "the rest is burned");
        equal(address(challenge).balance, bonds, "all of it");
        equal(escrow.jobOf(job).open, 0, "nothing is open");
    }

    /// A blinded tensor's chunks, an absent entry, an alias, a sharded and an empty one, of one step.
    function test_every_kind_of_entry_has_an_answer() external {
        Run memory one = submitted(terms(), Fault.None);
        for (uint64 entry = 0; entry < 5; ++entry) {
            for (uint64 chunk = 0; chunk < 4; ++chunk) {
                bytes32 id = demanded(terms(), IChallenge.Place(2, GRADIENTS, entry + 5 * chunk, chunk));
                send(one.worker, address(challenge), 0, answer(id, one, challenge.demandOf(id).place));
            }
        }
    }

    /// An answer for another place, of another step, or of a tensor that the receipt does not speak of.
    function test_another_place_is_no_answer() external {
        Run memory one = submitted(terms(), Fault.None);
        bytes32 id = demanded(terms(), IChallenge.Place(3, GRADIENTS, 0, 1));
        fails(answer(id, one, IChallenge.Place(4, GRADIENTS, 0, 1)), IChallenge.WrongPlace.selector);
        fails(answer(id, one, IChallenge.Place(3, GRADIENTS, 1, 1)), IChallenge.WrongPlace.selector);
        fails(answer(id, one, IChallenge.Place(3, GRADIENTS, 0, 2)), IChallenge.WrongPlace.selector);
        fails(answer(id, one, IChallenge.Place(3, PARAMETERS, 0, 1)), IOpenings.WrongCommitment.selector);
        fails(answer(id, one, IChallenge.Place(3, OPTIMIZER, 0, 0)), IOpenings.WrongCommitment.selector);
        fails(answer(id, one, IChallenge.Place(3, BUFFERS, 0, 0)), IOpenings.WrongCommitment.selector);
        Run memory foreign = recorded(WORKER, keccak256("run"), UNITS, Fault.None);
        fails(answer(id, foreign, IChallenge.Place(3, GRADIENTS, 0, 1)), IChallenge.NotSubmitted.selector);
        IOpenings.Opening memory changedOpening = openingOf(GRADIENTS, 0, 1);
        changedOpening.chunk[5] ^= 0x01;
        bytes memory data =
            abi.encodeCall(IChallenge.answer, (id, terms(), one.head, included(one, 3), changedOpening));
        fails(data, IOpenings.WrongTensor.selector);
        changedOpening = openingOf(GRADIENTS, 0, 1);
        changedOpening.entryBlind = 0;
        data = abi.encodeCall(IChallenge.answer, (id, terms(), one.head, included(one, 3), changedOpening));
        fails(data, IOpenings.WrongBlinds.selector);
        // A state without entries in the place of one that has them.
        changedOpening = openingOf(BUFFERS, 0, 0);
        changedOpening.blind = keccak256("blind");
        data = abi.encodeCall(IChallenge.answer, (id, terms(), one.head, included(one, 3), changedOpening));
        fails(data, IOpenings.WrongCommitment.selector);
        send(one.worker, address(challenge), 0, answer(id, one, IChallenge.Place(3, GRADIENTS, 0, 1)));
    }

    /// An answer a second too late that counts, a demand that convicts a second too early, or never.
    function test_a_demand_that_nobody_answers_convicts() external {
        IJobEscrow.Terms memory t = terms();
        Run memory one = submitted(t, Fault.None);
        bytes32 id = demanded(t, IChallenge.Place(3, GRADIENTS, 0, 1));
        uint64 ends = challenge.demandOf(id).answerEnds;
        require(ends == t.revealEnds + VOTE, "end");
        bytes memory expire = abi.encodeCall(IChallenge.expire, (id, t));
        bytes memory reply = answer(id, one, IChallenge.Place(3, GRADIENTS, 0, 1));
        vm.warp(ends - 1);
        refuse(
            REQUESTER,
            address(challenge),
            0,
            expire,
            abi.encodeWithSelector(ISubmissions.TooEarly.selector, ends)
        );
        vm.warp(ends);
        refuse(
            REQUESTER,
            address(challenge),
            0,
            reply,
            abi.encodeWithSelector(ISubmissions.TooLate.selector, ends)
        );
        send(REQUESTER, address(challenge), 0, expire);
        stateIs(IJobEscrow.State.Refused);
        owes(challenge, CHALLENGER, FEE, "the bond");
        owes(vault, CHALLENGER, STAKE / 2, "half of the stake, to who demanded");
        owes(vault, REQUESTER, 0, "who called has nothing");
        fails(expire, ISubmissions.Unknown.selector);
        fails(reply, ISubmissions.Unknown.selector);
    }

    /// An answer in the last second, refused.
    function test_an_answer_in_the_last_second() external {
        IJobEscrow.Terms memory t = terms();
        Run memory one = submitted(t, Fault.None);
        bytes32 id = demanded(t, IChallenge.Place(3, HYPERPARAMETERS, 0, 0));
        vm.warp(challenge.demandOf(id).answerEnds - 1);
        send(one.worker, address(challenge), 0, answer(id, one, IChallenge.Place(3, HYPERPARAMETERS, 0, 0)));
        finalise(t);
        stateIs(IJobEscrow.State.Paid);
    }

    /// Demands of fields that the job does not open, outside the window, at another price, or of a paid job.
    function test_demanding() external {
        IJobEscrow.Terms memory t = terms();
        t.openable = uint32(1) << GRADIENTS | uint32(1) << 13 | uint32(1) << 1 | uint32(1) << 16;
        accepted(t);
        bytes memory data = abi.encodeCall(IChallenge.demand, (job, t, IChallenge.Place(3, GRADIENTS, 0, 0)));
        fails(data, ISubmissions.NotChallengeable.selector);
        Run memory one = recorded(WORKER, run, UNITS, Fault.None);
        anchored(chain, one);
        send(one.worker, address(escrow), 0, submission(t, one));
        uint8[7] memory closed = [0, 1, 6, 13, 15, 16, 255];
        for (uint256 n = 0; n < 7; ++n) {
            bytes memory other =
                abi.encodeCall(IChallenge.demand, (job, t, IChallenge.Place(3, uint8(closed[n]), 0, 0)));
            bytes memory reason = abi.encodeWithSelector(IChallenge.NotOpenable.selector, closed[n]);
            refuse(CHALLENGER, address(challenge), FEE, other, reason);
        }
        for (uint256 n = 0; n < 9; ++n) {
            uint256 price = FEE * 2 ** n;
            equal(challenge.bondOf(job, t), price, "the price doubles");
            bytes memory reason = abi.encodeWithSelector(ISubmissions.WrongValue.selector, price, price - 1);
            refuse(CHALLENGER, address(challenge), price - 1, data, reason);
            send(CHALLENGER, address(challenge), price, data);
        }
        uint64 ends = escrow.jobOf(job).challengeEnds;
        vm.warp(ends - 1);
        send(CHALLENGER, address(challenge), FEE * 512, data);
        vm.warp(ends);
        refuse(CHALLENGER, address(challenge), FEE * 1024, data, only(ISubmissions.NotChallengeable.selector));
    }
}
