// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Signatures of contracts, ERC-1271
interface IERC1271 {
    /// @notice Returns this function's selector when `signature` is the contract's over `digest`.
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4);
}
