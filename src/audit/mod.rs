//! Gathers a run's evidence from its folder and has it verified.

use std::collections::BTreeMap;
use std::path::Path;

use crate::chain::DEVELOPMENT_CHAIN;
use crate::commit::Entry;
use crate::evidence::{AnchorRecord, Log};
use crate::journal::JournalError;
use crate::ledger::{LedgerError, RunFolder};
use crate::primitives::Digest;
use crate::verify::{Anchored, Edge, Evidence, Findings, Judgement, Verdict, judge, structural};

/// Everything that lies in a run folder, read once and not believed.
pub struct Record {
    folder: RunFolder,
    specification: Vec<u8>,
    recipe: BTreeMap<String, Vec<u8>>,
    logs: Vec<Log>,
    anchors: Vec<(String, AnchorRecord)>,
    damage: Vec<Edge>,
}

/// Whether a chain that the verifier chose holds this record's tree head, and the chain's name.
pub type Confirmation<'a> = dyn Fn(&AnchorRecord) -> Confirmed + 'a;

/// What a chain says about an anchor record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The chain in words.
    pub chain: String,
    /// Whether the chain holds exactly this head.
    pub confirmed: bool,
    /// Whether the chain was asked and does not.
    pub denied: bool,
    /// Whether it is a development chain.
    pub development: bool,
    /// Unix seconds of the block, by the chain's own word when it confirmed the record.
    pub block_time: u64,
}

impl Record {
    /// Reads a run folder.
    ///
    /// Damage that a change of bytes can cause (a journal that does not parse, a file that is no
    /// record) is kept and becomes a broken edge of the verdict; only what keeps the evidence from
    /// being read at all is an error.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when the folder holds no run, and what the operating system
    /// reports.
    pub fn load(path: &Path) -> Result<Record, LedgerError> {
        let folder = RunFolder::open(path)?;
        let mut damage = Vec::new();
        let mut keep = |error: LedgerError| -> Result<(), LedgerError> {
            damage.push(match error {
                LedgerError::Damaged { place, detail } => edge(&place, detail),
                LedgerError::Journal(JournalError::Corrupt { path, offset, detail }) => {
                    edge(&format!("{} at byte {offset}", path.display()), detail)
                }
                LedgerError::Frame(error) => edge("ledger", error),
                other => return Err(other),
            });
            Ok(())
        };
        let mut logs = Vec::new();
        let lanes = folder.lanes();
        for (worker, lane) in lanes.or_else(|error| keep(error).map(|()| Vec::new()))? {
            match folder.log(worker, lane) {
                Ok(log) => logs.push(log),
                Err(error) => keep(error)?,
            }
        }
        let anchors = folder.anchors().or_else(|error| keep(error).map(|()| Vec::new()))?;
        let recipe = folder.recipe().or_else(|error| keep(error).map(|()| BTreeMap::new()))?;
        let specification = folder.specification()?;
        Ok(Record { folder, specification, recipe, logs, anchors, damage })
    }

    /// Bytes of `spec.json`.
    pub fn specification(&self) -> &[u8] {
        &self.specification
    }

    /// Files of the recipe.
    pub fn recipe(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.recipe
    }

    /// The digest that a verifier pins for this recipe; none when the run has none.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] when a file's name cannot name an entry.
    pub fn recipe_digest(&self) -> Result<Option<Digest>, LedgerError> {
        let state = crate::ledger::recipe_state(&self.recipe)?;
        Ok(state.map(|state| state.commitment().digest(&Digest::ZERO)))
    }

    /// The run's id, as genesis states it.
    pub fn run(&self) -> Option<Digest> {
        self.logs.iter().find_map(|log| Some(log.genesis()?.bytes32("run")))
    }

    /// The lanes found.
    pub fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// The anchor records found.
    pub fn anchors(&self) -> &[(String, AnchorRecord)] {
        &self.anchors
    }

    /// The run's folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// Checks everything and draws the verdict. `confirmation` asks the chain that the verifier
    /// chose; without one no anchor is confirmed.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] when the recipe's files cannot be named.
    pub fn verify(
        &self,
        judgement: &Judgement,
        confirmation: &Confirmation<'_>,
    ) -> Result<Verdict, LedgerError> {
        let object_root = |tensor: &Entry| self.folder.object_root(tensor);
        let mut damage = self.damage.clone();
        let recipe = crate::ledger::recipe_state(&self.recipe).unwrap_or_else(|error| {
            damage.push(edge("recipe/", error));
            None
        });
        let evidence = Evidence {
            specification: self.specification.clone(),
            recipe,
            logs: self.logs.clone(),
            anchors: self.anchors.iter().map(|(name, record)| anchored(name, record, confirmation)).collect(),
            object_root: &object_root,
        };
        let mut findings: Findings = structural(&evidence);
        for head in &judgement.heads {
            let log = self.logs.iter().find(|log| (log.worker, log.lane) == (head.worker, head.lane));
            let found = log.map_or(0, |log| log.receipts.len() as u64);
            if head.size > found {
                findings.broken.push(Edge::new(
                    &format!("ledger of {} lane {}: receipts that the chain knows", head.worker, head.lane),
                    format!("at least {}", head.size),
                    format!("{found} receipts"),
                ));
            }
        }
        for (name, record) in &self.anchors {
            if !self.logs.iter().any(|log| (log.worker, log.lane) == (record.worker, record.lane)) {
                findings.broken.push(Edge::new(
                    &format!("anchor {name}: ledger"),
                    format!("the ledger of {} lane {}", record.worker, record.lane),
                    "none",
                ));
            }
        }
        findings.broken.splice(0..0, damage);
        Ok(judge(&findings, judgement))
    }
}

fn edge(place: &str, detail: impl ToString) -> Edge {
    Edge::new(place, "what was written", detail)
}

fn anchored(name: &str, record: &AnchorRecord, confirmation: &Confirmation<'_>) -> Anchored {
    let Confirmed { chain, confirmed, denied, development, block_time } = confirmation(record);
    Anchored {
        name: format!("anchor {name}"),
        run: record.run,
        worker: record.worker,
        lane: record.lane,
        size: record.size,
        root: record.root,
        chain,
        block_time,
        confirmed,
        denied,
        development,
    }
}

/// What is known of an anchor when no chain was asked.
pub fn unconfirmed(record: &AnchorRecord) -> Confirmed {
    Confirmed {
        chain: format!("chain {}", record.chain_id),
        confirmed: false,
        denied: false,
        development: record.chain_id == DEVELOPMENT_CHAIN,
        block_time: record.block_time,
    }
}
