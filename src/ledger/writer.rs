//! The writer of one lane.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::LedgerError;
use super::folder::{RunFolder, RunSettings};
use super::progress::Progress;
use crate::commit::State;
use crate::evidence::{
    Delegation, FieldOpening, Frame, Log, Openable, OpeningFrame, TreeHead, encode_layout, layout_digest,
};
use crate::journal::{GROUP_COMMIT_FRAMES, Journal, MAX_PAYLOAD};
use crate::keys::{KeyFolder, random};
use crate::primitives::{Address, Digest};
use crate::receipt::schema::{self, Kind, SCHEMA_VERSION};
use crate::receipt::{Blind, Body, LaneSecret, Receipt, Signer, Value, log_id, run_id};
use crate::verify::{Specification, recipe_state};

/// A tree head is signed every so many receipts, if the signer lets it.
const HEAD_EVERY: u64 = GROUP_COMMIT_FRAMES;

/// Why a lane ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The run reached its end.
    Finished = 0,
    /// An exception stopped it.
    Exception = 1,
    /// Its owner gave it up.
    Abandoned = 2,
}

/// A state to be committed in a field, with its bytes when they shall lie in the journal.
#[derive(Clone, Debug)]
pub struct Field {
    /// Names, shapes, roots.
    pub state: Arc<State>,
    /// Canonical bytes of the dense entries, in order of their names, one after the other.
    pub values: Option<Vec<u8>>,
}

/// A key that signs a lane's receipts in the place of its worker's.
#[derive(Clone)]
pub struct Session {
    /// The key.
    pub signer: Arc<dyn Signer>,
    /// Unix seconds from which on it may not sign; 0 for no end.
    pub expires: u64,
}

/// Writes one lane of one run; the only writer while it lives.
pub struct Ledger {
    folder: RunFolder,
    journal: Journal,
    /// Whoever signs: the worker, or a key that the worker allowed by `delegation`.
    signer: Arc<dyn Signer>,
    worker: Address,
    delegation: Digest,
    /// Unix seconds from which on the delegation allows nothing.
    expires: Option<u64>,
    secret: LaneSecret,
    keys: KeyFolder,
    lock: std::fs::File,
    specification: Specification,
    run: Digest,
    lane: u32,
    progress: Mutex<Progress>,
}

impl Ledger {
    /// Begins a run in a new folder: genesis and join are durable on return. With a session, `signer`
    /// signs genesis and the delegation, and the session's key everything else.
    ///
    /// # Errors
    /// [`LedgerError::Exists`], [`LedgerError::Specification`], [`LedgerError::Key`], or what the
    /// disk reports.
    pub fn create(
        folder: &std::path::Path,
        settings: &RunSettings,
        signer: Arc<dyn Signer>,
        session: Option<Session>,
        keys: &KeyFolder,
    ) -> Result<Ledger, LedgerError> {
        let specification = Specification::parse(&settings.specification)?;
        let recipe = recipe_state(&settings.recipe)
            .map_err(|error| LedgerError::Damaged { place: "recipe".into(), detail: error.to_string() })?;
        let folder = RunFolder::create(folder, settings)?;
        let owner = signer.address();
        let pinned = crate::primitives::sha256(&[&settings.specification]);
        let nonce = settings.nonce.map_or_else(|| random().map(Digest::from), Ok)?;
        let run = run_id(owner, pinned, 0, nonce);
        let recipe = recipe.map_or(Digest::ZERO, |state| state.commitment().digest(&Digest::ZERO));
        let floor = specification.floor().digest();
        let mut ledger = Ledger::begin(folder, specification, run, Digest::ZERO, signer, 0, keys)?;
        let genesis = [
            ("owner", owner.into()),
            ("specification", pinned.into()),
            ("nonce", nonce.into()),
            ("minimumSchema", u64::from(SCHEMA_VERSION).into()),
            ("recipe", recipe.into()),
            ("policy", floor.into()),
        ];
        let dataset: Vec<_> = settings.dataset.iter().map(|field| ("dataset", field.clone())).collect();
        ledger.record("genesis", &genesis, &dataset)?;
        ledger.delegate(session, &[])?;
        ledger.join(schema::WORKER, 0)?;
        Ok(ledger)
    }

    /// Begins a new lane in an existing run.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when there is no run, [`LedgerError::Exists`] when this worker
    /// wrote this lane before.
    pub fn join_run(
        folder: &std::path::Path,
        lane: u32,
        (role, rank): (u64, u32),
        signer: Arc<dyn Signer>,
        session: Option<Session>,
        keys: &KeyFolder,
    ) -> Result<Ledger, LedgerError> {
        let folder = RunFolder::open(folder)?;
        let specification = Specification::parse(&folder.specification()?)?;
        let genesis = folder.genesis()?;
        let (run, previous) = (genesis.bytes32("run"), genesis.digest());
        let mut ledger = Ledger::begin(folder, specification, run, previous, signer, lane, keys)?;
        ledger.delegate(session, &[])?;
        ledger.join(role, rank)?;
        Ok(ledger)
    }

    fn begin(
        folder: RunFolder,
        specification: Specification,
        run: Digest,
        previous: Digest,
        signer: Arc<dyn Signer>,
        lane: u32,
        keys: &KeyFolder,
    ) -> Result<Ledger, LedgerError> {
        let path = folder.lane(signer.address(), lane);
        if path.join("journal").exists() {
            return Err(LedgerError::Exists { path: path.display().to_string() });
        }
        let secret = keys.new_lane_secret(log_id(run, signer.address(), lane))?;
        let lock = keys.lock_lane(log_id(run, signer.address(), lane))?;
        folder.make(&path)?;
        let journal = Journal::create(&path.join("journal"), "ledger")?;
        let progress = Progress::new(&specification, previous);
        Ok(Ledger {
            folder,
            journal,
            worker: signer.address(),
            delegation: Digest::ZERO,
            expires: None,
            signer,
            secret,
            run,
            lane,
            progress: Mutex::new(progress),
            keys: keys.clone(),
            lock,
            specification,
        })
    }

    /// Hands the lane over to a session's key: the worker signs that it may.
    fn delegate(&mut self, session: Option<Session>, known: &[Delegation]) -> Result<(), LedgerError> {
        let Some(session) = session else { return Ok(()) };
        let key = self.signer.address();
        if key != self.worker {
            let detail = "only the worker's own key can allow another one".into();
            return Err(LedgerError::NotDelegated { key, detail });
        }
        let every_kind_but_genesis = !(1 << schema::GENESIS);
        let body = Body::new(
            &schema::DELEGATION,
            &[
                ("schema", u64::from(SCHEMA_VERSION).into()),
                ("run", self.run.into()),
                ("worker", self.worker.into()),
                ("lane", u64::from(self.lane).into()),
                ("key", session.signer.address().into()),
                ("kinds", every_kind_but_genesis.into()),
                ("firstSequence", self.progress().tree.size().into()),
                ("lastSequence", u64::MAX.into()),
                ("expires", session.expires.into()),
            ],
        )?;
        self.delegation = body.digest();
        // It may be there already, from a process that ended before the session's key had signed.
        if known.iter().all(|known| known.body.digest() != self.delegation) {
            let signature = self.signer.sign_message(&body)?;
            self.journal.append(&Frame::Delegation(Delegation { body, signature }).encode())?;
        }
        self.signer = session.signer;
        self.expires = Some(session.expires).filter(|expires| *expires != 0);
        Ok(())
    }

    fn join(&self, role: u64, rank: u32) -> Result<(), LedgerError> {
        let fields = [
            ("role", role.into()),
            ("rank", u64::from(rank).into()),
            ("secret", self.secret.public_hash().into()),
        ];
        self.record("join", &fields, &[])?;
        self.flush()
    }

    /// Continues a lane: drops an unfinished frame and writes a resume receipt. `signer` is the worker
    /// or a key that the worker allowed before; with a session, the worker, who allows another key.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`], [`LedgerError::BehindAnchor`], [`LedgerError::NotDelegated`],
    /// [`LedgerError::Journal`] when another writer lives or the journal is corrupt.
    pub fn open(
        folder: &std::path::Path,
        lane: u32,
        signer: Arc<dyn Signer>,
        session: Option<Session>,
        keys: &KeyFolder,
    ) -> Result<Ledger, LedgerError> {
        let folder = RunFolder::open(folder)?;
        let specification = Specification::parse(&folder.specification()?)?;
        let genesis = folder.genesis()?;
        let run = genesis.bytes32("run");
        let worker = worker_of(&folder, lane, signer.address())?;
        let path = folder.lane(worker, lane).join("journal");
        let secret = keys.lane_secret(log_id(run, worker, lane))?;
        let lock = keys.lock_lane(log_id(run, worker, lane))?;
        let (journal, recovered) = Journal::open(&path, "ledger")?;
        let log = folder.log(worker, lane)?;
        let found = log.size();
        let (delegation, expires) = match delegation(&log, run, signer.address())? {
            Some(own) => (own.body.digest(), own.expires()),
            None => (Digest::ZERO, None),
        };
        let own =
            folder.anchors()?.into_iter().filter(|(_, a)| (a.run, a.worker, a.lane) == (run, worker, lane));
        if let Some(anchored) = own.map(|(_, anchor)| anchor.size).max().filter(|size| *size > found) {
            return Err(LedgerError::BehindAnchor { anchored, found });
        }
        let released = keys.released(log_id(run, worker, lane))?;
        if released > found {
            return Err(LedgerError::OlderCopy { released, found });
        }
        let progress = Progress::replay(&specification, &log, genesis.digest())?;
        let was_closed = progress.closed;
        let step = progress.step;
        let mut ledger = Ledger {
            folder,
            journal,
            signer,
            worker,
            delegation,
            expires,
            secret,
            run,
            lane,
            progress: Mutex::new(progress),
            keys: keys.clone(),
            lock,
            specification,
        };
        ledger.progress().closed = false;
        let owns_genesis = lane == 0 && log.genesis().is_some();
        ledger.delegate(session, log.delegations())?;
        if found <= u64::from(owns_genesis) {
            // The process that began this lane ended before it had joined.
            ledger.join(schema::WORKER, 0)?;
            return Ok(ledger);
        }
        let reason = u64::from(!was_closed);
        ledger.record(
            "resume",
            &[
                ("step", step.into()),
                ("reason", reason.into()),
                ("droppedBytes", recovered.dropped_bytes.into()),
            ],
            &[],
        )?;
        ledger.flush()?;
        Ok(ledger)
    }

    /// The run's id.
    pub fn run(&self) -> Digest {
        self.run
    }

    /// The worker's address.
    pub fn worker(&self) -> Address {
        self.worker
    }

    /// The lane's number.
    pub fn lane(&self) -> u32 {
        self.lane
    }

    /// The run's folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The last recorded step, 0 before the first.
    pub fn step(&self) -> u64 {
        self.progress().step
    }

    /// Unix seconds from which on receipts of this key count for nobody; none when it has no end.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// Whether the lane was closed.
    pub fn is_closed(&self) -> bool {
        self.progress().closed
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs and appends a receipt; returns its sequence number, not its digest, because it is not
    /// durable yet.
    ///
    /// # Errors
    /// [`LedgerError::Closed`], [`LedgerError::Step`], [`LedgerError::Due`],
    /// [`LedgerError::Policy`], [`LedgerError::Receipt`], or what the signer or the disk report.
    /// After any of them the lane is as it was.
    pub fn record(
        &self,
        kind: &str,
        values: &[(&str, Value)],
        fields: &[(&str, Field)],
    ) -> Result<u64, LedgerError> {
        let no_kind = || crate::receipt::ReceiptError::Field { kind: "unknown", field: kind.into() };
        let kind = Kind::from_name(kind).ok_or_else(no_kind)?;
        self.journal.check_process()?;
        let mut progress = self.progress();
        if progress.closed {
            return Err(LedgerError::Closed);
        }
        let sequence = progress.tree.size();
        let mut all: Vec<(&str, Value)> = vec![
            ("schema", u64::from(SCHEMA_VERSION).into()),
            ("run", self.run.into()),
            ("worker", self.worker.into()),
            ("lane", u64::from(self.lane).into()),
            ("sequence", sequence.into()),
            ("previous", progress.previous.into()),
            ("delegation", self.delegation.into()),
            ("time", now().into()),
        ];
        all.extend_from_slice(values);
        let (mut openings, mut layouts) = (Vec::new(), Vec::new());
        for (name, field) in fields {
            let opening = self.commit(kind, name, field, sequence, &mut layouts)?;
            let commitment = match opening.blind.entry_key() {
                Some(key) => field.state.blinded(key),
                None => field.state.commitment(),
            };
            all.push((name, commitment.digest(&opening.blind.blind).into()));
            openings.push(opening);
        }
        let body = Body::new(kind, &all)?;
        progress.check(&body, &self.specification)?;
        let digest = body.digest();
        let signature = self.signer.sign_message(&body)?;
        let receipt = Receipt { kind: kind.number, digest, signature, body: body.encode() };
        for (payload, layout) in layouts {
            if !progress.layouts.contains(&layout) {
                self.journal.append(&payload)?;
                progress.layouts.insert(layout);
            }
        }
        if !openings.is_empty() {
            self.journal
                .append(&Frame::Opening(OpeningFrame { receipt: digest, fields: openings }).encode())?;
        }
        self.journal.append(&Frame::Receipt(receipt.clone()).encode())?;
        progress.take(&receipt, &body);
        let covered = progress.head.as_ref().map_or(0, TreeHead::size);
        if progress.tree.size() - covered >= HEAD_EVERY {
            // The receipt is recorded whatever becomes of the head; the next receipt tries again.
            let _ = self.sign_head(&mut progress);
        }
        Ok(sequence)
    }

    /// The opening of one field, and its layout.
    fn commit(
        &self,
        kind: &'static Kind,
        name: &str,
        field: &Field,
        sequence: u64,
        layouts: &mut Vec<(Vec<u8>, Digest)>,
    ) -> Result<FieldOpening, LedgerError> {
        let unknown = || crate::receipt::ReceiptError::Field { kind: kind.name, field: name.into() };
        let mut own = kind.fields.iter().enumerate();
        let (index, row) = own
            .find(|(_, row)| row.name == name && row.meaning == schema::Meaning::Commitment)
            .ok_or_else(unknown)?;
        let blind = match self.specification.is_public(kind, name) {
            true => Blind::default(),
            false => self.secret.blind((self.run, self.worker, self.lane), sequence, kind, row),
        };
        let entries = field.state.entries();
        let content = match &field.values {
            Some(values) => Openable::Values(values.clone()),
            None => {
                Openable::Roots(entries.iter().filter(|e| e.has_root()).flat_map(|e| e.root().0).collect())
            }
        };
        let (Openable::Roots(payload) | Openable::Values(payload)) = &content;
        if payload.len() > MAX_PAYLOAD / 2 {
            let (expected, actual) = (MAX_PAYLOAD as u64 / 2, payload.len() as u64);
            return Err(LedgerError::TooLarge { what: format!("the field {name}"), expected, actual });
        }
        let payload = encode_layout(entries);
        let layout = layout_digest(&payload);
        layouts.push((payload, layout));
        Ok(FieldOpening { index: index as u8, blind, layout, content })
    }

    /// Returns when everything recorded is durable.
    ///
    /// # Errors
    /// [`LedgerError::Journal`] when it cannot be made durable.
    pub fn flush(&self) -> Result<(), LedgerError> {
        // Before the lock, which a thread that was not forked may hold for ever.
        self.journal.check_process()?;
        self.release(&mut self.progress())
    }

    /// Makes everything durable and notes in the key folder that it may now leave the device, so
    /// that an older copy of this run is never continued.
    fn release(&self, progress: &mut Progress) -> Result<(), LedgerError> {
        self.journal.flush()?;
        let size = progress.tree.size();
        if size > progress.released {
            self.keys.set_released(log_id(self.run, self.worker, self.lane), size)?;
            progress.released = size;
        }
        Ok(())
    }

    /// The signed size and root of the lane, covering every receipt recorded before.
    ///
    /// # Errors
    /// What the signer or the disk report.
    pub fn tree_head(&self) -> Result<TreeHead, LedgerError> {
        self.journal.check_process()?;
        let mut progress = self.progress();
        self.release(&mut progress)?;
        let head = self.sign_head(&mut progress)?;
        self.journal.flush()?;
        Ok(head)
    }

    /// Signs and appends a head over everything recorded, unless there is one. It stands behind its
    /// receipts in one file, so it is never durable before they are.
    fn sign_head(&self, progress: &mut Progress) -> Result<TreeHead, LedgerError> {
        let size = progress.tree.size();
        if let Some(head) = progress.head.as_ref().filter(|head| head.size() == size) {
            return Ok(head.clone());
        }
        let previous = progress.head.as_ref().map_or(Digest::ZERO, |head| head.body.digest());
        let body = Body::new(
            &schema::TREE_HEAD,
            &[
                ("schema", u64::from(SCHEMA_VERSION).into()),
                ("run", self.run.into()),
                ("worker", self.worker.into()),
                ("lane", u64::from(self.lane).into()),
                ("size", size.into()),
                ("root", progress.tree.root().into()),
                ("previousHead", previous.into()),
                ("time", now().into()),
            ],
        )?;
        let head = TreeHead { signature: self.signer.sign_message(&body)?, body };
        self.journal.append(&Frame::Head(head.clone()).encode())?;
        progress.head = Some(head.clone());
        Ok(head)
    }

    /// Writes the close receipt and a tree head over everything; both are durable on return.
    ///
    /// # Errors
    /// What the signer or the disk report. Closing a closed lane does nothing.
    pub fn close(&self, reason: CloseReason) -> Result<(), LedgerError> {
        self.journal.check_process()?;
        if self.is_closed() {
            // The head may be what failed the first time.
            return self.tree_head().map(|_| ());
        }
        let (step, work_units) = {
            let progress = self.progress();
            (progress.step, progress.work_units)
        };
        let fields =
            [("reason", (reason as u64).into()), ("step", step.into()), ("workUnits", work_units.into())];
        self.record("close", &fields, &[])?;
        self.tree_head().map(|_| ())
    }
}

/// Unix milliseconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The worker whose lane this key may write: its own, or one that allowed it.
fn worker_of(folder: &RunFolder, lane: u32, key: Address) -> Result<Address, LedgerError> {
    let path = folder.lane(key, lane).join("journal");
    if path.exists() {
        return Ok(key);
    }
    for (worker, _) in folder.lanes()?.into_iter().filter(|(_, number)| *number == lane) {
        if folder.log(worker, lane)?.delegations().iter().any(|delegation| delegation.key() == key) {
            return Ok(worker);
        }
    }
    Err(LedgerError::NotFound { path: path.display().to_string() })
}

/// The delegation under which a key continues a log; none for the worker itself.
fn delegation(log: &Log, run: Digest, key: Address) -> Result<Option<&Delegation>, LedgerError> {
    if key == log.worker {
        return Ok(None);
    }
    let refused = |detail: &str| LedgerError::NotDelegated { key, detail: detail.into() };
    let own = log.delegations().iter().rev().find(|delegation| delegation.key() == key);
    let own = own.ok_or_else(|| refused("its worker signed no delegation to it"))?;
    if own.is_of(run, log.worker, log.lane) != Ok(true) || !own.allows(schema::RESUME, log.size()) {
        return Err(refused("its delegation is not the worker's, or not for what comes next"));
    }
    match own.expires() {
        Some(expires) if expires.saturating_mul(1000) <= now() => {
            Err(refused("its delegation has expired; sign a new one"))
        }
        _ => Ok(Some(own)),
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Forked data loaders may still hold the file open, and with it the lock. One that drops its
        // copy of this writer must not give the lane free.
        if self.journal.is_own() {
            let _ = self.lock.unlock();
        }
    }
}
