//! The program that is killed: it records with the real ledger, and says what was made durable.

use std::path::PathBuf;
use std::sync::Arc;

use counterfoil::commit::{Commitment, Entry, State, bytes_root};
use counterfoil::evidence::TreeHead;
use counterfoil::keys::KeyFolder;
use counterfoil::ledger::{CloseReason, Field, Ledger, LedgerError, RunSettings};
use counterfoil::primitives::{Digest, Report, sha256};
use counterfoil::receipt::{Receipt, Signer};

use crate::random::Random;

/// The run folder; set for a child and for nobody else.
pub(crate) const FOLDER: &str = "CRASH_FOLDER";
/// Seed of what it records.
pub(crate) const SEED: &str = "CRASH_SEED";
/// How many times it flushes before it ends.
pub(crate) const FLUSHES: &str = "CRASH_FLUSHES";

/// What identifies every byte of a receipt.
pub(crate) fn fingerprint(receipt: &Receipt) -> Digest {
    sha256(&[&receipt.kind.to_be_bytes(), &receipt.leaf(), &receipt.body])
}

fn setting(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).expect("the parent sets it")
}

/// Begins or continues the run and records until it is killed, fails or has flushed often enough.
pub(crate) fn main(folder: PathBuf) {
    if let Err(error) = record(folder) {
        println!("error {} {error}", error.code());
    }
}

fn record(folder: PathBuf) -> Result<(), LedgerError> {
    let mut random = Random(setting(SEED));
    let keys = KeyFolder::of_user()?;
    let signer: Arc<dyn Signer> = Arc::new(keys.device_key()?);
    let ledger = match folder.exists() {
        true => Ledger::open(&folder, 0, signer, None, &keys)?,
        false => {
            let settings = RunSettings { specification: b"{}".to_vec(), ..RunSettings::default() };
            Ledger::create(&folder, &settings, signer, None, &keys)?
        }
    };
    let mut told = 0;
    tell(&ledger, 0, &mut told)?;
    let mut recorded = told as u64;
    for _ in 0..setting(FLUSHES) {
        // Now and then more than a sector, more than a page, nothing.
        for _ in 0..random.one_of(&[0, 1, 1, 2, 3, 5, 8, 20]) {
            let step = ledger.step() + 1;
            let fields = [("metrics", values(&mut random)), ("gradients", roots(&mut random))];
            recorded = 1 + ledger.record("step", &[("step", step.into())], &fields)?;
        }
        if random.below(4) == 0 {
            // A step has one state, whatever process stores it.
            let mut of_step = Random(ledger.step() + 1);
            let bytes: Vec<u8> = (0..of_step.below(2000)).map(|_| of_step.next() as u8).collect();
            let root = bytes_root(&bytes);
            ledger.folder().store_object(&root, &bytes)?;
            let entry = Entry::dense("weights", "U8", &[bytes.len() as u64], root);
            let state = State::new(vec![entry.expect("an entry")]).expect("a state");
            let fields = [("parameters", Field { state: state.into(), values: None })];
            recorded = 1 + ledger.record("checkpoint", &[("step", ledger.step().into())], &fields)?;
        }
        match random.below(3) {
            0 => {
                let head = ledger.tree_head()?.size();
                let found = ledger.folder().log(ledger.worker(), 0)?;
                assert_eq!(
                    found.heads().next_back().map(TreeHead::size),
                    Some(head),
                    "a head that left is there"
                );
            }
            _ => ledger.flush()?,
        }
        tell(&ledger, recorded, &mut told)?;
    }
    ledger.close(CloseReason::Finished)?;
    tell(&ledger, recorded + 1, &mut told)
}

/// Says which receipts are durable, after the flush that made them so: all that were recorded.
fn tell(ledger: &Ledger, recorded: u64, told: &mut usize) -> Result<(), LedgerError> {
    let log = ledger.folder().log(ledger.worker(), ledger.lane())?;
    for sequence in log.size()..recorded {
        println!("durable {sequence} never-written");
    }
    for (sequence, receipt) in log.receipts().enumerate().skip(*told) {
        println!("durable {sequence} {}", fingerprint(&receipt?));
    }
    *told = log.shown();
    Ok(())
}

fn values(random: &mut Random) -> Field {
    let bytes: Vec<u8> = (0..8 * random.below(40)).map(|_| random.next() as u8).collect();
    let root = Commitment::of_bytes(&bytes).root;
    let entry = Entry::dense("losses", "U8", &[bytes.len() as u64], root).expect("an entry");
    Field { state: Arc::new(State::new(vec![entry]).expect("a state")), values: Some(bytes) }
}

fn roots(random: &mut Random) -> Field {
    let count = 1 + random.below(12);
    let entry = |number| {
        let root = sha256(&[&random.next().to_be_bytes()]);
        Entry::dense(&format!("layer{number}"), "F32", &[64, 64], root).expect("an entry")
    };
    Field { state: Arc::new(State::new((0..count).map(entry).collect()).expect("a state")), values: None }
}
