// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Merkle trees of RFC 9162 with SHA-256
/// @dev Unlike sorted-pair proofs these show a leaf's position, so index and size take part in the check.
library Rfc9162 {
    /// @notice SHA-256(0x00 || leaf)
    function leafHash(bytes calldata leaf) internal view returns (bytes32 result) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 0x00)
            calldatacopy(add(free, 0x01), leaf.offset, leaf.length)
            // The precompile fails only without gas, and then nothing may be answered.
            if iszero(staticcall(gas(), 0x02, free, add(leaf.length, 0x01), 0x00, 0x20)) {
                revert(0x00, 0x00)
            }
            result := mload(0x00)
        }
    }

    /// @notice SHA-256(0x01 || left || right)
    function nodeHash(bytes32 left, bytes32 right) internal view returns (bytes32 result) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 0x01)
            mstore(add(free, 0x01), left)
            mstore(add(free, 0x21), right)
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
        uint256 last;
        unchecked {
            last = uint256(size) - 1;
        }
        (uint256 turns, uint256 length) = path(index, last);
        if (proof.length != length) return (false, 0);
        if (length == 0) return (true, leaf);
        // Most of an inclusion's price. The children lie behind the prefix at 0x20 and 0x40, and each hash is
        // written where the next level needs it; the pointer to free memory is put back.
        assembly ("memory-safe") {
            let free := mload(0x40)
            // Shifted, a turn is the distance of the children.
            turns := shl(5, turns)
            mstore8(0x1f, 0x01)
            let node := add(and(turns, 0x20), 0x20)
            mstore(node, leaf)
            for { let sibling := proof.offset } 1 { sibling := add(sibling, 0x20) } {
                mstore(xor(node, 0x60), calldataload(sibling))
                turns := shr(1, turns)
                node := add(and(turns, 0x20), 0x20)
                if iszero(and(staticcall(gas(), 0x02, 0x1f, 0x41, node, 0x20), gt(turns, 0x3f))) {
                    break
                }
            }
            // Without gas the precompile stops the loop early, or answers nothing the last time.
            if or(gt(turns, 0x3f), iszero(returndatasize())) { revert(0x00, 0x00) }
            root := mload(node)
            mstore(0x40, free)
        }
        return (true, root);
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
    /// @return turns From the lowest bit on, whether the node of each level is a right child; then one bit
    /// that ends them.
    /// @return length Siblings on the way.
    function path(uint256 position, uint256 last) internal pure returns (uint256 turns, uint256 length) {
        unchecked {
            uint256 meeting = bitLength(position ^ last);
            length = meeting;
            for (uint256 above = position >> meeting; above != 0; above &= above - 1) {
                ++length;
            }
            turns = (position & ((1 << meeting) - 1)) | ((2 << length) - (1 << meeting));
        }
    }

    /// @dev Of a number below 2^64.
    function bitLength(uint256 value) private pure returns (uint256 length) {
        assembly ("memory-safe") {
            length := shl(5, gt(value, 0xffffffff))
            length := or(length, shl(4, gt(shr(length, value), 0xffff)))
            length := or(length, shl(3, gt(shr(length, value), 0xff)))
            length := or(length, shl(2, gt(shr(length, value), 0xf)))
            length := or(length, shl(1, gt(shr(length, value), 0x3)))
            length := or(length, gt(shr(length, value), 0x1))
            length := add(length, gt(value, 0))
        }
    }
}
