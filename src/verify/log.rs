//! The walk over one log: signatures, links, order, due fields, tree heads and anchors.

use std::collections::{BTreeMap, BTreeSet};

use super::delegated::Delegates;
use super::heads::{Heads, Observed, check_anchors};
use super::openings::{STATE, States, check_openings};
use super::policy::{self, Cadences, Policies};
use super::prepared::{Content, Prepared, batches};
use super::ranks::Rank;
use super::specification::{Genesis, Specification};
use super::stated::Stated;
use super::states::{Same, same, states_at};
use super::updates::Updates;
use super::{Evidence, Findings, LogFindings};
use crate::commit::merkle::CompactRange;
use crate::commit::{Entry, State, leaf_hash};
use crate::evidence::{Log, Mark, TreeHead, kind_name};
use crate::primitives::{Address, Digest};
use crate::receipt::schema::{self, KINDS, Kind, SCHEMA_VERSION};
use crate::receipt::{Body, Receipt, SignatureError, recover};

/// Kinds in the log of a worker who joined as an observer, besides those that speak of others' receipts.
const LOOKING_ON: [u16; 4] = [schema::JOIN, schema::RESUME, schema::CLOSE, schema::OBSERVED_HEAD];

/// What the walk knows about a log at one receipt.
struct Walk<'a> {
    log: &'a Log,
    genesis: &'a Genesis,
    specification: &'a Specification,
    tree: CompactRange,
    /// Roots at the sizes of heads and anchors.
    roots: BTreeMap<u64, Digest>,
    wanted: BTreeSet<u64>,
    /// Digest of the receipt before; none when it is withheld.
    previous: Option<Digest>,
    head: (Digest, u64),
    /// Whether no tree head stands behind what is withheld, so that nothing binds it.
    unbound: bool,
    step: u64,
    /// The shown steps that lead to the last one, with their flags: without those that a resume went back behind.
    steps: Vec<(u64, u64)>,
    /// Whether receipts behind the last shown one are withheld, so that `step` is a lower bound.
    interrupted: bool,
    policies: Policies,
    checkpoint: Option<u64>,
    /// What the next checkpoint holds: the opened state of the last step, or that which was resumed.
    state: States,
    /// For each part of the state after a step, the last shown receipt that speaks of it (0 for none), by the steps
    /// that lead here.
    states: BTreeMap<u64, [u64; STATE.len()]>,
    /// Roots of the opened gradients to which this rank contributed, and of what it did, by the steps that lead here.
    applied: BTreeMap<u64, (Digest, Option<Digest>)>,
    /// What it says of other logs and to them.
    observed: Vec<Observed>,
    rounds: Vec<(Digest, u64)>,
    aggregations: Vec<(String, u64, State)>,
    stated: Vec<Stated>,
    /// Whether its writer joined to look on.
    observes: bool,
    /// Whether what comes next is to be compared with the state before a resume.
    is_resumed: bool,
    closed: bool,
    updates: Updates,
    delegates: Delegates<'a>,
}

/// Checks one log; `findings` takes what does not hold. Returns what is to be compared with other logs.
pub(super) fn check(
    log: &Log,
    genesis: &Genesis,
    specification: &Specification,
    evidence: &Evidence<'_>,
    findings: &mut Findings,
) -> (Heads, Rank, Vec<Stated>) {
    let owns_genesis = log.worker == genesis.body.address("owner") && log.lane == 0;
    let own = evidence.anchors.iter().filter(|anchor| (anchor.worker, anchor.lane) == (log.worker, log.lane));
    let mut walk = Walk {
        log,
        genesis,
        specification,
        tree: CompactRange::default(),
        roots: BTreeMap::new(),
        wanted: own.map(|anchor| anchor.size).collect(),
        previous: Some(if owns_genesis { Digest::ZERO } else { genesis.digest }),
        head: (Digest::ZERO, 0),
        unbound: false,
        step: 0,
        steps: Vec::new(),
        interrupted: false,
        policies: Policies::new(specification.floor()),
        checkpoint: None,
        state: Vec::new(),
        states: BTreeMap::new(),
        applied: BTreeMap::new(),
        observed: Vec::new(),
        rounds: Vec::new(),
        aggregations: Vec::new(),
        stated: Vec::new(),
        observes: false,
        is_resumed: false,
        closed: false,
        updates: Updates::default(),
        delegates: Delegates::new(log, genesis.body.bytes32("run")),
    };
    walk.delegates.check(&walk.place(), findings);
    let mut marks = log.marks().iter().peekable();
    for batch in batches(log) {
        for prepared in batch {
            while let Some((_, mark)) = marks.next_if(|(at, _)| *at <= prepared.sequence) {
                walk.mark(mark, evidence, findings);
            }
            walk.receipt(&prepared, evidence, findings);
        }
    }
    marks.for_each(|(_, mark)| walk.mark(mark, evidence, findings));
    walk.updates.interrupt(evidence, findings);
    if walk.unbound {
        let place = format!("{}: withheld receipts", walk.place());
        findings.broken(place, "a tree head over them", "none");
    }
    if log.size() == 0 {
        findings.broken(format!("{}: first receipt", walk.place()), "genesis or join", "an empty ledger");
    }
    let heads = Heads {
        place: walk.place(),
        worker: log.worker,
        lane: log.lane,
        size: log.size(),
        is_whole: log.shown() as u64 == log.size(),
        roots: std::mem::take(&mut walk.roots),
        observed: std::mem::take(&mut walk.observed),
    };
    check_anchors(&heads, genesis.body.bytes32("run"), evidence, findings);
    let rank = Rank {
        place: walk.place(),
        worker: log.worker,
        lane: log.lane,
        is_whole: heads.is_whole,
        applied: std::mem::take(&mut walk.applied),
        rounds: std::mem::take(&mut walk.rounds),
        aggregations: std::mem::take(&mut walk.aggregations),
    };
    findings.rounds += rank.rounds.len() as u64;
    findings.steps += walk.steps.len() as u64;
    let flagged = |flag: u64| walk.steps.iter().filter(|(_, flags)| flags & flag != 0).count() as u64;
    findings.skipped += flagged(policy::SKIPPED);
    findings.fallback += flagged(policy::FALLBACK);
    findings.logs.push(LogFindings {
        worker: log.worker,
        lane: log.lane,
        receipts: log.size(),
        shown: log.shown() as u64,
        closed: walk.closed,
        observes: walk.observes,
        signed: walk.delegates.signed,
    });
    (heads, rank, walk.stated)
}

impl Walk<'_> {
    fn place(&self) -> String {
        if self.log.lane == 0 && self.log.worker == self.genesis.body.address("owner") {
            "ledger".into()
        } else {
            format!("ledger of {} lane {}", self.log.worker, self.log.lane)
        }
    }

    fn mark(&mut self, mark: &Mark, evidence: &Evidence<'_>, findings: &mut Findings) {
        match mark {
            Mark::Head(head) => self.tree_head(head, findings),
            Mark::Withheld(range) => {
                self.updates.interrupt(evidence, findings);
                self.withheld(range, findings);
            }
        }
    }

    /// What the withheld receipts say is unknown: only the floor is sure to hold behind them.
    fn withheld(&mut self, range: &CompactRange, findings: &mut Findings) {
        let first = self.expected_first().get(range.begin() as usize);
        if let Some(kind) = first {
            let place = format!("{}: receipt {} ({})", self.place(), range.begin(), kind_name(*kind));
            findings.broken(place, "shown", "withheld");
        }
        self.tree.extend(range.clone());
        self.previous = None;
        self.unbound = true;
        self.interrupted = true;
        self.policies = Policies::new(self.specification.floor());
        // The checkpoint that was due after the last shown step may be among them.
        self.checkpoint = Some(self.step);
        self.state.clear();
        self.states.clear();
        self.applied.clear();
        self.closed = false;
        self.keep_root();
    }

    fn keep_root(&mut self) {
        if self.wanted.contains(&self.tree.size()) {
            self.roots.insert(self.tree.size(), self.tree.root());
        }
    }

    fn receipt(&mut self, prepared: &Prepared, evidence: &Evidence<'_>, findings: &mut Findings) {
        let receipt = match &prepared.receipt {
            Ok(receipt) => receipt,
            Err(error) => {
                let place = format!("{}: receipt {}", self.place(), prepared.sequence);
                findings.broken(place, "what was read before", error);
                // The receipts behind it keep their positions.
                self.tree.push(Digest::ZERO);
                return;
            }
        };
        self.checked_receipt(receipt, prepared, evidence, findings);
        self.tree.push(leaf_hash(&receipt.leaf()));
        self.keep_root();
    }

    fn checked_receipt(
        &mut self,
        receipt: &Receipt,
        prepared: &Prepared,
        evidence: &Evidence<'_>,
        findings: &mut Findings,
    ) {
        let position = prepared.sequence;
        let place = format!("{}: receipt {position} ({})", self.place(), kind_name(receipt.kind));
        let previous = self.previous.replace(receipt.digest);
        let body = match &prepared.content {
            Content::Body(body) => body,
            Content::Unknown => {
                self.unknown(receipt, prepared.signer, &place, findings);
                return;
            }
            Content::Refused(kind, error) => {
                findings.broken(format!("{place}: body"), format!("a body of {}", kind.type_name), error);
                return;
            }
        };
        let kind = body.kind();
        let place = match kind.number {
            schema::STEP | schema::CHECKPOINT => {
                format!("{}: receipt {position} ({} {})", self.place(), kind.name, body.unsigned("step"))
            }
            _ => place,
        };
        if prepared.digest != receipt.digest {
            findings.broken(format!("{place}: body"), receipt.digest, prepared.digest);
            return;
        }
        self.signature(body, position, prepared.signer, &place, findings);
        self.header(body, position, previous, &place, findings);
        let before = self.step;
        self.order(body, position, &place, findings);
        let opened = check_openings(prepared, body, self.specification, evidence, &place, findings);
        self.updates.receipt(body, prepared, &opened, &place, evidence, findings);
        if kind.number == schema::STEP && body.bytes32("contribution") != Digest::ZERO {
            let root = |field: &str| {
                let state = &opened.iter().find(|(name, _)| *name == field)?.1;
                let is_empty = !state.entries().iter().any(Entry::has_root);
                (!is_empty).then(|| state.commitment().root)
            };
            let gradients = root("gradients");
            self.applied.extend(gradients.map(|applied| (self.step, (applied, root("contribution")))));
        }
        match kind.number {
            schema::OBSERVED_HEAD => self.observed.push(Observed {
                place: place.clone(),
                position,
                worker: body.address("observedWorker"),
                lane: body.unsigned("observedLane") as u32,
                size: body.unsigned("size"),
                root: body.bytes32("root"),
            }),
            number if Stated::KINDS.contains(&number) => self.stated.push(Stated {
                by: (self.log.worker, self.log.lane),
                place: place.clone(),
                position,
                body: body.clone(),
            }),
            schema::ROUND => self.rounds.push((receipt.digest, body.unsigned("round"))),
            schema::AGGREGATION => {
                let inputs = opened.iter().find(|(name, _)| *name == "inputs");
                self.aggregations
                    .extend(inputs.map(|(_, state)| (place.clone(), body.unsigned("round"), state.clone())));
            }
            _ => {}
        }
        self.same_state(body, before, opened, &place, findings);
        if [schema::STEP, schema::CHECKPOINT].contains(&kind.number) {
            let spoken_of = (0..STATE.len()).filter(|part| body.bytes32(STATE[*part]) != Digest::ZERO);
            for part in spoken_of {
                self.states.entry(self.step).or_default()[part] = position;
            }
        }
    }

    /// A checkpoint holds the state that the receipt of its step committed to, and training that is resumed
    /// goes on from the state that it had at the step from which it goes on.
    fn same_state(&mut self, body: &Body, before: u64, opened: States, place: &str, findings: &mut Findings) {
        match body.kind().number {
            schema::STEP => (self.state, self.is_resumed) = (opened, false),
            schema::RESUME => {
                self.states.split_off(&self.step.saturating_add(1));
                self.applied.split_off(&self.step.saturating_add(1));
                self.is_resumed = true;
                if let Some(positions) = self.states.get(&self.step) {
                    self.state = states_at(self.log, positions);
                } else if self.step != before {
                    self.state.clear();
                }
            }
            schema::CHECKPOINT => {
                let is_compared = |name: &str| {
                    [&opened, &self.state].iter().all(|states| states.iter().any(|(known, _)| *known == name))
                };
                findings.continued += u64::from(self.is_resumed && is_compared("parameters"));
                self.is_resumed &= !is_compared("parameters");
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

    /// The signature must be the worker's whose log this is, or one that the worker allowed.
    fn signature(
        &mut self,
        body: &Body,
        position: u64,
        signer: Result<Address, SignatureError>,
        place: &str,
        findings: &mut Findings,
    ) {
        let delegation = body.bytes32("delegation");
        let expected = match delegation {
            Digest::ZERO => Ok(self.log.worker),
            digest => self.delegates.find(digest, body.kind().number, position),
        };
        let expected = match expected {
            Ok(expected) => expected,
            Err((expected, actual)) => {
                findings.broken(format!("{place}: delegation"), expected, actual);
                return;
            }
        };
        match signer {
            Ok(signer) if signer == expected => self.delegates.note(signer, delegation, position),
            Ok(signer) => findings.broken(format!("{place}: signature"), expected, signer),
            Err(error) => findings.broken(format!("{place}: signature"), expected, error),
        }
    }

    fn unknown(
        &mut self,
        receipt: &Receipt,
        signer: Result<Address, SignatureError>,
        place: &str,
        findings: &mut Findings,
    ) {
        // Whether another key was allowed to sign stands in a body that nobody can read.
        let known = signer.is_ok_and(|signer| signer == self.log.worker || self.delegates.names(signer));
        if !known {
            let actual = signer.map_or_else(|error| error.to_string(), |signer| signer.to_string());
            findings.broken(format!("{place}: signature"), self.log.worker, actual);
        }
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

    fn header(
        &self,
        body: &Body,
        position: u64,
        previous: Option<Digest>,
        place: &str,
        findings: &mut Findings,
    ) {
        let mut same = |field: &str, expected: Digest, actual: Digest| {
            if expected != actual {
                findings.broken(format!("{place}: {field}"), expected, actual);
            }
        };
        same("run", self.genesis.body.bytes32("run"), body.bytes32("run"));
        same("previous", previous.unwrap_or(body.bytes32("previous")), body.bytes32("previous"));
        same("worker", self.log.worker.into_word(), body.address("worker").into_word());
        for (field, expected) in
            [("schema", SCHEMA_VERSION.into()), ("lane", self.log.lane.into()), ("sequence", position)]
        {
            if body.unsigned(field) != expected {
                findings.broken(format!("{place}: {field}"), expected, body.unsigned(field));
            }
        }
    }

    /// The kinds with which this log begins.
    fn expected_first(&self) -> &'static [u16] {
        let owns_genesis = self.log.worker == self.genesis.body.address("owner") && self.log.lane == 0;
        if owns_genesis { &[schema::GENESIS, schema::JOIN] } else { &[schema::JOIN] }
    }

    /// What may follow what, and what is due.
    fn order(&mut self, body: &Body, position: u64, place: &str, findings: &mut Findings) {
        let kind = body.kind().number;
        match self.expected_first().get(position as usize) {
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
        // What it writes is of no weight for the run's own lines, so it may train nothing.
        if self.observes && !LOOKING_ON.contains(&kind) && !Stated::KINDS.contains(&kind) {
            findings.broken(format!("{place}: order"), "what an observer may write", body.kind().name);
        }
        match kind {
            schema::JOIN => self.observes = body.unsigned("role") == schema::OBSERVER,
            schema::STEP => {
                self.end_of_step(findings);
                self.check_step(body, 1, place, findings);
                self.step = body.unsigned("step");
                self.steps.push((self.step, body.unsigned("flags")));
                self.due_fields(body, place, findings);
            }
            schema::CHECKPOINT => {
                self.check_step(body, 0, place, findings);
                if body.bytes32("parameters") != Digest::ZERO {
                    self.checkpoint = Some(body.unsigned("step"));
                }
            }
            schema::RESUME => {
                self.resumed(body, place, findings);
                // An interruption may have come before the checkpoint that was due here.
                self.checkpoint = Some(self.step);
            }
            schema::CLOSE => self.check_step(body, 0, place, findings),
            schema::POLICY => self.new_policy(body, place, findings),
            _ => {}
        }
    }

    /// A receipt names the last step, or the one `after` it; behind withheld receipts any later one.
    fn check_step(&mut self, body: &Body, after: u64, place: &str, findings: &mut Findings) {
        let (expected, actual) = (self.step.saturating_add(after), body.unsigned("step"));
        let holds = if self.interrupted { actual >= expected } else { actual == expected };
        if !holds || (after > 0 && self.step == u64::MAX) {
            findings.broken(format!("{place}: step"), expected, actual);
        }
        if self.interrupted {
            (self.step, self.interrupted) = (actual, false);
        }
    }

    /// Training goes on behind the last step, or behind an earlier one: then the steps since are no part of it.
    fn resumed(&mut self, body: &Body, place: &str, findings: &mut Findings) {
        findings.resumed += u64::from(!self.observes);
        let step = body.unsigned("step");
        if !self.interrupted && step > self.step {
            findings.broken(format!("{place}: step"), format!("at most {}", self.step), step);
            return;
        }
        (self.step, self.interrupted) = (step, false);
        let kept = self.steps.partition_point(|(number, _)| *number <= step);
        findings.abandoned += (self.steps.len() - kept) as u64;
        self.steps.truncate(kept);
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

    /// A head stands behind the receipts that it speaks of.
    fn tree_head(&mut self, head: &TreeHead, findings: &mut Findings) {
        let place = format!("{}: tree head of size {}", self.place(), head.size());
        let digest = head.body.digest();
        match recover(digest, &head.signature) {
            Ok(signer) if signer == self.log.worker => {}
            Ok(signer) if self.delegates.allows_head(signer, head.size()) => {}
            Ok(signer) => findings.broken(format!("{place}: signature"), self.log.worker, signer),
            Err(error) => findings.broken(format!("{place}: signature"), self.log.worker, error),
        }
        let of = (head.body.bytes32("run"), head.body.address("worker"), head.body.unsigned("lane"));
        if of != (self.genesis.body.bytes32("run"), self.log.worker, self.log.lane.into()) {
            findings.broken(format!("{place}: log"), self.place(), "the head of another log");
        }
        let (previous, size) = std::mem::replace(&mut self.head, (digest, head.size()));
        // Bundles may leave out heads, of which each names the one before.
        if head.body.bytes32("previousHead") != previous && self.log.shown() as u64 == self.log.size() {
            findings.broken(format!("{place}: previousHead"), previous, head.body.bytes32("previousHead"));
        }
        if head.size() <= size || head.body.unsigned("schema") != u64::from(SCHEMA_VERSION) {
            let expected = format!("a head of schema 1 over more than {size}");
            findings.broken(format!("{place}: order"), expected, head.size());
        }
        if head.size() != self.tree.size() {
            let found = format!("{} receipts before it", self.tree.size());
            findings.broken(format!("{place}: receipts of the ledger"), head.size(), found);
        } else if head.root() != self.tree.root() {
            let place = format!("{place}: root over the first {} receipts", head.size());
            findings.broken(place, head.root(), self.tree.root());
        } else {
            self.unbound = false;
            self.roots.insert(head.size(), head.root());
        }
    }
}
