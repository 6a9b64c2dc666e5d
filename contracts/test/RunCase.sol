// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IOpenings} from "../src/interfaces/IOpenings.sol";
import {IRunLedger} from "../src/interfaces/IRunLedger.sol";
import {Receipts} from "../src/libraries/Receipts.sol";
import {OpeningCase} from "./OpeningCase.sol";

/// @title Recorded runs, made from docs/format.md
/// @dev Genesis, join, three steps, a checkpoint and a close. All steps commit to the same states, which have an entry of
/// every kind.
abstract contract RunCase is OpeningCase {
    bytes32 internal constant GENESIS = keccak256(
        "GenesisV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,bytes32 delegation,uint64 time,address owner,bytes32 specification,uint64 flags,bytes32 nonce,uint16 minimumSchema,bytes32 recipe,bytes32 dataset,bytes32 initialState,bytes32 environment,bytes32 policy,bytes32 beacon)"
    );
    bytes32 internal constant JOIN = keccak256(
        "JoinV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,bytes32 delegation,uint64 time,uint16 role,uint32 rank,bytes32 secret)"
    );
    bytes32 internal constant CHECKPOINT = keccak256(
        "CheckpointV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,bytes32 delegation,uint64 time,uint64 step,bytes32 parameters,bytes32 optimizer,bytes32 buffers,bytes32 hyperparameters,bytes32 randomness,bytes32 environment,bytes32 extensions)"
    );
    bytes32 internal constant CLOSE = keccak256(
        "CloseV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 sequence,bytes32 previous,bytes32 delegation,uint64 time,uint32 reason,uint64 step,uint64 workUnits,bytes32 extensions)"
    );
    bytes32 internal constant HEAD = keccak256(
        "TreeHeadV1(uint16 schema,bytes32 run,address worker,uint32 lane,uint64 size,bytes32 root,bytes32 previousHead,uint64 time,bytes32 beacon)"
    );

    uint256 internal constant SIZE = 7;
    /// @dev The receipt at which a fault is planted.
    uint256 internal constant FAULTY = 3;
    uint8 internal constant GRADIENTS = 5;
    /// @dev What a checkpoint's fields are counted beyond a step's.
    uint8 internal constant RESULT = 11;
    uint8 internal constant PARAMETERS = 6;
    /// @dev Not given.
    uint8 internal constant OPTIMIZER = 7;
    /// @dev Without entries.
    uint8 internal constant BUFFERS = 8;
    uint8 internal constant HYPERPARAMETERS = 9;

    /// @dev Pairs: a run that is honest, and what one of its receipts can have that is not.
    enum Fault {
        None,
        Run,
        Worker,
        Lane,
        Sequence,
        Link,
        Signature,
        Delegated,
        Short,
        Unknown
    }

    struct Run {
        uint256 key;
        address worker;
        bytes32 run;
        uint64 units;
        Fault fault;
        bytes32 previous;
        Receipts.Signed[] receipts;
        bytes32[] leaves;
        IRunLedger.Head head;
    }

    /// @dev Digest of each state that steps commit to.
    mapping(uint8 field => bytes32) internal committed;

    function commitStates() internal {
        for (uint8 field = GRADIENTS; field <= HYPERPARAMETERS; ++field) {
            if (field != OPTIMIZER) {
                committed[field] = commitmentOf(openingOf(field, 0, 0), stateRoot(field));
            }
        }
    }

    function recorded(uint256 key, bytes32 run, uint64 units, Fault fault)
        internal
        view
        returns (Run memory r)
    {
        (r.key, r.worker, r.run, r.units, r.fault) = (key, vm.addr(key), run, units, fault);
        (r.receipts, r.leaves) = (new Receipts.Signed[](SIZE), new bytes32[](SIZE));
        bytes32[] memory genesis = header(r, 0, 19);
        (genesis[8], genesis[9], genesis[12]) =
        (bytes32(uint256(uint160(r.worker))), SPECIFICATION, bytes32(uint256(1)));
        genesis[14] = committed[GRADIENTS];
        append(r, 0, GENESIS, genesis);
        bytes32[] memory join = header(r, 1, 11);
        join[8] = bytes32(uint256(1));
        append(r, 1, JOIN, join);
        for (uint256 n = 2; n < SIZE - 2; ++n) {
            append(r, n, STEP, step(r, n));
        }
        bytes32[] memory result = header(r, SIZE - 2, 16);
        result[8] = bytes32(uint256(units));
        // The fields of a checkpoint are counted from 16 on.
        for (uint8 field = PARAMETERS; field <= HYPERPARAMETERS; ++field) {
            result[field + 3] = committed[field];
        }
        append(r, SIZE - 2, CHECKPOINT, result);
        bytes32[] memory close = header(r, SIZE - 1, 12);
        close[9] = bytes32(uint256(units));
        append(r, SIZE - 1, CLOSE, close);
        r.head = IRunLedger.Head(uint64(SIZE), root(r.leaves, 0, SIZE), 0);
        r.head.headDigest = digestOf(HEAD, signedHead(r, uint64(SIZE), r.head.root).body);
    }

    function step(Run memory r, uint256 sequence) private view returns (bytes32[] memory words) {
        words = header(r, sequence, 23);
        words[8] = bytes32(sequence - 1);
        for (uint8 field = GRADIENTS; field <= HYPERPARAMETERS; ++field) {
            words[8 + field] = committed[field];
        }
        words[21] = bytes32(uint256(1));
    }

    function header(Run memory r, uint256 sequence, uint256 length)
        private
        pure
        returns (bytes32[] memory words)
    {
        words = new bytes32[](length);
        words[0] = bytes32(uint256(1));
        words[1] = r.run;
        words[2] = bytes32(uint256(uint160(r.worker)));
        words[4] = bytes32(sequence);
        words[5] = r.previous;
        words[7] = bytes32(1_000 + sequence);
        if (sequence != FAULTY) return words;
        if (r.fault == Fault.Run) words[1] = keccak256("another run");
        if (r.fault == Fault.Worker) words[2] = bytes32(uint256(uint160(vm.addr(r.key + 1))));
        if (r.fault == Fault.Lane) words[3] = bytes32(uint256(1));
        if (r.fault == Fault.Sequence) words[4] = bytes32(sequence + 1);
        if (r.fault == Fault.Link) words[5] = keccak256("another receipt");
        if (r.fault == Fault.Delegated) words[6] = keccak256("delegation");
    }

    function append(Run memory r, uint256 sequence, bytes32 typeHash, bytes32[] memory words) private pure {
        bool isFaulty = sequence == FAULTY;
        bytes memory encoded = abi.encodePacked(words);
        if (isFaulty && r.fault == Fault.Short) encoded = new bytes(255);
        if (isFaulty && r.fault == Fault.Unknown) typeHash = keccak256("StepV2(uint16 schema)");
        bool isForeign = isFaulty && (r.fault == Fault.Signature || r.fault == Fault.Delegated);
        bytes32 digest = digestOf(typeHash, encoded);
        bytes memory signed = signature(isForeign ? r.key + 1 : r.key, digest);
        r.receipts[sequence] = Receipts.Signed(typeHash, encoded, signed);
        r.leaves[sequence] = sha256(abi.encodePacked(hex"00", digest, signed));
        r.previous = digest;
    }

    function signedHead(Run memory r, uint64 size, bytes32 top)
        internal
        pure
        returns (Receipts.Signed memory signed)
    {
        bytes memory encoded = abi.encode(
            uint256(1), r.run, r.worker, uint256(0), size, top, bytes32(0), uint256(size) * 1_000, bytes32(0)
        );
        return Receipts.Signed(HEAD, encoded, signature(r.key, digestOf(HEAD, encoded)));
    }

    /// @dev Another receipt than the run's, where that one stands: with a time of its own.
    function changed(Run memory r, uint256 index, uint256 key)
        internal
        pure
        returns (Receipts.Signed memory other)
    {
        bytes memory encoded = abi.encodePacked(r.receipts[index].body);
        encoded[encoded.length > 255 ? 255 : 0] ^= 0x01;
        bytes32 typeHash = r.receipts[index].typeHash;
        return Receipts.Signed(typeHash, encoded, signature(key, digestOf(typeHash, encoded)));
    }

    function included(Run memory r, uint256 index) internal pure returns (Receipts.Included memory) {
        // A copy: who changes it does not change the run.
        Receipts.Signed memory one = r.receipts[index];
        one = Receipts.Signed(one.typeHash, one.body, one.signature);
        return Receipts.Included(one, uint64(index), inclusion(r.leaves, SIZE, index));
    }

    function anchored(IRunLedger chain, Run memory r) internal {
        IRunLedger.Anchor memory a =
            IRunLedger.Anchor(r.run, r.worker, 0, 0, uint64(SIZE), r.head.headDigest, r.head.root);
        vm.prank(r.worker);
        chain.anchor(a);
    }

    /// @dev Entries by name: a tensor of three chunks, an absent one, an alias, a sharded and an empty one. Kind,
    /// bytes, and the entry without tag, flag and root.
    function entryOf(uint8 field, uint64 index) private pure returns (bytes memory, uint64 size) {
        bytes32 tensor;
        if (field == GRADIENTS && index == 1) return (entryBytes(field, index, 1, "b", "", "", 0, 0, ""), 0);
        if (field == GRADIENTS && index == 2) {
            return (entryBytes(field, index, 2, "c", "", "", 0, 0, "a"), 0);
        }
        if (field == GRADIENTS && index == 3) {
            bytes memory four = abi.encodePacked(uint64(4));
            return (entryBytes(field, index, 4, "d", "F32", four, 16, keccak256("blocks"), ""), 16);
        }
        bytes memory shape = abi.encodePacked(uint64(field == PARAMETERS ? 300 : 700));
        size = field == PARAMETERS ? 1200 : 2800;
        if (field == GRADIENTS && index == 4) {
            (size, shape, tensor) = (0, abi.encodePacked(uint64(0)), sha256(""));
            return (entryBytes(field, index, 0, "e", "F32", shape, size, tensor, ""), size);
        }
        if (field == HYPERPARAMETERS) {
            tensor = sha256(abi.encodePacked(hex"00", content(8)));
            return (entryBytes(field, index, 0, "0/lr", "F64", "", 8, tensor, ""), 8);
        }
        bytes32[] memory chunks = chunkHashes(size);
        tensor = root(chunks, 0, chunks.length);
        return (entryBytes(field, index, 0, "a", "F32", shape, size, tensor, ""), size);
    }

    function entryBytes(
        uint8 field,
        uint64 index,
        uint8 kind,
        string memory name,
        string memory dtype,
        bytes memory shape,
        uint64 size,
        bytes32 tensor,
        string memory target
    ) private pure returns (bytes memory) {
        bool isBlinded = field == GRADIENTS;
        if (isBlinded) {
            bytes32 blind = keccak256(abi.encode("entry", index));
            tensor = sha256(abi.encodePacked("counterfoil.blinded-root.v1", blind, tensor));
        }
        bytes memory begin = abi.encodePacked(
            "counterfoil.entry.v1", kind, uint8(isBlinded ? 1 : 0), uint16(bytes(name).length), name
        );
        begin = abi.encodePacked(begin, uint8(bytes(dtype).length), dtype, uint8(shape.length / 8), shape);
        return abi.encodePacked(begin, size, tensor, uint16(bytes(target).length), target);
    }

    function chunkHashes(uint64 size) private pure returns (bytes32[] memory hashes) {
        hashes = new bytes32[]((size + 1023) / 1024);
        for (uint256 n = 0; n < hashes.length; ++n) {
            hashes[n] = sha256(abi.encodePacked(hex"00", chunkOf(size, n)));
        }
    }

    /// @dev Every chunk of a tensor has the same bytes, the last one fewer of them.
    function chunkOf(uint64 size, uint256 index) private pure returns (bytes memory) {
        uint256 rest = size - index * 1024;
        return content(rest < 1024 ? rest : 1024);
    }

    /// @dev Root of the only tensor with bytes of the state of gradients, which is the dataset of genesis too.
    function tensorRoot() internal pure returns (bytes32) {
        return root(chunkHashes(2800), 0, 3);
    }

    function entriesOf(uint8 field) private pure returns (uint64) {
        return field == GRADIENTS ? 5 : field == BUFFERS ? 0 : 1;
    }

    function entryHashes(uint8 field) private pure returns (bytes32[] memory hashes) {
        hashes = new bytes32[](entriesOf(field));
        for (uint64 n = 0; n < hashes.length; ++n) {
            (bytes memory entry,) = entryOf(field, n);
            hashes[n] = sha256(abi.encodePacked(hex"00", entry));
        }
    }

    function stateRoot(uint8 field) private pure returns (bytes32) {
        bytes32[] memory hashes = entryHashes(field);
        return hashes.length == 0 ? sha256("") : root(hashes, 0, hashes.length);
    }

    /// @dev The answer to a demand of any entry and chunk of a field.
    function openingOf(uint8 field, uint64 entry, uint64 chunk)
        internal
        pure
        returns (IOpenings.Opening memory o)
    {
        o.field = field;
        if (field > 16) field -= RESULT;
        if (field == OPTIMIZER) return o;
        if (field == GRADIENTS) o.blind = keccak256("blind");
        o.count = entriesOf(field);
        if (o.count == 0) return o;
        for (uint64 n = 0; n < o.count; ++n) {
            (, uint64 bytesOfEntry) = entryOf(field, n);
            o.size += bytesOfEntry;
        }
        o.entryIndex = entry % o.count;
        uint64 size;
        (o.entry, size) = entryOf(field, o.entryIndex);
        o.entryProof = inclusion(entryHashes(field), o.count, o.entryIndex);
        if (field == GRADIENTS) o.entryBlind = keccak256(abi.encode("entry", o.entryIndex));
        if (size == 0 || uint8(o.entry[20]) != 0) return o;
        bytes32[] memory chunks = chunkHashes(size);
        o.chunkIndex = uint64(chunk % chunks.length);
        (o.chunk, o.chunkProof) =
        (chunkOf(size, o.chunkIndex), inclusion(chunks, chunks.length, o.chunkIndex));
    }
}
