//! Everything that was gathered of one run, from a folder or a bundle, and its verdict.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::{Anchored, Edge, Evidence, Findings, Judgement, Standing, Verdict, judge, structural};
use crate::commit::{CommitError, Commitment, Entry, State, bytes_root};
use crate::evidence::bundle::PartKind;
use crate::evidence::{AnchorRecord, Bundle, BundleError, Delegation, Log};
use crate::primitives::{Address, Digest};

/// Largest `spec.json` or anchor record, bytes.
pub const MAX_DOCUMENT: u64 = 1 << 20;
/// Largest recipe, bytes over all files.
pub const MAX_RECIPE: u64 = 16 << 20;
/// Most files of a recipe.
pub const MAX_RECIPE_FILES: usize = 256;
/// Largest anchor records together, bytes.
const MAX_ANCHORS: u64 = 64 << 20;
/// The chain that `Chain.dev` and most test nodes run; it belongs to whoever runs it.
pub const DEVELOPMENT_CHAIN: u64 = 31_337;

/// What a verifier learnt about an anchor record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The chain in words.
    pub chain: String,
    /// What the verifier knows of the record.
    pub standing: Standing,
    /// Whether it is a development chain.
    pub development: bool,
    /// Unix seconds of the block, by the chain's own word when it confirmed the record.
    pub block_time: u64,
}

/// Whether a chain that the verifier chose holds a record's tree head, and the chain's name. The
/// number is the record's place among those that were found.
pub type Confirmation<'a> = dyn Fn(usize, &AnchorRecord) -> Confirmed + 'a;

/// What is known of an anchor when no chain was asked.
pub fn unconfirmed(_: usize, record: &AnchorRecord) -> Confirmed {
    Confirmed {
        chain: format!("chain {}", record.chain_id),
        standing: Standing::Unconfirmed,
        development: record.chain_id == DEVELOPMENT_CHAIN,
        block_time: record.block_time,
    }
}

/// What lies in a run folder or a bundle, read once and not believed.
#[derive(Default)]
pub struct Contents {
    /// Bytes of `spec.json`.
    pub specification: Vec<u8>,
    /// Files of the recipe by their path with `/`.
    pub recipe: BTreeMap<String, Vec<u8>>,
    /// The lanes found.
    pub logs: Vec<Log>,
    /// The anchor records found, by their names.
    pub anchors: Vec<(String, AnchorRecord)>,
    /// What could not be read at all.
    pub damage: Vec<Edge>,
    /// Who made the bundle; none for a folder.
    pub maker: Option<Address>,
    /// Roots of the objects in a bundle, each of which must belong to a tensor that is opened.
    pub objects: BTreeSet<Digest>,
}

/// The state whose digest genesis pins as the recipe.
///
/// # Errors
/// [`CommitError`] when a file's name cannot name an entry.
pub fn recipe_state(files: &BTreeMap<String, Vec<u8>>) -> Result<Option<State>, CommitError> {
    if files.is_empty() {
        return Ok(None);
    }
    let entry = |(name, contents): (&String, &Vec<u8>)| {
        Entry::dense(name, "U8", &[contents.len() as u64], Commitment::of_bytes(contents).root)
    };
    State::new(files.iter().map(entry).collect::<Result<Vec<_>, _>>()?).map(Some)
}

impl Contents {
    /// What lies in a bundle.
    ///
    /// # Errors
    /// [`BundleError`] when it cannot be read, or holds more than a verifier reads.
    pub fn of_bundle(bundle: &Bundle) -> Result<Contents, BundleError> {
        let mut contents = Contents::default();
        let mut specification = bundle.files(PartKind::Specification, MAX_DOCUMENT)?;
        contents.specification = specification.pop().map(|(_, bytes)| bytes).unwrap_or_default();
        contents.recipe = bundle.files(PartKind::Recipe, MAX_RECIPE)?.into_iter().collect();
        if contents.recipe.len() > MAX_RECIPE_FILES {
            let expected = format!("at most {MAX_RECIPE_FILES} files");
            contents.damage.push(Edge::new("bundle: recipe", expected, contents.recipe.len()));
        }
        for log in bundle.logs() {
            match log {
                Ok(log) => contents.logs.push(log),
                Err((name, error)) => contents.damage.push(edge(&format!("bundle: log {name}"), error)),
            }
        }
        for (name, bytes) in bundle.files(PartKind::Anchor, MAX_ANCHORS)? {
            let record: Option<AnchorRecord> = serde_json::from_slice(&bytes).ok();
            match record.filter(|record| serde_json::to_vec(record).is_ok_and(|encoded| encoded == bytes)) {
                Some(record) => contents.anchors.push((name, record)),
                None => contents.damage.push(edge(&format!("bundle: anchor {name}"), "no anchor record")),
            }
        }
        let maker = bundle.maker();
        let place = "bundle: manifest <- signature";
        match bundle.signer() {
            Ok(signer) if signer == maker => contents.maker = Some(maker),
            Ok(signer) => contents.damage.push(Edge::new(place, maker, signer)),
            Err(error) => contents.damage.push(Edge::new(place, maker, error)),
        }
        contents.objects = bundle.objects().collect();
        let run = contents.run().unwrap_or_default();
        if bundle.run() != run {
            contents.damage.push(Edge::new("bundle: run", run, bundle.run()));
        }
        Ok(contents)
    }

    /// The run's id, as genesis states it.
    pub fn run(&self) -> Option<Digest> {
        self.logs.iter().find_map(|log| Some(log.genesis()?.bytes32("run")))
    }

    /// Every worker with every key that may have signed for it, its own first.
    pub fn keys(&self) -> BTreeSet<(Address, Address)> {
        let run = self.run().unwrap_or_default();
        let of_log = |log: &Log| {
            let is_of = |found: &&Delegation| found.is_of(run, log.worker, log.lane) == Ok(true);
            let delegated = log.delegations().iter().filter(is_of).map(|found| (log.worker, found.key()));
            delegated.chain([(log.worker, log.worker)]).collect::<Vec<_>>()
        };
        self.logs.iter().flat_map(of_log).collect()
    }

    /// Checks everything and draws the verdict. `confirmation` asks the chain that the verifier
    /// chose; `object_root` tells the root over what is stored for a tensor, none when nothing is; `object` is
    /// what is stored, and only asked for tensors whose root that is.
    pub fn verify(
        &self,
        judgement: &Judgement,
        confirmation: &Confirmation<'_>,
        object_root: &dyn Fn(&Entry) -> Option<Digest>,
        object: &dyn Fn(&Entry) -> Option<Vec<u8>>,
    ) -> Verdict {
        let mut damage = self.damage.clone();
        let recipe = recipe_state(&self.recipe).unwrap_or_else(|error| {
            damage.push(edge("recipe/", error));
            None
        });
        let unused = RefCell::new(self.objects.clone());
        // Many checkpoints may hold one tensor, which is hashed once.
        let known = RefCell::new(BTreeMap::new());
        let object_root = |tensor: &Entry| {
            unused.borrow_mut().remove(&tensor.root());
            *known.borrow_mut().entry((tensor.root(), tensor.size())).or_insert_with(|| object_root(tensor))
        };
        let object = |tensor: &Entry| {
            let is_the_tensor = object_root(tensor) == Some(tensor.root());
            is_the_tensor.then(|| object(tensor)).flatten()
        };
        let confirmed =
            |(number, (_, record)): (usize, &(String, AnchorRecord))| match confirmation(number, record) {
                asked if asked.standing == Standing::Unconfirmed => {
                    trusted(record, judgement).unwrap_or(asked)
                }
                asked => asked,
            };
        let evidence = Evidence {
            specification: &self.specification,
            recipe,
            logs: &self.logs,
            anchors: self
                .anchors
                .iter()
                .enumerate()
                .map(|found| anchored(&found.1.0, &found.1.1, confirmed(found)))
                .collect(),
            object_root: &object_root,
            object: &object,
        };
        let mut findings: Findings = structural(&evidence);
        for head in &judgement.heads {
            let log = self.logs.iter().find(|log| (log.worker, log.lane) == (head.worker, head.lane));
            let found = log.map_or(0, Log::size);
            if head.size > found {
                findings.broken.push(Edge::new(
                    &format!("ledger of {} lane {}: receipts that the chain knows", head.worker, head.lane),
                    format!("at least {}", head.size),
                    format!("{found} receipts"),
                ));
            }
        }
        for (name, record) in &self.anchors {
            // A proof is checked whether or not its block is trusted, so that no byte of it is free.
            if let Some(Err(error)) = record.proof.as_ref().map(|proof| proof.check(record)) {
                let place = format!("anchor {name}: proof: {}", error.part);
                damage.push(Edge::new(&place, error.expected, error.actual));
            }
            if !self.logs.iter().any(|log| (log.worker, log.lane) == (record.worker, record.lane)) {
                findings.broken.push(Edge::new(
                    &format!("anchor {name}: ledger"),
                    format!("the ledger of {} lane {}", record.worker, record.lane),
                    "none",
                ));
            }
        }
        for root in unused.borrow().iter() {
            findings.broken.push(Edge::new(
                &format!("bundle: object {root}"),
                "a tensor that is opened",
                "none",
            ));
        }
        findings.broken.splice(0..0, damage);
        let mut verdict = judge(&findings, judgement);
        verdict.notes.extend(self.maker.map(|maker| format!("the bundle was made by {maker}")));
        verdict
    }
}

/// The root over a bundle's object; zero when it cannot be the tensor.
pub fn bundle_object_root(bundle: &Bundle, tensor: &Entry) -> Option<Digest> {
    match bundle.object(&tensor.root(), tensor.size()) {
        Ok(Some(bytes)) => Some(bytes_root(&bytes)),
        Ok(None) => bundle.has_object(&tensor.root()).then_some(Digest::ZERO),
        Err(_) => Some(Digest::ZERO),
    }
}

/// A bundle's object; none when there is no object of this size.
pub fn bundle_object(bundle: &Bundle, tensor: &Entry) -> Option<Vec<u8>> {
    bundle.object(&tensor.root(), tensor.size()).ok().flatten()
}

/// What could not be read, as an edge that does not hold.
pub fn edge(place: &str, detail: impl ToString) -> Edge {
    Edge::new(place, "what was written", detail)
}

/// What a record's own proof shows to a verifier who trusts its block.
fn trusted(record: &AnchorRecord, judgement: &Judgement) -> Option<Confirmed> {
    let is_trusted = judgement.trusted_blocks.contains(&record.block_hash);
    record.proof.as_ref().filter(|proof| is_trusted && proof.check(record).is_ok()).map(|_| Confirmed {
        // Of which chain it is, the verifier knows and no proof shows.
        chain: format!("the trusted block {}", record.block_hash),
        standing: Standing::Dated,
        development: false,
        block_time: record.block_time,
    })
}

fn anchored(name: &str, record: &AnchorRecord, confirmed: Confirmed) -> Anchored {
    let Confirmed { chain, standing, development, block_time } = confirmed;
    Anchored {
        name: format!("anchor {name}"),
        run: record.run,
        worker: record.worker,
        lane: record.lane,
        index: record.index,
        size: record.size,
        root: record.root,
        chain,
        block_time,
        standing,
        development,
    }
}
