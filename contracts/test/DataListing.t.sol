// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IDataListing} from "../src/interfaces/IDataListing.sol";
import {IOpenings} from "../src/interfaces/IOpenings.sol";
import {MarketCase} from "./MarketCase.sol";

contract DataListingTest is MarketCase {
    uint128 private constant PRICE = 55;
    uint64 private constant UNTIL = BEGIN + EPOCH;
    address private immutable OWNER = address(0x0DA7A);

    IDataListing private data;
    bytes32 private listing;

    function setUp() external {
        openMarket();
        data = IDataListing(deploy("artifacts/DataListing.json", abi.encode(chain)));
        listing = offered(tensorRoot());
    }

    function offered(bytes32 top) private returns (bytes32) {
        bytes memory call_ = abi.encodeCall(IDataListing.list, (top, keccak256("licence"), PRICE));
        return abi.decode(send(OWNER, address(data), 0, call_), (bytes32));
    }

    function fails(uint256 value, bytes memory call_, bytes memory reason) private {
        refuse(REQUESTER, address(data), value, call_, reason);
    }

    function trained(Fault fault) private returns (Run memory r) {
        bytes32 id = chain.register(vm.addr(WORKER), SPECIFICATION, 0, NONCE);
        r = recorded(WORKER, id, UNITS, fault);
        anchored(chain, r);
    }

    function fund(bytes32 which, bytes32 id, uint64 until) private pure returns (bytes memory) {
        return abi.encodeCall(IDataListing.fund, (which, id, until));
    }

    function claim(bytes32 which, Run memory r, uint256 index, IOpenings.Opening memory o)
        private
        pure
        returns (bytes memory)
    {
        return abi.encodeCall(IDataListing.claim, (which, r.run, 0, r.head, included(r, index), o));
    }

    /// A use that is not paid, paid to another, or paid twice.
    function test_a_shown_use_is_paid() external {
        Run memory r = trained(Fault.None);
        send(REQUESTER, address(data), PRICE, fund(listing, r.run, UNTIL));
        bytes memory shown = claim(listing, r, 0, openingOf(GRADIENTS, 0, 0));
        vm.warp(UNTIL);
        fails(0, shown, abi.encodeWithSelector(IDataListing.TooLate.selector, UNTIL));
        vm.warp(UNTIL - 1);
        bytes memory back = abi.encodeCall(IDataListing.reclaim, (listing, r.run));
        fails(0, back, abi.encodeWithSelector(IDataListing.TooEarly.selector, UNTIL));
        send(CHALLENGER, address(data), 0, shown);
        owes(data, OWNER, PRICE, "price");
        bytes memory reason = abi.encodeWithSelector(IDataListing.NotFunded.selector, listing, r.run);
        fails(0, shown, reason);
        vm.warp(UNTIL);
        fails(0, back, reason);
        reason = abi.encodeWithSelector(IDataListing.AlreadyFunded.selector, listing, r.run);
        fails(PRICE, fund(listing, r.run, UNTIL + 1), reason);
        equal(address(data).balance, PRICE, "all of it");
    }

    /// Money that stays where nobody used the data, or that goes to another than who paid.
    function test_an_unused_payment_goes_back() external {
        send(REQUESTER, address(data), PRICE, fund(listing, keccak256("run"), UNTIL));
        vm.warp(UNTIL);
        bytes memory back = abi.encodeCall(IDataListing.reclaim, (listing, keccak256("run")));
        send(CHALLENGER, address(data), 0, back);
        owes(data, REQUESTER, PRICE, "back");
        fails(0, back, only(IDataListing.NotFunded.selector));
        equal(address(data).balance, PRICE, "all of it");
    }

    /// Paid in for nothing that is listed, at another price, for ever, or into the past.
    function test_paying_in() external {
        bytes32 id = keccak256("run");
        bytes32 unknown = keccak256("listing");
        bytes memory reason = abi.encodeWithSelector(IDataListing.UnknownListing.selector, unknown);
        fails(0, fund(unknown, id, UNTIL), reason);
        reason = abi.encodeWithSelector(IDataListing.WrongValue.selector, PRICE, PRICE - 1);
        fails(PRICE - 1, fund(listing, id, UNTIL), reason);
        reason = abi.encodeWithSelector(IDataListing.WrongTime.selector, BEGIN);
        fails(PRICE, fund(listing, id, BEGIN), reason);
        uint64 year = BEGIN + 365 days;
        reason = abi.encodeWithSelector(IDataListing.WrongTime.selector, year + 1);
        fails(PRICE, fund(listing, id, year + 1), reason);
        send(REQUESTER, address(data), PRICE, fund(listing, id, year));
        reason = abi.encodeWithSelector(IDataListing.AlreadyFunded.selector, listing, id);
        fails(PRICE, fund(listing, id, UNTIL), reason);
        require(data.listingOf(listing).owner == OWNER, "owner");
    }

    function unused(bytes32 which, Run memory r, uint256 index, IOpenings.Opening memory o) private {
        bytes memory reason = abi.encodeWithSelector(IDataListing.NotUsed.selector, which, r.run);
        fails(0, claim(which, r, index, o), reason);
    }

    /// Another tensor, an entry without bytes, another receipt, or an opening that leads elsewhere.
    function test_what_was_not_used_is_not_paid() external {
        Run memory r = trained(Fault.None);
        send(REQUESTER, address(data), PRICE, fund(listing, r.run, UNTIL));
        for (uint64 entry = 1; entry < 5; ++entry) {
            unused(listing, r, 0, openingOf(GRADIENTS, entry, 0));
        }
        unused(listing, r, 0, openingOf(HYPERPARAMETERS, 0, 0));
        for (uint256 index = 1; index < SIZE; ++index) {
            unused(listing, r, index, openingOf(GRADIENTS, 0, 0));
        }
        IOpenings.Opening memory o = openingOf(GRADIENTS, 0, 0);
        o.blind ^= bytes32(uint256(1));
        unused(listing, r, 0, o);
        o = openingOf(GRADIENTS, 0, 0);
        o.entryBlind ^= bytes32(uint256(1));
        unused(listing, r, 0, o);
        o.entryBlind = 0;
        fails(0, claim(listing, r, 0, o), only(IOpenings.WrongBlinds.selector));
        bytes32 other = offered(keccak256("another tensor"));
        send(REQUESTER, address(data), PRICE, fund(other, r.run, UNTIL));
        unused(other, r, 0, openingOf(GRADIENTS, 0, 0));
        // A run that was never registered has no owner, and no log.
        Run memory unknown = recorded(WORKER, keccak256("unknown"), UNITS, Fault.None);
        send(REQUESTER, address(data), PRICE, fund(listing, unknown.run, UNTIL));
        unused(listing, unknown, 0, openingOf(GRADIENTS, 0, 0));
    }
}
