// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IOpenings} from "../src/interfaces/IOpenings.sol";
import {IRunLedger} from "../src/interfaces/IRunLedger.sol";
import {OpeningCase} from "./OpeningCase.sol";

/// @dev What whole transactions cost: 21,000, calldata and execution. Each is compared with the committed
/// figure in snapshots/Gas.json; FORGE_SNAPSHOT_CHECK=false writes the figures anew.
contract Gas is OpeningCase {
    uint256 private constant KEY = 7;
    uint64 private constant SIZE = 1 << 20;

    IRunLedger private chain;
    address private worker;
    bytes32[] private none;

    function setUp() external {
        (chain, worker) = (ledger(), vm.addr(KEY));
    }

    function note(string memory name, uint256 limit) private {
        uint256 gas = vm.lastCallGas().gasTotalUsed;
        vm.snapshotValue(name, gas);
        require(gas <= limit, name);
    }

    function anchorOf(uint64 flags, uint64 index, uint64 size, bytes32 top)
        private
        returns (IRunLedger.Anchor memory)
    {
        bytes32 run = chain.register(worker, SPECIFICATION, flags, NONCE);
        return IRunLedger.Anchor(run, worker, 0, index, size, keccak256(abi.encode(size)), top);
    }

    function anchor(IRunLedger.Anchor memory a) private {
        vm.prank(worker);
        chain.anchor(a);
    }

    function test_registration() external {
        chain.register(worker, SPECIFICATION, 1, NONCE);
        note("register", 60_000);
    }

    function test_anchors() external {
        IRunLedger.Anchor memory a = anchorOf(0, 0, SIZE, keccak256("first"));
        anchor(a);
        note("anchor, the first", 78_000);
        anchor(anchorOf(0, 1, 2 * SIZE, keccak256("second")));
        note("anchor", 57_000);
        anchor(a);
        note("anchor, repeated", 32_000);
    }

    /// Trees of up to two million leaves have no longer proof.
    function test_append_only_anchors() external {
        (bytes32 old, bytes32 top, bytes32[] memory proof) = grow(SIZE - 1, 2 * SIZE - 1);
        equal(proof.length, 22, "hashes");
        IRunLedger.Anchor memory a = anchorOf(1, 0, SIZE - 1, old);
        anchor(a);
        IRunLedger.Anchor memory next = anchorOf(1, 1, 2 * SIZE - 1, top);
        vm.prank(worker);
        chain.anchorWithConsistencyProof(next, IRunLedger.Head(a.size, a.root, a.headDigest), proof);
        note("anchor with a consistency proof of 22 hashes", 90_000);
    }

    function test_relayed_anchors() external {
        anchor(anchorOf(0, 0, SIZE, keccak256("first")));
        IRunLedger.Anchor memory a = anchorOf(0, 1, 2 * SIZE, keccak256("second"));
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("Counterfoil"),
                keccak256("1"),
                block.chainid,
                chain
            )
        );
        bytes32 message = keccak256(
            abi.encode(
                keccak256(
                    "AnchorV1(bytes32 log,uint64 index,uint64 size,bytes32 headDigest,bytes32 root,uint64 deadline)"
                ),
                logId(a.run, worker, 0),
                a.index,
                a.size,
                a.headDigest,
                a.root,
                block.timestamp
            )
        );
        bytes memory signed = signature(KEY, keccak256(abi.encodePacked(hex"1901", domain, message)));
        chain.anchorBySig(a, IRunLedger.Head(0, 0, 0), none, worker, uint64(block.timestamp), signed);
        note("anchor by signature", 66_000);
    }

    function test_inclusion() external {
        bytes32 digest = keccak256("receipt");
        bytes memory leaf = abi.encodePacked(digest, signature(KEY, digest));
        (bytes32 top, bytes32[] memory proof) = lift(sha256(abi.encodePacked(hex"00", leaf)), 123_456, SIZE);
        IRunLedger.Anchor memory a = anchorOf(0, 0, SIZE, top);
        anchor(a);
        IRunLedger.Head memory anchored = IRunLedger.Head(a.size, a.root, a.headDigest);
        bytes32 log = logId(a.run, worker, 0);
        send(address(chain), abi.encodeCall(IRunLedger.isIncluded, (log, 0, anchored, leaf, 123_456, proof)));
        note("inclusion at 20 levels", 46_000);
        send(
            address(chain), abi.encodeCall(IRunLedger.verifyReceipt, (log, 0, anchored, leaf, 123_456, proof))
        );
        note("receipt at 20 levels", 51_000);
    }

    /// 4 MiB in a model of 150 tensors: 12 and 8 levels.
    function test_openings() external {
        address openings = address(opener());
        send(openings, abi.encodeCall(IOpenings.open, (make(1 << 20, 1234, 150, 77, true))));
        note("one kilobyte of a gradient", 100_000);
        send(openings, abi.encodeCall(IOpenings.open, (make(1 << 20, 1234, 150, 77, false))));
        note("one kilobyte of a public gradient", 100_000);
    }

    /// @dev A view in a transaction of its own, so that all of it is paid.
    function send(address target, bytes memory data) private {
        (bool succeeded, bytes memory answer) = target.call(data);
        require(succeeded && bytes32(answer) != 0, "refused");
    }

    function test_revocation() external {
        vm.prank(worker);
        chain.revoke(worker, worker);
        note("revoke", 50_000);
    }

    /// @dev SUBPROOF of RFC 9162, 2.1.4.1, over any hashes in the place of the subtrees it names.
    function grow(uint256 m, uint256 n)
        private
        pure
        returns (bytes32 old, bytes32 top, bytes32[] memory proof)
    {
        bytes32[] memory up = new bytes32[](64);
        uint256 length;
        (old, top, length) = subproof(m, n, true, up);
        proof = new bytes32[](length);
        for (uint256 place = 0; place < length; ++place) {
            proof[place] = up[place];
        }
    }

    function subproof(uint256 m, uint256 n, bool isWhole, bytes32[] memory up)
        private
        pure
        returns (bytes32 old, bytes32 top, uint256 length)
    {
        bytes32 other = keccak256(abi.encode(m, n));
        if (m == n) {
            if (!isWhole) up[length++] = other;
            return (other, other, length);
        }
        uint256 left = split(n);
        if (m <= left) {
            (old, top, length) = subproof(m, left, isWhole, up);
            top = node(top, other);
        } else {
            (old, top, length) = subproof(m - left, n - left, false, up);
            (old, top) = (node(other, old), node(other, top));
        }
        up[length++] = other;
    }
}
