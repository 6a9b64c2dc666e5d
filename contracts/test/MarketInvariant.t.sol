// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {MarketTraders} from "./MarketTraders.sol";

contract MarketInvariants {
    MarketTraders private traders;

    function setUp() external {
        traders = new MarketTraders();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(traders);
    }

    /// @dev `end` is for the end of a sequence alone.
    function excludeSelectors() external view returns (FuzzSelector[] memory excluded) {
        excluded = new FuzzSelector[](1);
        excluded[0].addr = address(traders);
        excluded[0].selectors = new bytes4[](1);
        excluded[0].selectors[0] = MarketTraders.end.selector;
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// Money that appears, vanishes or goes to somebody whom the rules do not give it to; an honest worker that
    /// is convicted, or whose answer is refused.
    function invariant_the_market_owes_what_its_rules_say() external view {
        traders.check();
    }

    /// A job, a dispute, a demand or a stake that nobody can end.
    function afterInvariant() external {
        traders.end();
        traders.check();
    }
}
