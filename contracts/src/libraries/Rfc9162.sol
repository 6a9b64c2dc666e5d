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
    /// @dev RFC 9162, 2.1.3.2. A path of another length than index and size determine is refused.
    function includes(bytes32 root, uint64 size, bytes32 leaf, uint64 index, bytes32[] calldata proof)
        internal
        view
        returns (bool)
    {
        if (index >= size) return false;
        uint256 position = index;
        uint256 last = size - 1;
        bytes32 node = leaf;
        for (uint256 level = 0; level < proof.length; ++level) {
            if (last == 0) return false;
            bytes32 sibling = proof[level];
            if (position & 1 == 0 && position != last) {
                node = nodeHash(node, sibling);
            } else {
                node = nodeHash(sibling, node);
                // A node without a sibling of its own rises until it has one.
                while (position & 1 == 0 && position != 0) {
                    position >>= 1;
                    last >>= 1;
                }
            }
            position >>= 1;
            last >>= 1;
        }
        return last == 0 && node == root;
    }
}
