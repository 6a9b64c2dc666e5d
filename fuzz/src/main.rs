//! Coverage-guided fuzzing of everything that reads outside bytes; `make fuzz` runs it.
//!
//! One program, two lives: as `make fuzz` starts it, it goes through the targets and starts itself
//! once for each; with [`TARGET`] in its environment it is libFuzzer with that target. A new target
//! is one function and one row in [`TARGETS`].

#![no_main]

mod bundles;
mod chains;
#[path = "../../tests/common/mod.rs"]
mod common;
mod contradictions;
mod driver;
mod parsers;
mod proofs;
mod sample;
mod tampered;

use std::sync::LazyLock;

/// Names the target of this process.
const TARGET: &str = "COUNTERFOIL_FUZZ_TARGET";

/// The home of a target that reads keys.
const KEYS: &str = "target/fuzz/keys";

/// Something that takes any bytes and must neither crash nor break its promise.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Valid inputs to begin from.
    seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

const TARGETS: &[Target] = &[
    target("frame", parsers::frame, sample::frames),
    target("journal", parsers::journal, parsers::journal_seeds),
    target("entry", parsers::entry, parsers::entry_seeds),
    target("opening", parsers::opening, parsers::opening_seeds),
    target("shard", parsers::shard, parsers::shard_seeds),
    target("anchor", parsers::anchor, parsers::anchor_seeds),
    target("specification", parsers::specification, parsers::specification_seeds),
    target("body", parsers::body, parsers::body_seeds),
    target("statement", parsers::statement, parsers::statement_seeds),
    target("keystore", parsers::keystore, parsers::keystore_seeds),
    target("signature", parsers::signature, parsers::signature_seeds),
    target("inclusion", proofs::inclusion, proofs::tree_seeds),
    target("consistency", proofs::consistency, proofs::tree_seeds),
    target("storage", proofs::storage, proofs::storage_seeds),
    target("chain-answers", chains::answers, chains::answer_seeds),
    target("outbox", chains::outbox, chains::outbox_seeds),
    target("devchain-rpc", chains::requests, chains::request_seeds),
    target("devchain-transaction", chains::transaction, chains::transaction_seeds),
    target("tampered", tampered::run, tampered::seeds),
    target("bundle", bundles::bundle, bundles::bundle_seeds),
    target("repacked", bundles::repacked, bundles::repacked_seeds),
    target("contradiction", contradictions::contradiction, contradictions::contradiction_seeds),
    target("honest", contradictions::honest, contradictions::honest_seeds),
];

static CHOSEN: LazyLock<Option<&Target>> = LazyLock::new(|| {
    let wanted = std::env::var(TARGET).ok()?;
    let known = TARGETS.iter().find(|target| target.name == wanted);
    Some(known.unwrap_or_else(|| panic!("{TARGET} is {wanted:?}, which is no target")))
});

fn begin() {
    if CHOSEN.is_none() {
        std::process::exit(driver::run(std::env::args().skip(1)));
    }
}

libfuzzer_sys::fuzz_target!(init: begin(), |bytes: &[u8]| -> () {
    let target = CHOSEN.expect("libFuzzer begins after the target was chosen");
    (target.run)(bytes);
});
