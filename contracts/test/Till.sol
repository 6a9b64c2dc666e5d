// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title A contract that takes money, tells all it knows and refuses
/// @notice For tests of calls alone: whatever an interface can hold and the run ledger has not.
contract Till {
    struct Item {
        uint64 id;
        bytes32 root;
        string label;
        int128[] weights;
    }

    event Paid(address indexed from, string indexed note, uint256 value, bytes raw);

    error TooLittle(uint256 expected, uint256 actual, string note);

    address public immutable owner;
    uint256 public payments;

    constructor(address owner_) {
        owner = owner_;
    }

    function pay(string calldata note) external payable {
        if (msg.value == 0) revert TooLittle(1, msg.value, note);
        ++payments;
        emit Paid(msg.sender, note, msg.value, bytes(note));
    }

    function refuse(uint256 code) external pure {
        if (code == 0) revert();
        require(code != 1, "not this");
        assert(code != 2);
        revert TooLittle(code, 0, "refused");
    }

    function echo(Item[] calldata items, bool twice) external pure returns (Item[] memory, bool negated) {
        return (items, !twice);
    }

    function time() external view returns (uint256) {
        return block.timestamp;
    }

    function hashOf(uint256 number) external view returns (bytes32) {
        return blockhash(number);
    }

    function sender() external view returns (address) {
        return msg.sender;
    }
}
