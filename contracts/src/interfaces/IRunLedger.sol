// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Where a run's tree heads get their date
/// @notice A worker signs the head of its log of receipts; the block that records the head shows that
/// every receipt below it existed by then. The contract has no owner, holds no money and judges nothing.
/// @dev Identifiers are those of docs/format.md; the contract recomputes them, it never takes them on trust.
interface IRunLedger {
    /// @notice A tree head: a root means nothing without its size, and the digest names the signed statement.
    /// @param size Receipts in the log.
    /// @param root RFC 9162 root over the log's leaves.
    /// @param headDigest Digest of the signed `TreeHeadV1`.
    struct Head {
        uint64 size;
        bytes32 root;
        bytes32 headDigest;
    }

    /// @notice A tree head and its place: the `index`-th anchor of the log (run, worker, lane).
    struct Anchor {
        bytes32 run;
        address worker;
        uint32 lane;
        uint64 index;
        uint64 size;
        bytes32 headDigest;
        bytes32 root;
    }

    /// @notice A run became known; `run` commits to all other values.
    event Registered(
        bytes32 indexed run, address indexed owner, bytes32 specification, uint64 flags, bytes32 nonce
    );

    /// @notice A tree head was recorded; the date is that of the event's block.
    event Anchored(
        bytes32 indexed log,
        bytes32 indexed run,
        address indexed worker,
        uint32 lane,
        uint64 index,
        uint64 size,
        bytes32 headDigest,
        bytes32 root
    );

    /// @notice `anchorer` (zero: nobody) may anchor the log beside its worker.
    event AnchorerSet(bytes32 indexed log, address indexed anchorer);

    /// @notice `key` signs for `worker` no more; what an anchor shows to be older stays valid.
    event Revoked(address indexed worker, address indexed key, address by);

    /// @notice A run needs an owner.
    error NoOwner();
    /// @notice Only bit 0, append-only logs, is a promise that this contract enforces.
    error UnsupportedFlags(uint64 flags);
    /// @notice Nobody registered the run.
    error UnknownRun(bytes32 run);
    /// @notice Only the worker, or the anchorer it set for this log, may anchor: a stranger could lock the
    /// log for ever by anchoring a huge size.
    error NotAllowed(bytes32 log, address caller);
    /// @notice The log's next anchor has the index `expected`, and no equal anchor stands at `actual`.
    error WrongIndex(bytes32 log, uint64 expected, uint64 actual);
    /// @notice Sizes grow strictly, from `previous` up to 2^40.
    error WrongSize(bytes32 log, uint64 previous, uint64 actual);

    /// @notice The log belongs to an append-only run: from its second anchor on it takes proofs only.
    error ConsistencyProofRequired(bytes32 log);
    /// @notice The head given as the previous one is not the log's last anchor, which has the index `last`.
    error NotPrevious(bytes32 log, uint64 last);
    /// @notice The proof does not show that the log's `previous` receipts begin its `actual` ones.
    error Inconsistent(bytes32 log, uint64 previous, uint64 actual);
    /// @notice The signed permission ended at `deadline`, Unix seconds.
    error Expired(uint64 deadline);
    /// @notice This is no signature of `signer` over this anchor, for this contract on this chain.
    error InvalidSignature(address signer);

    /// @notice Only a worker, or the key itself, may revoke a key of that worker.
    error NotRevocable(address worker, address key, address caller);

    /// @notice Makes a run known. Repeating an equal registration changes nothing, so nobody can get in
    /// the owner's way: the run id commits to every argument.
    /// @param flags 0, or 1 for a run whose logs are append-only: then every anchor of a log but its first
    /// needs a proof that its tree begins with the tree of the anchor before.
    /// @return run keccak256(abi.encode(keccak256("counterfoil.run.v1"), owner, specification, flags, nonce))
    function register(address owner, bytes32 specification, uint64 flags, bytes32 nonce)
        external
        returns (bytes32 run);

    /// @notice Lets `anchorer` anchor the caller's log (run, lane); zero takes that back.
    function setAnchorer(bytes32 run, uint32 lane, address anchorer) external;

    /// @notice Declares that `key` signs for `worker` no more; a worker's own key is revoked with both the
    /// same. Called by one of them, for ever, and from this block on: a second call changes nothing.
    function revoke(address worker, address key) external;

    /// @notice The block and its time at which `key` of `worker` was revoked; zero if it was not.
    function revocation(address worker, address key) external view returns (uint64 blockNumber, uint64 time);

    /// @notice Records a tree head. Repeating an equal anchor changes nothing.
    /// @return log The log's identifier.
    function anchor(Anchor calldata a) external returns (bytes32 log);

    /// @notice Records a tree head and checks that its log only grew. Repeating an equal anchor changes
    /// nothing.
    /// @param previous The log's last anchor.
    /// @param proof RFC 9162 consistency proof from it to `a`; an empty one is none, as in `anchor`.
    /// @return log The log's identifier.
    function anchorWithConsistencyProof(Anchor calldata a, Head calldata previous, bytes32[] calldata proof)
        external
        returns (bytes32 log);

    /// @notice Records a tree head for a worker that pays no gas; anybody may bring it. Repeating an equal
    /// anchor changes nothing.
    /// @dev Signed is `AnchorV1(bytes32 log,uint64 index,uint64 size,bytes32 headDigest,bytes32 root,uint64
    /// deadline)` in the domain {name "Counterfoil", version "1", chainId, verifyingContract}.
    /// @param previous As in `anchorWithConsistencyProof`; neither it nor the proof is signed.
    /// @param proof As there; empty for none.
    /// @param signer The worker or its anchorer. A contract is asked by ERC-1271.
    /// @param deadline The last second, Unix time, at which the signature counts.
    /// @param signature r || s || v with v 27 or 28 and low s, or what a contract takes.
    /// @return log The log's identifier.
    function anchorBySig(
        Anchor calldata a,
        Head calldata previous,
        bytes32[] calldata proof,
        address signer,
        uint64 deadline,
        bytes calldata signature
    ) external returns (bytes32 log);

    /// @notice The run's owner; zero for an unknown run.
    function ownerOf(bytes32 run) external view returns (address);

    /// @notice How many anchors the log has, the size of the last one, and who besides the worker may anchor.
    function head(bytes32 log) external view returns (uint64 count, uint64 size, address anchorer);

    /// @notice keccak256(abi.encode(root, size, headDigest)) of the log's anchor `index`; zero if there is none.
    function anchorAt(bytes32 log, uint64 index) external view returns (bytes32);

    /// @notice Whether `leaf` stands at `leafIndex` of the tree that the log's anchor `index` recorded.
    /// @param leaf The 97 bytes digest || signature, hashed here: a caller's hash could be an inner node.
    function isIncluded(
        bytes32 log,
        uint64 index,
        Head calldata anchored,
        bytes calldata leaf,
        uint64 leafIndex,
        bytes32[] calldata proof
    ) external view returns (bool);

    /// @notice Who signed the receipt that stands at `leafIndex` of the tree that the log's anchor `index`
    /// recorded; zero when `isIncluded` is false or the signature is not in the one accepted encoding.
    /// @dev Compare the answer with the worker, or with a key that the worker delegated to: a worker can put
    /// anybody's receipt into its log.
    function verifyReceipt(
        bytes32 log,
        uint64 index,
        Head calldata anchored,
        bytes calldata leaf,
        uint64 leafIndex,
        bytes32[] calldata proof
    ) external view returns (address signer);
}
