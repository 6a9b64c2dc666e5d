// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Receipts} from "../libraries/Receipts.sol";
import {IOpenings} from "./IOpenings.sol";
import {IPurse} from "./IPurse.sol";
import {IRunLedger} from "./IRunLedger.sol";

/// @title Data that is paid for when it is used
/// @notice An owner lists the root of a tensor under a licence and a price. Whoever trains pays in for one run; the
/// owner is paid when the run's anchored genesis shows the tensor in its dataset, else the money goes back. That
/// nobody else made the data, and that a changed copy is none, is not shown: a root is not a title.
interface IDataListing is IPurse {
    /// @param root Root of the tensor's canonical bytes; of a dataset's `content`, docs/format.md, section 14.
    /// @param licence SHA-256 of the licence's text.
    /// @param price For one run, wei.
    struct Listing {
        address owner;
        bytes32 root;
        bytes32 licence;
        uint128 price;
    }

    /// @param until Unix seconds: until then the owner can claim, and from then on the payer reclaim.
    struct Use {
        address payer;
        uint64 until;
    }

    event Listed(
        bytes32 indexed listing, address indexed owner, bytes32 root, bytes32 licence, uint128 price
    );
    event Funded(bytes32 indexed listing, bytes32 indexed run, address indexed payer, uint64 until);
    event Claimed(bytes32 indexed listing, bytes32 indexed run);
    event Reclaimed(bytes32 indexed listing, bytes32 indexed run);

    error UnknownListing(bytes32 listing);
    error WrongValue(uint256 expected, uint256 actual);
    /// @notice `until` does not lie between now and a year.
    error WrongTime(uint64 until);
    error AlreadyFunded(bytes32 listing, bytes32 run);
    error NotFunded(bytes32 listing, bytes32 run);
    error TooEarly(uint64 from);
    error TooLate(uint64 until);
    /// @notice What was shown is not the run's anchored genesis with the listed tensor in its dataset.
    error NotUsed(bytes32 listing, bytes32 run);

    function listingOf(bytes32 listing) external view returns (Listing memory);
    function useOf(bytes32 listing, bytes32 run) external view returns (Use memory);

    /// @notice Lists data of the caller's.
    function list(bytes32 root, bytes32 licence, uint128 price) external returns (bytes32 listing);

    /// @notice Pays in for one run.
    function fund(bytes32 listing, bytes32 run, uint64 until) external payable;

    /// @notice Pays the owner: the listed tensor is entry `opening` of the `dataset` that the run's genesis, receipt 0
    /// of its owner's lane 0, commits to. Anybody can. Chunk, body and field of the opening are not read.
    function claim(
        bytes32 listing,
        bytes32 run,
        uint64 anchor,
        IRunLedger.Head calldata head,
        Receipts.Included calldata genesis,
        IOpenings.Opening calldata opening
    ) external;

    /// @notice Gives the money back to the payer, after `until`. Anybody can.
    function reclaim(bytes32 listing, bytes32 run) external;
}
