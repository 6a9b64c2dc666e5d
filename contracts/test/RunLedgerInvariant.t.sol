// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IRunLedger} from "../src/interfaces/IRunLedger.sol";
import {Case} from "./Case.sol";

/// @dev Three accounts register, allow, anchor with and without proofs, repeat and revoke, in any order
/// and mostly wrongly. What the contract refuses is caught here; what it takes is written down.
contract Accounts is Case {
    uint256 internal constant LEAVES = 48;

    bytes32 private constant FORK = keccak256("fork");

    IRunLedger public immutable CHAIN;
    bytes32[] private leaves = filled(LEAVES, 1);
    bytes32[] public logs;
    /// The values that a log took, in order, and their sizes.
    mapping(bytes32 log => bytes32[]) private values;
    mapping(bytes32 log => uint64[]) private sizes;
    mapping(bytes32 log => bool) public appendOnly;
    mapping(bytes32 log => bool) public isFork;
    mapping(bytes32 run => address) public owners;
    bytes32[] public runs;
    uint256 public taken;

    constructor(IRunLedger chain) {
        CHAIN = chain;
    }

    /// @dev The `place`-th choice out of `number` that a seed makes; forge's own favour few values.
    function choice(uint256 seed, uint256 place, uint256 number) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, place))) % number;
    }

    function account(uint256 seed, uint256 place) private pure returns (address) {
        return vm.addr(1 + choice(seed, place, 3));
    }

    function runOf(uint256 seed) private pure returns (address owner, uint64 flags, bytes32 run) {
        (owner, flags) = (account(seed, 0), uint64(choice(seed, 1, 2)));
        run = keccak256(abi.encode(keccak256("counterfoil.run.v1"), owner, SPECIFICATION, flags, NONCE));
    }

    function register(uint256 seed) external {
        (address owner, uint64 flags, bytes32 run) = runOf(seed);
        vm.prank(account(seed, 2));
        require(CHAIN.register(owner, SPECIFICATION, flags, NONCE) == run, "run id");
        if (owners[run] == address(0)) runs.push(run);
        owners[run] = owner;
    }

    function allow(uint256 seed) external {
        (,, bytes32 run) = runOf(seed);
        address anchorer = choice(seed, 2, 3) == 0 ? address(0) : account(seed, 3);
        vm.prank(account(seed, 4));
        CHAIN.setAnchorer(run, 0, anchorer);
    }

    function revoke(uint256 seed) external {
        (address worker, address key, address caller) = (account(seed, 2), account(seed, 3), account(seed, 4));
        vm.prank(caller);
        try CHAIN.revoke(worker, key) {
            require(caller == worker || caller == key, "revoked by a stranger");
        } catch {}
    }

    function anchor(uint256 seed) external {
        IRunLedger.Anchor memory a;
        uint64 flags;
        (, flags, a.run) = runOf(seed);
        a.worker = account(seed, 2);
        bytes32 log = logId(a.run, a.worker, 0);
        uint64[] storage known = sizes[log];
        uint64 last = known.length == 0 ? 0 : known[known.length - 1];
        // Mostly the next index; growth by none, one or a few; now and then a fork.
        a.index = choice(seed, 3, 4) == 0 ? uint64(choice(seed, 4, 4)) : uint64(known.length);
        a.size = last + uint64(choice(seed, 5, 4));
        if (a.size > LEAVES) return;
        a.root = choice(seed, 6, 4) == 0 ? FORK : a.size == 0 ? bytes32(0) : root(leaves, 0, a.size);
        bytes32[] memory proof = new bytes32[](0);
        if (choice(seed, 7, 3) != 0 && 0 < last && last < a.size) proof = consistency(leaves, last, a.size);
        IRunLedger.Head memory previous =
            IRunLedger.Head(last, last == 0 ? bytes32(0) : root(leaves, 0, last), 0);
        address caller = choice(seed, 8, 4) == 0 ? account(seed, 9) : a.worker;
        vm.prank(caller);
        try CHAIN.anchorWithConsistencyProof(a, previous, proof) {
            (uint64 count,,) = CHAIN.head(log);
            if (count == known.length) return;
            require(owners[a.run] != address(0), "an anchor of an unknown run");
            if (known.length == 0) logs.push(log);
            else isFork[log] = isFork[log] || a.root == FORK;
            known.push(a.size);
            values[log].push(keccak256(abi.encode(a.root, a.size, a.headDigest)));
            appendOnly[log] = flags == 1;
            ++taken;
        } catch {}
    }

    function numbers() external view returns (uint256 logCount, uint256 runCount) {
        return (logs.length, runs.length);
    }

    function history(bytes32 log) external view returns (uint64[] memory, bytes32[] memory) {
        return (sizes[log], values[log]);
    }
}

contract RunLedgerInvariants is Case {
    Accounts private accounts;
    IRunLedger private chain;

    function setUp() external {
        chain = ledger();
        accounts = new Accounts(chain);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(accounts);
    }

    /// A size that shrinks, an anchor that is replaced or lost, a count that skips.
    function invariant_logs_grow_and_keep_what_they_took() external view {
        (uint256 number,) = accounts.numbers();
        for (uint256 n = 0; n < number; ++n) {
            bytes32 log = accounts.logs(n);
            (uint64[] memory sizes, bytes32[] memory values) = accounts.history(log);
            (uint64 count, uint64 size,) = chain.head(log);
            require(count == sizes.length && size == sizes[count - 1], "head");
            for (uint64 index = 0; index < count; ++index) {
                require(index == 0 || sizes[index - 1] < sizes[index], "sizes grow");
                require(chain.anchorAt(log, index) == values[index], "anchors stay");
            }
            require(chain.anchorAt(log, count) == 0, "nothing behind the last");
        }
    }

    /// An append-only log that took a tree which the one before does not begin.
    function invariant_append_only_logs_have_one_history() external view {
        (uint256 number,) = accounts.numbers();
        for (uint256 n = 0; n < number; ++n) {
            bytes32 log = accounts.logs(n);
            require(!accounts.appendOnly(log) || !accounts.isFork(log), "a fork");
        }
    }

    /// A run that changes hands.
    function invariant_runs_keep_their_owners() external view {
        (, uint256 number) = accounts.numbers();
        for (uint256 n = 0; n < number; ++n) {
            bytes32 run = accounts.runs(n);
            require(chain.ownerOf(run) == accounts.owners(run), "owner");
        }
    }

    /// A handler that anchors nothing would prove nothing.
    function afterInvariant() external view {
        require(accounts.taken() > 0, "no anchor was taken in a whole sequence");
    }
}
