// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {MarketTraders} from "./MarketTraders.sol";

/// @dev About 1,600 calls of the market in each sequence; with FOUNDRY_PROFILE=deep more than a million in all.
contract MarketInvariants {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    MarketTraders private traders;

    function setUp() external {
        traders = new MarketTraders();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(traders);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0].addr = address(traders);
        targets[0].selectors = new bytes4[](1);
        targets[0].selectors[0] = MarketTraders.go.selector;
    }

    /// Money that appears, vanishes or goes to somebody whom the rules do not give it to; an honest worker that
    /// is convicted, or whose answer is refused.
    /// forge-config: default.invariant.runs = 8
    /// forge-config: deep.invariant.runs = 800
    function invariant_the_market_owes_what_its_rules_say() external view {
        // A mistake stays: it need not be looked for after each call.
        if (traders.calls() % 16 == 0) traders.check();
    }

    /// A job, a dispute, a demand or a stake that nobody can end.
    function afterInvariant() external {
        traders.check();
        require(traders.calls() > 800, "hardly a call");
        traders.end();
        traders.check();
    }

    /// Traders that do not trade: nothing that they do not do is tested above.
    function test_the_traders_come_to_every_end() external {
        for (uint256 seed = 0; seed < 256; ++seed) {
            traders.go(seed);
        }
        require(traders.paid() > 0 && traders.convictions() > 0, "nobody was paid, or convicted");
        require(traders.verdicts() > 0 && traders.answers() > 0, "nothing was judged, or answered");
    }
}
