// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title secp256k1 signatures in the one encoding that is accepted
/// @dev `r || s || v` with v 27 or 28 and s in the lower half of the group order, so that nobody but the
/// signer can make a second signature out of one.
library Signatures {
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @notice The address whose key signed `digest`; zero for any encoding that is refused.
    function recover(bytes32 digest, bytes calldata signature) internal pure returns (address) {
        if (signature.length != 65) return address(0);
        uint8 v = uint8(signature[64]);
        uint256 s = uint256(bytes32(signature[32:64]));
        if ((v != 27 && v != 28) || s > HALF_ORDER) return address(0);
        return ecrecover(digest, v, bytes32(signature[:32]), bytes32(s));
    }
}
