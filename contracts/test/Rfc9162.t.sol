// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Rfc9162} from "../src/libraries/Rfc9162.sol";
import {Case} from "./Case.sol";

contract Rfc9162Test is Case {
    function includes(bytes32 root, uint64 size, bytes32 leaf, uint64 index, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return Rfc9162.includes(root, size, leaf, index, proof);
    }

    function isConsistent(uint64 m, bytes32 rootM, uint64 n, bytes32 rootN, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return Rfc9162.isConsistent(m, rootM, n, rootN, proof);
    }

    function leafHash(bytes calldata leaf) external view returns (bytes32) {
        return Rfc9162.leafHash(leaf);
    }

    /// A prefix that is missing, or memory left over from before.
    function testFuzz_leaves_are_hashed_behind_their_prefix(bytes calldata leaf) external view {
        require(this.leafHash(leaf) == sha256(abi.encodePacked(hex"00", leaf)), "leaf hash");
    }

    /// Free memory that is not given back shows in whatever is computed afterwards.
    function testFuzz_memory_is_left_as_it_was(uint8 padding, bytes32 leaf) external view {
        bytes memory before = new bytes(padding);
        bytes32[] memory proof = new bytes32[](3);
        bytes32 top = node(node(node(leaf, proof[0]), proof[1]), proof[2]);
        require(this.includes(top, 8, leaf, 0, proof), "included");
        bytes memory behind = new bytes(64);
        for (uint256 n = 0; n < 64; ++n) {
            require(behind[n] == 0, "dirty memory");
        }
        require(before.length == padding, "length");
    }

    /// A path that is accepted for a leaf, index, size or length it was not made for.
    function testFuzz_inclusion_holds_for_one_place(uint256 seed, uint256 size, uint256 index, uint256 other)
        external
        view
    {
        size = 1 + size % 80;
        index %= size;
        other %= 128;
        bytes32[] memory leaves = filled(size, seed);
        bytes32 top = root(leaves, 0, size);
        bytes32[] memory proof = inclusion(leaves, size, index);
        require(this.includes(top, uint64(size), leaves[index], uint64(index), proof), "included");
        if (other != index) {
            require(!this.includes(top, uint64(size), leaves[index], uint64(other), proof), "other index");
        }
        require(
            !this.includes(bytes32(seed), uint64(size), leaves[index], uint64(index), proof), "other root"
        );
        require(!this.includes(top, uint64(size), bytes32(seed), uint64(index), proof), "other leaf");
        require(!this.includes(top, 0, leaves[index], uint64(index), proof), "no tree");

        bytes32[] memory longer = new bytes32[](proof.length + 1);
        for (uint256 n = 0; n < proof.length; ++n) {
            longer[n] = proof[n];
        }
        require(!this.includes(top, uint64(size), leaves[index], uint64(index), longer), "longer");
        if (proof.length > 0) {
            proof[other % proof.length] ^= bytes32(uint256(1));
            require(!this.includes(top, uint64(size), leaves[index], uint64(index), proof), "other sibling");
        }
    }

    /// A proof of growth that is accepted for trees of which one does not begin the other.
    function testFuzz_consistency_holds_for_two_trees(uint256 seed, uint256 size, uint256 m, uint256 place)
        external
        view
    {
        size = 2 + size % 80;
        m = 1 + m % (size - 1);
        bytes32[] memory leaves = filled(size, seed);
        (bytes32 old, bytes32 top) = (root(leaves, 0, m), root(leaves, 0, size));
        bytes32[] memory proof = consistency(leaves, m, size);
        require(this.isConsistent(uint64(m), old, uint64(size), top, proof), "consistent");
        require(!this.isConsistent(uint64(m), top, uint64(size), top, proof), "other previous root");
        require(!this.isConsistent(uint64(m), old, uint64(size), old, proof), "other root");
        require(!this.isConsistent(uint64(size), top, uint64(m), old, proof), "shrinks");
        require(!this.isConsistent(0, old, uint64(size), top, proof), "from nothing");

        bytes32[] memory longer = new bytes32[](proof.length + 1);
        for (uint256 n = 0; n < proof.length; ++n) {
            longer[n] = proof[n];
        }
        require(!this.isConsistent(uint64(m), old, uint64(size), top, longer), "longer");
        // Another leaf of the old tree, the new one's path being honest.
        leaves[place % m] ^= bytes32(uint256(1));
        require(!this.isConsistent(uint64(m), root(leaves, 0, m), uint64(size), top, proof), "other history");
        proof[place % proof.length] ^= bytes32(uint256(1));
        require(!this.isConsistent(uint64(m), old, uint64(size), top, proof), "other hash");
    }

    /// Equal sizes need no proof and take none.
    function testFuzz_a_tree_is_consistent_with_itself_alone(uint64 size, bytes32 top, bytes32 other)
        external
        view
    {
        bytes32[] memory none = new bytes32[](0);
        require(this.isConsistent(size, top, size, top, none) == (size != 0), "itself");
        vm.assume(top != other);
        require(!this.isConsistent(size, top, size, other, none), "another");
        require(!this.isConsistent(size, top, size, top, new bytes32[](1)), "with a proof");
    }
}
