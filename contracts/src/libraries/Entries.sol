// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Dense entries of a state
/// @dev docs/format.md, section 3. One entry has one encoding; all but the name's characters is checked.
library Entries {
    bytes20 private constant TAG = "counterfoil.entry.v1";
    uint256 private constant LONGEST_NAME = 1024;
    uint256 private constant MOST_DIMENSIONS = 64;
    /// @dev What an entry has besides name, dtype and shape.
    uint256 private constant FIXED = 20 + 1 + 1 + 2 + 1 + 1 + 8 + 32 + 2;

    /// @notice Whether the bytes begin as an entry without contents of its own: absent, an alias, or sharded.
    function hasNoBytes(bytes calldata entry) internal pure returns (bool) {
        if (entry.length < FIXED || bytes20(entry[:20]) != TAG) return false;
        uint8 kind = uint8(entry[20]);
        return kind == 1 || kind == 2 || kind == 4;
    }

    /// @notice Reads an entry.
    /// @return isDense Whether the bytes are a dense entry; if not, nothing else is said.
    /// @return isBlinded Whether `root` is blinded.
    /// @return name The tensor's name.
    /// @return size Its canonical bytes.
    /// @return root Its root as it stands in the entry.
    function read(bytes calldata entry)
        internal
        pure
        returns (bool isDense, bool isBlinded, bytes calldata name, uint64 size, bytes32 root)
    {
        name = entry[:0];
        if (entry.length < FIXED || bytes20(entry[:20]) != TAG || entry[20] != 0 || uint8(entry[21]) > 1) {
            return (false, false, name, 0, 0);
        }
        uint256 nameLength = uint16(bytes2(entry[22:24]));
        if (nameLength == 0 || nameLength > LONGEST_NAME || entry.length < FIXED + nameLength) {
            return (false, false, name, 0, 0);
        }
        uint256 offset = 24 + nameLength;
        uint256 dtypeLength = uint8(entry[offset]);
        if (entry.length < FIXED + nameLength + dtypeLength) return (false, false, name, 0, 0);
        bytes calldata dtype = entry[offset + 1:offset + 1 + dtypeLength];
        offset += 1 + dtypeLength;
        uint256 dimensions = uint8(entry[offset]);
        if (dimensions > MOST_DIMENSIONS || entry.length != FIXED + nameLength + dtypeLength + 8 * dimensions)
        {
            return (false, false, name, 0, 0);
        }
        uint256 expected = measure(elementSize(dtype), entry[offset + 1:offset + 1 + 8 * dimensions]);
        offset += 1 + 8 * dimensions;
        size = uint64(bytes8(entry[offset:offset + 8]));
        // No target: only an alias has one.
        isDense = expected == size && bytes2(entry[offset + 40:]) == 0;
        (isBlinded, name, root) =
        (entry[21] != 0, entry[24:24 + nameLength], bytes32(entry[offset + 8:offset + 40]));
    }

    /// @dev product(shape) * element, or 2^256 - 1, which is no size, for an unknown dtype or beyond 64 bits.
    function measure(uint256 element, bytes calldata shape) private pure returns (uint256 size) {
        if (element == 0) return type(uint256).max;
        size = element;
        bool isEmpty = false;
        for (uint256 offset = 0; offset < shape.length; offset += 8) {
            uint256 extent = uint64(bytes8(shape[offset:offset + 8]));
            isEmpty = isEmpty || extent == 0;
            // Saturates: a factor of zero may follow.
            if (size <= type(uint64).max && extent != 0) size *= extent;
        }
        if (isEmpty) return 0;
        if (size > type(uint64).max) return type(uint256).max;
    }

    /// @dev Bytes of an element; 0 for a dtype without a tag.
    function elementSize(bytes calldata dtype) private pure returns (uint256) {
        // The padding below must not be taken for a byte of the tag.
        if (dtype.length == 0 || dtype.length > 7 || dtype[dtype.length - 1] == 0) return 0;
        bytes7 tag = bytes7(dtype);
        if (tag == "F32" || tag == "I32" || tag == "U32") return 4;
        if (tag == "BF16" || tag == "F16" || tag == "I16" || tag == "U16") return 2;
        if (tag == "U8" || tag == "I8" || tag == "BOOL") return 1;
        if (tag == "F8_E4M3" || tag == "F8_E5M2" || tag == "F8_E8M0") return 1;
        if (tag == "I64" || tag == "U64" || tag == "F64" || tag == "C64") return 8;
        return 0;
    }
}
