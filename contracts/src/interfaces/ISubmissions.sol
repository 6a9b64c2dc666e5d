// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IJobEscrow} from "./IJobEscrow.sol";
import {IPurse} from "./IPurse.sol";

/// @title What disputes and demands have in common
interface ISubmissions is IPurse {
    error WrongTerms(bytes32 job);
    /// @notice The job is not in its challenge window.
    error NotChallengeable(bytes32 job);
    error WrongValue(uint256 expected, uint256 actual);
    error TooEarly(uint64 from);
    error TooLate(uint64 until);
    /// @notice There is no such dispute or demand, or it is settled.
    error Unknown(bytes32 id);

    /// @notice Seconds for each of: drawing, promising, revealing, appealing, answering.
    function VOTE() external view returns (uint64);

    /// @notice The price of the next one on a job, wei. It doubles with each.
    function bondOf(bytes32 job, IJobEscrow.Terms calldata terms) external view returns (uint256);
}
