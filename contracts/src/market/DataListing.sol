// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IDataListing} from "../interfaces/IDataListing.sol";
import {IOpenings} from "../interfaces/IOpenings.sol";
import {IRunLedger} from "../interfaces/IRunLedger.sol";
import {Entries} from "../libraries/Entries.sol";
import {Receipts} from "../libraries/Receipts.sol";
import {States} from "../libraries/States.sol";
import {Purse} from "./Purse.sol";

/// @title Data that is paid for when it is used
/// @notice See `IDataListing`.
contract DataListing is IDataListing, Purse {
    uint64 private constant LONGEST = 365 days;
    /// @dev `dataset` among the words of a genesis receipt, and their number.
    uint256 private constant DATASET = Receipts.HEADER + 6;
    uint256 private constant WORDS = 19;

    IRunLedger private immutable LEDGER;

    mapping(bytes32 listing => Listing) private listings;
    mapping(bytes32 listing => mapping(bytes32 run => Use)) private uses;

    constructor(IRunLedger ledger) {
        LEDGER = ledger;
    }

    /// @inheritdoc IDataListing
    function listingOf(bytes32 listing) external view returns (Listing memory) {
        return listings[listing];
    }

    /// @inheritdoc IDataListing
    function useOf(bytes32 listing, bytes32 run) external view returns (Use memory) {
        return uses[listing][run];
    }

    /// @inheritdoc IDataListing
    function list(bytes32 root, bytes32 licence, uint128 price) external returns (bytes32 listing) {
        listing = keccak256(abi.encode(msg.sender, root, licence, price));
        listings[listing] = Listing(msg.sender, root, licence, price);
        emit Listed(listing, msg.sender, root, licence, price);
    }

    /// @inheritdoc IDataListing
    function fund(bytes32 listing, bytes32 run, uint64 until) external payable {
        Listing storage offer = listings[listing];
        if (offer.owner == address(0)) revert UnknownListing(listing);
        if (msg.value != offer.price) revert WrongValue(offer.price, msg.value);
        if (until <= block.timestamp || until > block.timestamp + LONGEST) revert WrongTime(until);
        Use storage use = uses[listing][run];
        if (use.until != 0) revert AlreadyFunded(listing, run);
        (use.payer, use.until) = (msg.sender, until);
        emit Funded(listing, run, msg.sender, until);
    }

    /// @inheritdoc IDataListing
    function claim(
        bytes32 listing,
        bytes32 run,
        uint64 anchor,
        IRunLedger.Head calldata head,
        Receipts.Included calldata genesis,
        IOpenings.Opening calldata opening
    ) external {
        Use storage use = uses[listing][run];
        if (use.payer == address(0)) revert NotFunded(listing, run);
        if (block.timestamp >= use.until) revert TooLate(use.until);
        Listing storage offer = listings[listing];
        bytes32 log = Receipts.logId(run, LEDGER.ownerOf(run), 0);
        bytes calldata body = genesis.receipt.body;
        bool isUsed = genesis.receipt.typeHash == Receipts.GENESIS && body.length == 32 * WORDS
            && genesis.index == 0 && bytes32(Receipts.word(body, 1)) == run
            && Receipts.isIncluded(LEDGER, log, anchor, head, genesis)
            && bytes32(Receipts.word(body, DATASET)) == States.commitment(opening);
        if (!isUsed) revert NotUsed(listing, run);
        (bool isDense, bool isBlinded,,, bytes32 root) = Entries.read(opening.entry);
        if (!isDense || States.entryRoot(opening, offer.root, isBlinded) != root) {
            revert NotUsed(listing, run);
        }
        // Once for each run, and never again: `until` stays.
        use.payer = address(0);
        owe(offer.owner, offer.price);
        emit Claimed(listing, run);
    }

    /// @inheritdoc IDataListing
    function reclaim(bytes32 listing, bytes32 run) external {
        Use storage use = uses[listing][run];
        address payer = use.payer;
        if (payer == address(0)) revert NotFunded(listing, run);
        if (block.timestamp < use.until) revert TooEarly(use.until);
        // A stranger's payment in, taken back, must not keep the run from paying.
        delete uses[listing][run];
        owe(payer, listings[listing].price);
        emit Reclaimed(listing, run);
    }
}
