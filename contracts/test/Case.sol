// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IRunLedger} from "../src/interfaces/IRunLedger.sol";
import {Vm} from "./Vm.sol";

/// @title What the tests share
/// @dev Trees are computed from their definition, RFC 9162, 2.1, and share no code with the library.
abstract contract Case {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    bytes32 internal constant SPECIFICATION = keccak256("specification");
    bytes32 internal constant NONCE = keccak256("nonce");

    /// @dev Creates a contract from its committed artifact.
    function deploy(string memory artifact) internal returns (address created) {
        bytes memory code = vm.parseJsonBytes(vm.readFile(artifact), ".bytecode");
        assembly {
            created := create(0, add(code, 0x20), mload(code))
        }
        require(created != address(0), "the artifact does not deploy");
    }

    function ledger() internal returns (IRunLedger) {
        return IRunLedger(deploy("artifacts/RunLedger.json"));
    }

    function logId(bytes32 run, address worker, uint32 lane) internal pure returns (bytes32) {
        return keccak256(abi.encode(keccak256("counterfoil.log.v1"), run, worker, lane));
    }

    function signature(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function equal(uint256 actual, uint256 expected, string memory what) internal pure {
        require(actual == expected, what);
    }

    /// @dev The largest power of two below `size`, which is at least 2.
    function split(uint256 size) internal pure returns (uint256 left) {
        left = 1;
        while (left * 2 < size) left *= 2;
    }

    function node(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(hex"01", left, right));
    }

    /// @dev The root over the leaf hashes from `begin` to before `end`.
    function root(bytes32[] memory leaves, uint256 begin, uint256 end) internal pure returns (bytes32) {
        if (end - begin == 1) return leaves[begin];
        uint256 middle = begin + split(end - begin);
        return node(root(leaves, begin, middle), root(leaves, middle, end));
    }

    /// @dev PATH(index, D[size]) of 2.1.3.1.
    function inclusion(bytes32[] memory leaves, uint256 size, uint256 index)
        internal
        pure
        returns (bytes32[] memory proof)
    {
        bytes32[] memory down = new bytes32[](64);
        uint256 length = 0;
        (uint256 begin, uint256 end) = (0, size);
        while (end - begin > 1) {
            uint256 middle = begin + split(end - begin);
            if (index < middle) {
                down[length++] = root(leaves, middle, end);
                end = middle;
            } else {
                down[length++] = root(leaves, begin, middle);
                begin = middle;
            }
        }
        return reversed(down, length);
    }

    /// @dev PROOF(m, D[size]) of 2.1.4.1, 0 < m < size.
    function consistency(bytes32[] memory leaves, uint256 m, uint256 size)
        internal
        pure
        returns (bytes32[] memory proof)
    {
        bytes32[] memory down = new bytes32[](65);
        uint256 length = 0;
        (uint256 begin, uint256 end) = (0, size);
        while (end > m) {
            uint256 middle = begin + split(end - begin);
            if (m <= middle) {
                down[length++] = root(leaves, middle, end);
                end = middle;
            } else {
                down[length++] = root(leaves, begin, middle);
                begin = middle;
            }
        }
        if (begin != 0) down[length++] = root(leaves, begin, end);
        return reversed(down, length);
    }

    function reversed(bytes32[] memory down, uint256 length) private pure returns (bytes32[] memory proof) {
        proof = new bytes32[](length);
        for (uint256 n = 0; n < length; ++n) {
            proof[n] = down[length - 1 - n];
        }
    }

    function filled(uint256 size, uint256 seed) internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](size);
        for (uint256 n = 0; n < size; ++n) {
            leaves[n] = keccak256(abi.encode(seed, n));
        }
    }
}
