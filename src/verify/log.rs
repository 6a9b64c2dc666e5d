//! The walk over one log: signatures, links, order, due fields, tree heads and anchors.

use super::openings::{STATE, States, check_openings};
use super::policy::{self, Cadences, Policies};
use super::specification::{Genesis, Specification};
use super::{Evidence, Findings, LogFindings};
use crate::commit::merkle::CompactRange;
use crate::commit::{State, leaf_hash};
use crate::evidence::{Log, kind_name};
use crate::primitives::{Address, Digest};
use crate::receipt::schema::{self, KINDS, Kind, SCHEMA_VERSION};
use crate::receipt::{Body, Receipt, recover};

/// What the walk knows about a log at one receipt.
struct Walk<'a> {
    log: &'a Log,
    genesis: &'a Genesis,
    specification: &'a Specification,
    position: u64,
    previous: Digest,
    step: u64,
    policies: Policies,
    checkpoint: Option<u64>,
    state: States,
    closed: bool,
}

/// Checks one log; `findings` takes what does not hold.
pub(super) fn check(
    log: &Log,
    genesis: &Genesis,
    specification: &Specification,
    evidence: &Evidence<'_>,
    findings: &mut Findings,
) {
    let owns_genesis = log.worker == genesis.body.address("owner") && log.lane == 0;
    let mut walk = Walk {
        log,
        genesis,
        specification,
        position: 0,
        previous: if owns_genesis { Digest::ZERO } else { genesis.digest },
        step: 0,
        policies: Policies::new(specification.floor()),
        checkpoint: None,
        state: Vec::new(),
        closed: false,
    };
    let mut tree = <CompactRange>::default();
    let mut roots = Vec::with_capacity(log.receipts.len() + 1);
    roots.push(tree.root());
    for receipt in &log.receipts {
        walk.receipt(receipt, evidence, findings);
        tree.push(leaf_hash(&receipt.leaf()));
        roots.push(tree.root());
    }
    if log.receipts.is_empty() {
        findings.broken(format!("{}: first receipt", walk.place()), "genesis or join", "an empty ledger");
    }
    check_heads(&walk, &roots, findings);
    check_anchors(&walk, &roots, evidence, findings);
    findings.logs.push(LogFindings {
        worker: log.worker,
        lane: log.lane,
        receipts: log.receipts.len() as u64,
        closed: walk.closed,
    });
}

impl Walk<'_> {
    fn place(&self) -> String {
        if self.log.lane == 0 && self.log.worker == self.genesis.body.address("owner") {
            "ledger".into()
        } else {
            format!("ledger of {} lane {}", self.log.worker, self.log.lane)
        }
    }

    fn receipt(&mut self, receipt: &Receipt, evidence: &Evidence<'_>, findings: &mut Findings) {
        let position = self.position;
        let place = format!("{}: receipt {position} ({})", self.place(), kind_name(receipt.kind));
        self.position += 1;
        let previous = std::mem::replace(&mut self.previous, receipt.digest);
        let Some(kind) = Kind::from_number(receipt.kind) else {
            self.unknown(receipt, &place, findings);
            return;
        };
        let body = match Body::decode(kind, &receipt.body) {
            Ok(body) => body,
            Err(error) => {
                findings.broken(format!("{place}: body"), format!("a body of {}", kind.type_name), error);
                return;
            }
        };
        let place = match kind.number {
            schema::STEP | schema::CHECKPOINT => {
                format!("{}: receipt {position} ({} {})", self.place(), kind.name, body.unsigned("step"))
            }
            _ => place,
        };
        if body.digest() != receipt.digest {
            findings.broken(format!("{place}: body"), receipt.digest, body.digest());
            return;
        }
        self.signature(receipt, &place, findings);
        self.header(&body, position, previous, &place, findings);
        self.order(&body, position, &place, findings);
        let opened = check_openings(self.log, receipt, &body, self.specification, evidence, &place, findings);
        self.same_state(kind.number, opened, &place, findings);
    }

    /// A checkpoint holds the state that the receipt of its step committed to.
    fn same_state(&mut self, kind: u16, opened: States, place: &str, findings: &mut Findings) {
        match kind {
            schema::STEP => self.state = opened,
            schema::RESUME => self.state.clear(),
            schema::CHECKPOINT => {
                for (name, checkpoint) in opened.iter().filter(|(name, _)| STATE.contains(name)) {
                    let Some((_, step)) = self.state.iter().find(|(known, _)| known == name) else {
                        continue;
                    };
                    match same(step, checkpoint) {
                        Same::Equal => {}
                        Same::Unknown(tensor) => findings.undecided.push(format!(
                            "{place}: {name} {tensor:?} is in other blocks than in its step, and not compared"
                        )),
                        Same::Different => {
                            let (expected, actual) = (step.commitment().root, checkpoint.commitment().root);
                            findings.broken(format!("{place}: {name} <- its step"), expected, actual);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// The signature must be the worker's whose log this is.
    fn signature(&self, receipt: &Receipt, place: &str, findings: &mut Findings) {
        match recover(receipt.digest, &receipt.signature) {
            Ok(signer) if signer == self.log.worker => {}
            Ok(signer) => findings.broken(format!("{place}: signature"), self.log.worker, signer),
            Err(error) => findings.broken(format!("{place}: signature"), self.log.worker, error),
        }
    }

    fn unknown(&mut self, receipt: &Receipt, place: &str, findings: &mut Findings) {
        self.signature(receipt, place, findings);
        // The number stands outside the signature; the type's hash stands inside.
        let is_of = |kind: &&'static Kind| {
            Body::decode(kind, &receipt.body).is_ok_and(|body| body.digest() == receipt.digest)
        };
        if let Some(kind) = KINDS.iter().filter(|kind| !kind.fields.is_empty()).find(is_of) {
            findings.broken(format!("{place}: kind"), kind.name, kind_name(receipt.kind));
            return;
        }
        findings.undecided.push(format!("{place}: this version does not know the kind; use a newer one"));
    }

    fn header(&self, body: &Body, position: u64, previous: Digest, place: &str, findings: &mut Findings) {
        let mut same = |field: &str, expected: Digest, actual: Digest| {
            if expected != actual {
                findings.broken(format!("{place}: {field}"), expected, actual);
            }
        };
        same("run", self.genesis.body.bytes32("run"), body.bytes32("run"));
        same("previous", previous, body.bytes32("previous"));
        same("worker", self.log.worker.into_word(), body.address("worker").into_word());
        for (field, expected) in
            [("schema", SCHEMA_VERSION.into()), ("lane", self.log.lane.into()), ("sequence", position)]
        {
            if body.unsigned(field) != expected {
                findings.broken(format!("{place}: {field}"), expected, body.unsigned(field));
            }
        }
        if body.bytes32("delegation") != Digest::ZERO {
            findings
                .undecided
                .push(format!("{place}: signed by delegation, which this version cannot check"));
        }
    }

    /// What may follow what, and what is due.
    fn order(&mut self, body: &Body, position: u64, place: &str, findings: &mut Findings) {
        let kind = body.kind().number;
        let owns_genesis = self.log.worker == self.genesis.body.address("owner") && self.log.lane == 0;
        let expected_first =
            if owns_genesis { [schema::GENESIS, schema::JOIN].as_slice() } else { &[schema::JOIN] };
        match expected_first.get(position as usize) {
            Some(expected) if *expected != kind => {
                findings.broken(format!("{place}: order"), kind_name(*expected), body.kind().name);
            }
            None if [schema::GENESIS, schema::JOIN].contains(&kind) => {
                findings.broken(format!("{place}: order"), "no second genesis or join", body.kind().name);
            }
            _ => {}
        }
        if self.closed && kind != schema::RESUME {
            findings.broken(format!("{place}: order"), "nothing but resume after close", body.kind().name);
        }
        self.closed = kind == schema::CLOSE;
        match kind {
            schema::STEP => {
                self.end_of_step(findings);
                let step = body.unsigned("step");
                if Some(step) != self.step.checked_add(1) {
                    findings.broken(format!("{place}: step"), self.step.saturating_add(1), step);
                }
                self.step = step;
                findings.steps += 1;
                self.due_fields(body, place, findings);
            }
            schema::CHECKPOINT => {
                if body.unsigned("step") != self.step {
                    findings.broken(format!("{place}: step"), self.step, body.unsigned("step"));
                }
                if body.bytes32("parameters") != Digest::ZERO {
                    self.checkpoint = Some(body.unsigned("step"));
                }
            }
            schema::RESUME => {
                if body.unsigned("step") != self.step {
                    findings.broken(format!("{place}: step"), self.step, body.unsigned("step"));
                }
                findings.resumed += 1;
                // An interruption may have come before the checkpoint that was due here.
                self.checkpoint = Some(self.step);
            }
            schema::CLOSE if body.unsigned("step") != self.step => {
                findings.broken(format!("{place}: step"), self.step, body.unsigned("step"));
            }
            schema::POLICY => self.new_policy(body, place, findings),
            _ => {}
        }
    }

    fn new_policy(&mut self, body: &Body, place: &str, findings: &mut Findings) {
        let (first_step, cadences) = (body.unsigned("firstStep"), Cadences::of_policy(body));
        if first_step <= self.step {
            findings.broken(format!("{place}: firstStep"), format!("more than {}", self.step), first_step);
        }
        if let Some(name) = cadences.below_floor(&self.specification.floor()) {
            let floor = self.specification.floor().of(name).unwrap_or(0);
            let actual = cadences.of(name).unwrap_or(0);
            findings.broken(format!("{place}: {name} below the floor of genesis"), floor, actual);
        }
        self.policies.push(body);
    }

    fn due_fields(&mut self, body: &Body, place: &str, findings: &mut Findings) {
        findings.skipped += u64::from(policy::is_skipped(body));
        findings.fallback += u64::from(policy::is_fallback(body));
        let policy = self.policies.at(self.step);
        findings.weakest = Some(findings.weakest.map_or(policy, |weakest| weakest.weakest(policy)));
        if let Some((name, every)) = self.policies.absent_field(body) {
            findings.broken(format!("{place}: {name}"), format!("due every {every} steps"), "absent");
        }
    }

    /// Before the next step the checkpoint that was due must have come. The last step is excused: a
    /// run may be interrupted in between.
    fn end_of_step(&mut self, findings: &mut Findings) {
        let every = self.policies.at(self.step).of("checkpoint").unwrap_or(0);
        let is_due = self.step > 0 && Cadences::is_due(every, self.step);
        if is_due && self.checkpoint != Some(self.step) {
            let place = format!("{}: checkpoint after step {}", self.place(), self.step);
            findings.broken(place, format!("due every {every} steps"), "absent");
        }
    }
}

/// Every signed head must describe a prefix of this log.
fn check_heads(walk: &Walk<'_>, roots: &[Digest], findings: &mut Findings) {
    let (mut previous, mut size) = (Digest::ZERO, 0);
    for head in &walk.log.heads {
        let place = format!("{}: tree head of size {}", walk.place(), head.size());
        let digest = head.body.digest();
        match recover(digest, &head.signature) {
            Ok(signer) if signer == walk.log.worker => {}
            Ok(signer) => findings.broken(format!("{place}: signature"), walk.log.worker, signer),
            Err(error) => findings.broken(format!("{place}: signature"), walk.log.worker, error),
        }
        if head.body.bytes32("run") != walk.genesis.body.bytes32("run")
            || head.body.address("worker") != walk.log.worker
            || head.body.unsigned("lane") != u64::from(walk.log.lane)
        {
            findings.broken(format!("{place}: log"), walk.place(), "the head of another log");
        }
        if head.body.bytes32("previousHead") != previous {
            findings.broken(format!("{place}: previousHead"), previous, head.body.bytes32("previousHead"));
        }
        previous = digest;
        if head.size() <= size || head.body.unsigned("schema") != u64::from(SCHEMA_VERSION) {
            findings.broken(
                format!("{place}: order"),
                format!("a head of schema 1 over more than {size}"),
                head.size(),
            );
        }
        size = head.size();
        check_prefix(&place, walk, roots, head.size(), head.root(), findings);
    }
}

fn check_prefix(
    place: &str,
    walk: &Walk<'_>,
    roots: &[Digest],
    size: u64,
    root: Digest,
    findings: &mut Findings,
) -> bool {
    let found = usize::try_from(size).ok().and_then(|size| roots.get(size));
    match found {
        Some(_) if size == 0 => findings.broken(format!("{place}: size"), "at least 1", 0),
        Some(actual) if *actual == root => return true,
        Some(actual) => {
            findings.broken(format!("{place}: root over the first {size} receipts"), root, actual);
        }
        None => {
            let found = format!("{} receipts", walk.log.receipts.len());
            findings.broken(format!("{place}: receipts of the ledger"), format!("at least {size}"), found);
        }
    }
    false
}

/// A recorded head that this log does not contain is a truncation or a second history.
fn check_anchors(walk: &Walk<'_>, roots: &[Digest], evidence: &Evidence<'_>, findings: &mut Findings) {
    let own = |worker: Address, lane: u32| worker == walk.log.worker && lane == walk.log.lane;
    for anchor in evidence.anchors.iter().filter(|anchor| own(anchor.worker, anchor.lane)) {
        let run = walk.genesis.body.bytes32("run");
        if anchor.run != run {
            findings.broken(format!("{}: run", anchor.name), run, anchor.run);
        } else if check_prefix(&anchor.name, walk, roots, anchor.size, anchor.root, findings) {
            findings.anchored.push(anchor.clone());
        }
    }
}

/// What can be said of two records of one state.
enum Same<'a> {
    Equal,
    /// This tensor is in blocks, of which the other record knows nothing; the rest is equal.
    Unknown(&'a str),
    Different,
}

fn same<'a>(step: &'a State, checkpoint: &State) -> Same<'a> {
    let (ours, theirs) = (step.entries(), checkpoint.entries());
    if ours.len() != theirs.len() {
        return Same::Different;
    }
    let mut found = Same::Equal;
    for (our, their) in ours.iter().zip(theirs).filter(|(our, their)| our != their) {
        let in_blocks = our.has_root() && their.has_root() && !(our.is_dense() && their.is_dense());
        // One dtype and one shape under one name, or it is another state whatever the blocks are.
        if !in_blocks || our.name != their.name || our.measured() != their.measured() {
            return Same::Different;
        }
        found = Same::Unknown(&our.name);
    }
    found
}
