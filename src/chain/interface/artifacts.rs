//! The contracts that come with the library.

use std::sync::LazyLock;

use super::Interface;

/// Name and artifact of each.
const EMBEDDED: &[(&str, &str)] = &[
    ("RunLedger", include_str!("../../../contracts/artifacts/RunLedger.json")),
    ("Openings", include_str!("../../../contracts/artifacts/Openings.json")),
    ("Market", include_str!("../../../contracts/artifacts/Market.json")),
    ("StakeVault", include_str!("../../../contracts/artifacts/StakeVault.json")),
    ("JobEscrow", include_str!("../../../contracts/artifacts/JobEscrow.json")),
    ("Challenge", include_str!("../../../contracts/artifacts/Challenge.json")),
    ("Disputes", include_str!("../../../contracts/artifacts/Disputes.json")),
    ("WorkSortition", include_str!("../../../contracts/artifacts/WorkSortition.json")),
    ("DataListing", include_str!("../../../contracts/artifacts/DataListing.json")),
];

/// What every contract can refuse with, whether or not it declares it.
const BUILT_IN: &str = r#"{"contract": "Solidity", "abi": [
    {"type": "error", "name": "Error", "inputs": [{"name": "message", "type": "string"}]},
    {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]}]}"#;

/// The artifact's JSON of a contract that comes with the library.
pub fn embedded(name: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(known, _)| *known == name).map(|(_, artifact)| *artifact)
}

/// The reason that some known contract declares for these bytes.
pub(in crate::chain) fn reason(data: &[u8]) -> Option<String> {
    static KNOWN: LazyLock<Vec<Interface>> = LazyLock::new(|| {
        let texts = EMBEDDED.iter().map(|(_, artifact)| *artifact).chain([BUILT_IN]);
        texts.map(|text| Interface::parse(text).expect("the artifacts are committed")).collect()
    });
    KNOWN.iter().find_map(|known| known.refusal(data))
}
