// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Merkle trees of RFC 9162 with SHA-256
/// @dev Unlike sorted-pair proofs these show a leaf's position, so index and size take part in the check.
library Rfc9162 {
    /// @notice SHA-256(0x00 || leaf)
    function leafHash(bytes calldata leaf) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x00), leaf));
    }

    /// @notice SHA-256(0x01 || left || right)
    function nodeHash(bytes32 left, bytes32 right) internal view returns (bytes32 result) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 0x01)
            mstore(add(free, 0x01), left)
            mstore(add(free, 0x21), right)
            // The precompile fails only without gas, and then nothing may be answered.
            if iszero(staticcall(gas(), 0x02, free, 0x41, 0x00, 0x20)) { revert(0x00, 0x00) }
            result := mload(0x00)
        }
    }

    /// @notice Whether the leaf with hash `leaf` stands at `index` in the tree of `size` leaves under `root`.
    function includes(bytes32 root, uint64 size, bytes32 leaf, uint64 index, bytes32[] calldata proof)
        internal
        view
        returns (bool)
    {
        (bool fits, bytes32 node) = climb(leaf, index, size, proof);
        return fits && node == root;
    }

    /// @notice The root to which `proof` leads from the leaf with hash `leaf` at `index` of `size` leaves.
    /// @dev RFC 9162, 2.1.3.2. A path of another length than index and size determine does not fit, and
    /// then the root says nothing.
    function climb(bytes32 leaf, uint64 index, uint64 size, bytes32[] calldata proof)
        internal
        view
        returns (bool fits, bytes32 root)
    {
        if (index >= size) return (false, 0);
        (uint256 turns, uint256 length) = path(index, size - 1);
        if (proof.length != length) return (false, 0);
        fits = true;
        // As `nodeHash`; the loop is most of the price of an inclusion.
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 0x01)
            let left := add(free, 0x01)
            let right := add(free, 0x21)
            mstore(0x00, leaf)
            let sibling := proof.offset
            for { let end := add(sibling, shl(5, length)) } lt(sibling, end) { sibling := add(sibling, 0x20) } {
                let shift := shl(5, and(turns, 1))
                mstore(add(left, shift), mload(0x00))
                mstore(sub(right, shift), calldataload(sibling))
                if iszero(staticcall(gas(), 0x02, free, 0x41, 0x00, 0x20)) { revert(0x00, 0x00) }
                turns := shr(1, turns)
            }
            root := mload(0x00)
        }
    }

    /// @notice Whether the tree of `size` leaves under `root` begins with that of `previousSize` leaves
    /// under `previousRoot`.
    /// @dev RFC 9162, 2.1.4.2; equal sizes take an empty proof. Other lengths than the sizes determine
    /// are refused.
    function isConsistent(
        uint64 previousSize,
        bytes32 previousRoot,
        uint64 size,
        bytes32 root,
        bytes32[] calldata proof
    ) internal view returns (bool) {
        if (previousSize == 0 || previousSize > size) return false;
        if (previousSize == size) return proof.length == 0 && previousRoot == root;
        // The largest full subtree at the edge of the previous tree takes the place of a leaf.
        uint256 edge = previousSize - 1;
        uint256 last = size - 1;
        while (edge & 1 == 1) {
            edge >>= 1;
            last >>= 1;
        }
        (uint256 turns, uint256 length) = path(edge, last);
        // That subtree is the whole previous tree, or its hash is the proof's first element.
        uint256 first = edge == 0 ? 0 : 1;
        if (proof.length != length + first) return false;
        bytes32 oldNode = first == 0 ? previousRoot : proof[0];
        bytes32 newNode = oldNode;
        for (uint256 level = 0; level < length; ++level) {
            bytes32 sibling = proof[first + level];
            if ((turns >> level) & 1 == 1) {
                oldNode = nodeHash(sibling, oldNode);
                newNode = nodeHash(sibling, newNode);
            } else {
                newNode = nodeHash(newNode, sibling);
            }
        }
        return oldNode == previousRoot && newNode == root;
    }

    /// @notice The way up from the node at `position`, where `last` is the last node of its level.
    /// @dev Up to the level at which it meets the way of the last node, it turns as the bits of its
    /// position say. Above, it is that way: it has a sibling, always a left one, where the bit is set.
    /// @return turns From the lowest bit on, whether the node of each level is a right child.
    /// @return length Siblings on the way.
    function path(uint256 position, uint256 last) internal pure returns (uint256 turns, uint256 length) {
        uint256 meeting = bitLength(position ^ last);
        turns = position | (type(uint256).max << meeting);
        length = meeting;
        for (uint256 above = position >> meeting; above != 0; above &= above - 1) ++length;
    }

    /// @dev Of a number below 2^64.
    function bitLength(uint256 number) private pure returns (uint256 length) {
        if (number >> 32 != 0) (number, length) = (number >> 32, 32);
        if (number >> 16 != 0) (number, length) = (number >> 16, length + 16);
        if (number >> 8 != 0) (number, length) = (number >> 8, length + 8);
        if (number >> 4 != 0) (number, length) = (number >> 4, length + 4);
        if (number >> 2 != 0) (number, length) = (number >> 2, length + 2);
        if (number >> 1 != 0) (number, length) = (number >> 1, length + 1);
        length += number;
    }
}
