// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "../src/interfaces/IERC1271.sol";
import {IRunLedger} from "../src/interfaces/IRunLedger.sol";
import {Case} from "./Case.sol";

/// @dev A wallet contract whose owner allows one digest.
contract Wallet is IERC1271 {
    bytes32 public allowed;

    function allow(bytes32 digest) external {
        allowed = digest;
    }

    function isValidSignature(bytes32 digest, bytes calldata) external view returns (bytes4) {
        return digest == allowed ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @dev Answers every question with 31 bytes.
contract Nonsense {
    fallback() external {
        assembly {
            return(0, 31)
        }
    }
}

contract RunLedgerTest is Case {
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    uint256 private constant KEY = 7;
    bytes32 private constant ANCHOR = keccak256(
        "AnchorV1(bytes32 log,uint64 index,uint64 size,bytes32 headDigest,bytes32 root,uint64 deadline)"
    );

    IRunLedger private chain;
    address private worker;
    bytes32[] private none;

    function setUp() external {
        chain = ledger();
        worker = vm.addr(KEY);
    }

    function run(uint64 flags) private returns (bytes32) {
        return chain.register(worker, SPECIFICATION, flags, NONCE);
    }

    function anchorOf(bytes32 run_, uint64 index, uint64 size, bytes32 top)
        private
        view
        returns (IRunLedger.Anchor memory)
    {
        return IRunLedger.Anchor(run_, worker, 0, index, size, keccak256(abi.encode(size)), top);
    }

    function headOf(IRunLedger.Anchor memory a) private pure returns (IRunLedger.Head memory) {
        return IRunLedger.Head(a.size, a.root, a.headDigest);
    }

    function logOf(IRunLedger.Anchor memory a) private pure returns (bytes32) {
        return logId(a.run, a.worker, a.lane);
    }

    function digestOf(IRunLedger target, uint256 id, IRunLedger.Anchor memory a, uint64 deadline)
        private
        pure
        returns (bytes32)
    {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("Counterfoil"),
                keccak256("1"),
                id,
                target
            )
        );
        bytes32 message =
            keccak256(abi.encode(ANCHOR, logOf(a), a.index, a.size, a.headDigest, a.root, deadline));
        return keccak256(abi.encodePacked(hex"1901", domain, message));
    }

    function relay(IRunLedger.Anchor memory a, address signer, uint64 deadline, bytes memory signed) private {
        chain.anchorBySig(a, IRunLedger.Head(0, 0, 0), none, signer, deadline, signed);
    }

    function refuse(bytes memory reason) private {
        vm.expectRevert(reason);
    }

    function count(IRunLedger.Anchor memory a) private view returns (uint64 number) {
        (number,,) = chain.head(logOf(a));
    }

    /// A flag that is promised and not kept.
    function testFuzz_only_flags_that_are_kept_are_taken(uint64 flags) external {
        if (flags > 1) refuse(abi.encodeWithSelector(IRunLedger.UnsupportedFlags.selector, flags));
        bytes32 id = run(flags);
        if (flags > 1) return;
        bytes32 expected =
            keccak256(abi.encode(keccak256("counterfoil.run.v1"), worker, SPECIFICATION, flags, NONCE));
        require(id == expected && chain.ownerOf(id) == worker, "run id");
    }

    /// A log of an append-only run that takes a history which the one before does not begin.
    function testFuzz_append_only_logs_take_proofs_alone(uint256 seed, uint256 size, uint256 m) external {
        size = 2 + size % 40;
        m = 1 + m % (size - 1);
        bytes32[] memory leaves = filled(size, seed);
        IRunLedger.Anchor memory first = anchorOf(run(1), 0, uint64(m), root(leaves, 0, m));
        IRunLedger.Anchor memory next = anchorOf(first.run, 1, uint64(size), root(leaves, 0, size));
        bytes32[] memory proof = consistency(leaves, m, size);
        bytes32 log = logOf(first);
        vm.prank(worker);
        chain.anchor(first);

        refuse(abi.encodeWithSelector(IRunLedger.ConsistencyProofRequired.selector, log));
        vm.prank(worker);
        chain.anchor(next);
        refuse(abi.encodeWithSelector(IRunLedger.ConsistencyProofRequired.selector, log));
        vm.prank(worker);
        chain.anchorWithConsistencyProof(next, headOf(first), none);
        refuse(abi.encodeWithSelector(IRunLedger.NotPrevious.selector, log, 0));
        vm.prank(worker);
        chain.anchorWithConsistencyProof(next, headOf(next), proof);
        IRunLedger.Anchor memory fork = anchorOf(first.run, 1, uint64(size), keccak256("fork"));
        refuse(abi.encodeWithSelector(IRunLedger.Inconsistent.selector, log, m, size));
        vm.prank(worker);
        chain.anchorWithConsistencyProof(fork, headOf(first), proof);
        equal(count(first), 1, "nothing was recorded");

        vm.prank(worker);
        chain.anchorWithConsistencyProof(next, headOf(first), proof);
        equal(count(first), 2, "recorded");
        require(
            chain.anchorAt(log, 1) == keccak256(abi.encode(next.root, next.size, next.headDigest)), "value"
        );
        // Repeated without a proof, or with any: nothing changes, nothing is refused.
        vm.prank(worker);
        chain.anchor(next);
        vm.prank(worker);
        chain.anchorWithConsistencyProof(next, headOf(fork), proof);
        equal(count(first), 2, "no third");
    }

    /// A proof that is not looked at because the run did not ask for one.
    function test_a_proof_that_is_given_is_checked() external {
        bytes32[] memory leaves = filled(9, 1);
        IRunLedger.Anchor memory first = anchorOf(run(0), 0, 5, root(leaves, 0, 5));
        IRunLedger.Anchor memory next = anchorOf(first.run, 1, 9, keccak256("fork"));
        bytes32[] memory proof = consistency(leaves, 5, 9);
        refuse(abi.encodeWithSelector(IRunLedger.NotPrevious.selector, logOf(first), 0));
        vm.prank(worker);
        chain.anchorWithConsistencyProof(first, headOf(first), proof);
        vm.prank(worker);
        chain.anchor(first);
        refuse(abi.encodeWithSelector(IRunLedger.Inconsistent.selector, logOf(first), 5, 9));
        vm.prank(worker);
        chain.anchorWithConsistencyProof(next, headOf(first), proof);
        vm.prank(worker);
        chain.anchor(next);
    }

    /// An anchorer that is set before the run is known must not make the log forget the run's promise.
    function test_the_promise_holds_beside_an_anchorer() external {
        IRunLedger.Anchor memory first = anchorOf(run(1), 0, 3, keccak256("root"));
        vm.prank(worker);
        chain.setAnchorer(first.run, 0, address(this));
        chain.anchor(first);
        IRunLedger.Anchor memory next = anchorOf(first.run, 1, 4, keccak256("root"));
        refuse(abi.encodeWithSelector(IRunLedger.ConsistencyProofRequired.selector, logOf(first)));
        chain.anchor(next);
        (uint64 number, uint64 size, address anchorer) = chain.head(logOf(first));
        require(number == 1 && size == 3 && anchorer == address(this), "packed together, read apart");
    }

    /// A signature that another than the worker or its anchorer made, or that was made for something else.
    function testFuzz_a_signature_counts_for_one_anchor(uint256 field, uint64 change) external {
        IRunLedger.Anchor memory a = anchorOf(run(0), 0, 5, keccak256("root"));
        uint64 deadline = uint64(block.timestamp) + 100;
        bytes memory signed = signature(KEY, digestOf(chain, block.chainid, a, deadline));
        vm.assume(change != 0);
        field %= 5;
        if (field == 0) a.index ^= change;
        if (field == 1) a.size ^= change;
        if (field == 2) a.headDigest ^= bytes32(uint256(change));
        if (field == 3) a.root ^= bytes32(uint256(change));
        if (field == 4) a.lane ^= uint32(change) | 1;
        refuse(abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, worker));
        relay(a, worker, deadline, signed);
    }

    function test_a_relayer_brings_what_the_worker_signed() external {
        IRunLedger.Anchor memory a = anchorOf(run(0), 0, 5, keccak256("root"));
        uint64 deadline = uint64(block.timestamp) + 100;
        bytes memory signed = signature(KEY, digestOf(chain, block.chainid, a, deadline));
        refuse(abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, worker));
        relay(a, worker, deadline + 1, signed);
        refuse(abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, vm.addr(9)));
        relay(a, vm.addr(9), deadline, signed);
        refuse(abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, address(0)));
        relay(a, address(0), deadline, new bytes(65));
        relay(a, worker, deadline, signed);
        equal(count(a), 1, "recorded");
        relay(a, worker, deadline, signed);
        equal(count(a), 1, "an equal anchor changes nothing");
        vm.warp(deadline + 1);
        refuse(abi.encodeWithSelector(IRunLedger.Expired.selector, deadline));
        relay(a, worker, deadline, signed);
    }

    /// A stranger's own signature is valid, and gives no permission.
    function test_only_the_worker_or_its_anchorer_signs() external {
        IRunLedger.Anchor memory a = anchorOf(run(0), 0, 5, keccak256("root"));
        uint64 deadline = uint64(block.timestamp);
        bytes memory signed = signature(8, digestOf(chain, block.chainid, a, deadline));
        refuse(abi.encodeWithSelector(IRunLedger.NotAllowed.selector, logOf(a), vm.addr(8)));
        relay(a, vm.addr(8), deadline, signed);
        vm.prank(worker);
        chain.setAnchorer(a.run, 0, vm.addr(8));
        relay(a, vm.addr(8), deadline, signed);
        equal(count(a), 1, "the anchorer's signature");
    }

    /// The same signature on another chain, or for another contract.
    function test_a_signature_is_not_replayed_elsewhere() external {
        IRunLedger.Anchor memory a = anchorOf(run(0), 0, 5, keccak256("root"));
        uint64 deadline = uint64(block.timestamp) + 100;
        bytes memory elsewhere = signature(KEY, digestOf(ledger(), block.chainid, a, deadline));
        refuse(abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, worker));
        relay(a, worker, deadline, elsewhere);
        bytes memory here = signature(KEY, digestOf(chain, block.chainid, a, deadline));
        uint256 id = block.chainid;
        vm.chainId(id + 1);
        refuse(abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, worker));
        relay(a, worker, deadline, here);
        vm.chainId(id);
        relay(a, worker, deadline, here);
    }

    /// A second signature that anybody can make from the first.
    function testFuzz_other_encodings_of_a_signature_are_refused(uint8 v, uint256 length) external {
        IRunLedger.Anchor memory a = anchorOf(run(0), 0, 5, keccak256("root"));
        uint64 deadline = uint64(block.timestamp);
        (uint8 good, bytes32 r, bytes32 s) = vm.sign(KEY, digestOf(chain, block.chainid, a, deadline));
        bytes memory reason = abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, worker);
        bytes memory high = abi.encodePacked(r, ORDER - uint256(s), good ^ 7);
        refuse(reason);
        relay(a, worker, deadline, high);
        if (v != good) {
            refuse(reason);
            relay(a, worker, deadline, abi.encodePacked(r, s, v));
        }
        bytes memory other = new bytes(length % 130);
        bytes memory right = abi.encodePacked(r, s, good);
        for (uint256 n = 0; n < other.length && n < 65; ++n) {
            other[n] = right[n];
        }
        if (other.length != 65) {
            refuse(reason);
            relay(a, worker, deadline, other);
        }
        relay(a, worker, deadline, right);
    }

    /// A wallet contract signs by ERC-1271, and only what it says it signed.
    function test_a_contract_is_asked() external {
        Wallet wallet = new Wallet();
        worker = address(wallet);
        IRunLedger.Anchor memory a = anchorOf(run(0), 0, 5, keccak256("root"));
        uint64 deadline = uint64(block.timestamp);
        refuse(abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, worker));
        relay(a, worker, deadline, "any bytes");
        wallet.allow(digestOf(chain, block.chainid, a, deadline));
        relay(a, worker, deadline, "any bytes");
        equal(count(a), 1, "recorded");
    }

    /// A contract that cannot be asked, or answers nonsense, is named like any other wrong signer.
    function test_contracts_that_cannot_sign_are_named() external {
        address[3] memory contracts = [address(this), address(chain), address(new Nonsense())];
        for (uint256 n = 0; n < 3; ++n) {
            worker = contracts[n];
            IRunLedger.Anchor memory a = anchorOf(run(0), 0, 5, keccak256("root"));
            refuse(abi.encodeWithSelector(IRunLedger.InvalidSignature.selector, worker));
            relay(a, worker, uint64(block.timestamp), "any bytes");
        }
    }

    /// An append-only log is not loosened by a relayer.
    function test_a_relayer_brings_the_proof() external {
        bytes32[] memory leaves = filled(9, 1);
        IRunLedger.Anchor memory first = anchorOf(run(1), 0, 5, root(leaves, 0, 5));
        IRunLedger.Anchor memory next = anchorOf(first.run, 1, 9, root(leaves, 0, 9));
        uint64 deadline = uint64(block.timestamp);
        vm.prank(worker);
        chain.anchor(first);
        bytes memory signed = signature(KEY, digestOf(chain, block.chainid, next, deadline));
        refuse(abi.encodeWithSelector(IRunLedger.ConsistencyProofRequired.selector, logOf(first)));
        relay(next, worker, deadline, signed);
        bytes32[] memory proof = consistency(leaves, 5, 9);
        chain.anchorBySig(next, headOf(first), proof, worker, deadline, signed);
        equal(count(first), 2, "recorded");
    }

    /// A signer that is named although leaf, place or encoding is another.
    function testFuzz_a_receipts_signer_is_recovered(bytes32 digest, uint256 place, uint256 bit) external {
        place %= 11;
        bytes memory leaf = abi.encodePacked(digest, signature(KEY, digest));
        bytes32[] memory leaves = filled(11, 5);
        leaves[place] = sha256(abi.encodePacked(hex"00", leaf));
        IRunLedger.Anchor memory a = anchorOf(run(0), 0, 11, root(leaves, 0, 11));
        vm.prank(worker);
        chain.anchor(a);
        bytes32[] memory proof = inclusion(leaves, 11, place);
        IRunLedger.Head memory anchored = headOf(a);
        bytes32 log = logOf(a);
        require(chain.verifyReceipt(log, 0, anchored, leaf, uint64(place), proof) == worker, "signer");
        require(chain.verifyReceipt(log, 0, anchored, leaf, uint64(place ^ 1), proof) == address(0), "place");
        require(chain.verifyReceipt(log, 1, anchored, leaf, uint64(place), proof) == address(0), "anchor");
        bit %= 97 * 8;
        leaf[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        require(chain.verifyReceipt(log, 0, anchored, leaf, uint64(place), proof) == address(0), "leaf");
    }

    /// A worker can put any leaf into its tree: no signer is named for an encoding that is refused.
    function testFuzz_malleable_receipts_have_no_signer(bytes32 digest) external {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, digest);
        bytes[3] memory leaves = [
            abi.encodePacked(digest, r, ORDER - uint256(s), v ^ 7),
            abi.encodePacked(digest, r, s, v - 27),
            abi.encodePacked(digest, bytes32(0), bytes32(0), v)
        ];
        bytes32 id = run(0);
        for (uint64 n = 0; n < 3; ++n) {
            bytes32[] memory hashes = filled(n + 1, 3);
            hashes[0] = sha256(abi.encodePacked(hex"00", leaves[n]));
            IRunLedger.Anchor memory a = anchorOf(id, n, n + 1, root(hashes, 0, n + 1));
            vm.prank(worker);
            chain.anchor(a);
            bytes32[] memory proof = inclusion(hashes, n + 1, 0);
            require(chain.isIncluded(logOf(a), n, headOf(a), leaves[n], 0, proof), "included");
            require(chain.verifyReceipt(logOf(a), n, headOf(a), leaves[n], 0, proof) == address(0), "signer");
        }
    }
}
