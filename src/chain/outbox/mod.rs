//! Submissions that survive crashes, silent nodes, lost transactions and reorganised chains.
//!
//! One journal per chain and account says what is to be done and every transaction that was signed
//! for it. [`Outbox::advance`] looks at the chain and does the next thing; it can be stopped
//! anywhere, called again any number of times, and continued by another process. The journal only grows,
//! by some kilobytes a submission.

mod attempt;
mod fees;
mod names;
mod record;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::run::{registration, store};
use super::{ChainError, Client, Task};
use crate::evidence::AnchorRecord;
use crate::journal::{Journal, JournalError};
use crate::ledger::RunFolder;
use crate::primitives::{Address, Digest};
use crate::receipt::Signer;
use record::{Event, apply, replay};
pub use record::{Mined, Outcome, Submission};

const PURPOSE: &str = "outbox";
const JOURNAL: &str = "journal";

/// What makes submissions safe; tests switch one off to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Raw bytes are durable before they leave.
    DurableFirst,
    /// After a crash the same bytes go out again.
    SameBytes,
    /// Nonces follow the highest durable one, never the node's pending ones.
    OwnNonces,
    /// A foreign transaction that took the nonce is noticed.
    ForeignNonce,
    /// A replacement raises both fees by an eighth, and earlier hashes stay known.
    Replacement,
    /// Nonces that later transactions wait for are filled.
    Gaps,
    /// What the chain has already is not sent again.
    Idempotent,
    /// Only what lies deep enough is final, and what a deeper reorganisation undid is sent again.
    Confirmations,
    /// Fee cap and budget stop, and lose nothing.
    Budget,
    /// Whatever waits says why.
    Why,
}

/// Why a submission does not move; told by [`Outbox::why`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Note {
    /// What happened last.
    detail: String,
    /// What the user can do, where nobody else can.
    advice: Option<String>,
    /// When its last bytes left this process; none before the first time.
    sent: Option<Sent>,
    /// Block at which its nonce, or its effect, was first seen to be taken by something else.
    taken: Option<u64>,
    /// How deep lies what it waits for.
    depth: u64,
    /// Why the run folder did not take its record.
    unstored: Option<String>,
    /// Transactions that failed in their blocks.
    failures: usize,
}

/// Unix seconds at which bytes left for the first and the last time, and the latest block at the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    first: u64,
    last: u64,
    block: u64,
}

impl Note {
    fn says(&mut self, detail: impl Into<String>) {
        (self.detail, self.advice) = (detail.into(), None);
    }
}

/// Submissions of one account to one chain.
pub struct Outbox {
    journal: Journal,
    client: Client,
    account: Address,
    /// None looks only: then nothing is signed or sent.
    signer: Option<Arc<dyn Signer>>,
    submissions: Vec<Submission>,
    notes: Vec<Note>,
    /// A nonce that nothing of ours has, and the block at which that was first seen.
    gap: Option<(u64, u64)>,
    /// The record of the last anchor that became final here.
    record: Option<(usize, AnchorRecord)>,
    off: Option<Rule>,
}

impl Outbox {
    /// Opens the outbox of the signer's account, which is made if it is missing, among those in `folder`.
    ///
    /// # Errors
    /// [`ChainError::Busy`] when another process submits for this account, else what the node or the disk reports.
    pub fn open(folder: &Path, client: Client, signer: Arc<dyn Signer>) -> Result<Outbox, ChainError> {
        let account = signer.address();
        Outbox::of(folder, client, account, Some(signer))
    }

    /// Opens the outbox of an account to look only: nothing is signed or sent.
    ///
    /// # Errors
    /// As of [`Outbox::open`].
    pub fn watch(folder: &Path, client: Client, account: Address) -> Result<Outbox, ChainError> {
        Outbox::of(folder, client, account, None)
    }

    fn of(
        folder: &Path,
        client: Client,
        account: Address,
        signer: Option<Arc<dyn Signer>>,
    ) -> Result<Outbox, ChainError> {
        let folder = folder.join(names::of(&client, account)?);
        std::fs::create_dir_all(&folder).map_err(|error| JournalError::of_file(&folder, &error))?;
        let path = folder.join(JOURNAL);
        let opened = match Journal::create(&path, PURPOSE) {
            Err(JournalError::Exists { .. }) => Journal::open(&path, PURPOSE),
            created => created.map(|journal| (journal, Default::default())),
        };
        let (journal, recovered) = match opened {
            Err(JournalError::Locked { .. }) => return Err(ChainError::Busy { account }),
            opened => opened?,
        };
        let submissions = replay(&recovered.frames).map_err(|detail| damaged(&path, detail))?;
        let notes = vec![Note::default(); submissions.len()];
        let (gap, record, off) = (None, None, None);
        Ok(Outbox { journal, client, account, signer, submissions, notes, gap, record, off })
    }

    /// Without one of the rules, to see what becomes of the submissions.
    #[cfg(feature = "test-switches")]
    pub fn without(mut self, rule: Rule) -> Outbox {
        self.off = Some(rule);
        self
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    /// Writes down that something shall be done which the chain has not; returns the number of its
    /// submission, that of the earlier one unless that failed or this is a [`Task::Call`]. An anchor's record goes into `folder`.
    ///
    /// # Errors
    /// What the disk reports; then nothing was written down.
    pub fn submit(&mut self, task: Task, folder: Option<&RunFolder>) -> Result<usize, ChainError> {
        let contract = self.client.contract();
        let is_same = |known: &Submission| {
            let is_failed = matches!(known.outcome, Some(Outcome::Failed(_)));
            !task.is_repeatable() && (&known.task, known.contract) == (&task, contract) && !is_failed
        };
        if let Some(number) = self.submissions.iter().position(is_same) {
            if self.submissions[number].outcome.is_some() {
                self.undo(number)?;
            }
            return Ok(number);
        }
        let number = self.submissions.len();
        // A name that is no text is not kept: whoever anchors the folder again gets its record.
        let folder = folder.and_then(|folder| std::path::absolute(folder.path()).ok());
        let folder = folder.and_then(|path| path.to_str().map(str::to_owned));
        self.write(Event::Intent { number, task, contract, folder })?;
        Ok(number)
    }

    /// Everything that was ever submitted, by number.
    pub fn submissions(&self) -> &[Submission] {
        &self.submissions
    }

    /// Whether this is left to do.
    pub fn waits_for(&self, task: &Task) -> bool {
        let contract = self.client.contract();
        self.open_numbers()
            .map(|number| &self.submissions[number])
            .any(|s| (&s.task, s.contract) == (task, contract))
    }

    /// Numbers of what is left to do.
    pub fn open_numbers(&self) -> impl Iterator<Item = usize> {
        let numbered = self.submissions.iter().enumerate();
        numbered.filter(|(_, submission)| submission.outcome.is_none()).map(|(number, _)| number)
    }

    /// What changes as long as waiting leads somewhere: what is left to do, the block that holds it, and how deep
    /// that lies.
    pub fn progress(&self) -> Vec<(usize, Option<Digest>, u64)> {
        let block = |number: usize| self.submissions[number].mined.map(|mined| mined.block_hash);
        self.open_numbers().map(|number| (number, block(number), self.notes[number].depth)).collect()
    }

    /// Looks at the chain once and does the next thing for every submission; `now` is Unix seconds. What a node
    /// says or fails to say stops nothing: [`Outbox::why`] tells it, and the next call tries again.
    ///
    /// # Errors
    /// [`ChainError::Journal`] when the disk fails, before anything that it could not hold has left,
    /// [`ChainError::Sign`] when the key does not sign.
    pub fn advance(&mut self, now: u64) -> Result<(), ChainError> {
        self.supersede()?;
        match self.look_around().and_then(|()| self.step_all(now)) {
            // Asking more would only take longer.
            Err(error) if error.is_silence() || matches!(error, ChainError::WrongChain { .. }) => {
                let open: Vec<usize> = self.open_numbers().collect();
                open.into_iter().for_each(|number| self.notes[number].says(error.to_string()));
                Ok(())
            }
            looked => looked,
        }
    }

    /// A head that was never signed is not worth its fee while a larger one of its log waits too.
    fn supersede(&mut self) -> Result<(), ChainError> {
        let open: Vec<usize> = self.open_numbers().collect();
        let mut largest = BTreeMap::new();
        for (log, size) in open.iter().filter_map(|number| self.submissions[*number].log()) {
            let known = largest.entry(log).or_insert(size);
            *known = size.max(*known);
        }
        for number in open {
            let is_smaller = self.submissions[number].log().is_some_and(|(log, size)| size < largest[&log]);
            if is_smaller && self.submissions[number].attempts.is_empty() {
                self.write(Event::Ended { number, outcome: Outcome::Superseded })?;
            }
        }
        Ok(())
    }

    fn look_around(&mut self) -> Result<(), ChainError> {
        // Another chain's answers would be believed, and it gets nothing.
        self.client.check_chain()?;
        self.reopen()?;
        self.fill_gaps()
    }

    fn step_all(&mut self, now: u64) -> Result<(), ChainError> {
        let (open, mut is_first) = (self.open_numbers().collect::<Vec<_>>(), true);
        for number in open {
            // Nothing new is signed before the earlier ones are final: what it builds on could be taken
            // back, and it would be paid for in vain. A filler is what they wait for.
            let is_filler = matches!(self.submissions[number].task, Task::Fill { .. });
            match self.step(number, now, is_filler || is_first) {
                Err(
                    error @ (ChainError::Behind { .. }
                    | ChainError::OtherHistory { .. }
                    | ChainError::NotRunLedger { .. }
                    | ChainError::Reverted { .. }
                    | ChainError::Refused { .. }),
                ) => {
                    // A node that lags behind, or a block that is taken back, refuses for a while.
                    match self.is_settled(number)? {
                        true => self.end(number, Outcome::Failed(error.to_string()))?,
                        false => self.notes[number].says(error.to_string()),
                    }
                }
                // The node refuses this one.
                Err(error @ (ChainError::Rpc { .. } | ChainError::Malformed { .. })) => {
                    self.notes[number].says(error.to_string());
                }
                done => done?,
            }
            is_first &= self.submissions[number].outcome.is_some();
        }
        Ok(())
    }

    /// The record of an anchor that became final here, if it was the last one.
    pub fn record(&mut self, number: usize) -> Option<AnchorRecord> {
        self.record.take_if(|(last, _)| *last == number).map(|(_, record)| record)
    }

    /// What was thought to be final is open again when its block is no longer on the chain. The newest
    /// such block stands for those before it.
    fn reopen(&mut self) -> Result<(), ChainError> {
        if !self.keeps(Rule::Confirmations) {
            return Ok(());
        }
        loop {
            let ended = self.submissions.iter().enumerate().filter_map(|(number, s)| match s.outcome {
                Some(Outcome::Final(Some(mined))) => Some((mined.block_number, number, mined.block_hash)),
                _ => None,
            });
            let Some((block, number, hash)) = ended.max() else { return Ok(()) };
            match self.client.block_hash(block)? {
                Some(other) if other != hash => self.undo(number)?,
                // A node that does not know the block lags behind.
                _ => return Ok(()),
            }
        }
    }

    /// A nonce between the chain's next one and those of ours that wait, which nothing of ours has:
    /// whatever had it is gone when no block takes it for long.
    fn fill_gaps(&mut self) -> Result<(), ChainError> {
        if !self.keeps(Rule::Gaps) {
            return Ok(());
        }
        let open = self.open_numbers().map(|number| &self.submissions[number]);
        let own: BTreeSet<u64> =
            open.flat_map(|s| s.in_flight()).map(|attempt| attempt.transaction.nonce).collect();
        let Some(highest) = own.last().copied() else { return Ok(()) };
        let (next, latest) = (self.client.nonce(self.account)?, self.client.latest_block()?);
        if next >= highest || own.contains(&next) {
            self.gap = None;
            return Ok(());
        }
        let (_, since) =
            *self.gap.insert(self.gap.filter(|(nonce, _)| *nonce == next).unwrap_or((next, latest)));
        if latest.saturating_sub(since) >= self.client.network().confirmations {
            self.submit(Task::Fill { nonce: next }, None)?;
        }
        Ok(())
    }

    /// An anchor's record lies in its run folder before the submission ends: no crash parts the two.
    fn end(&mut self, number: usize, outcome: Outcome) -> Result<(), ChainError> {
        if let (Outcome::Final(mined), Task::Anchor(head)) = (&outcome, &self.submissions[number].task) {
            let near = mined.map(|mined| mined.block_number);
            let record = self.client_of(number).anchored(head, near)?;
            let folder = self.submissions[number].folder.as_deref().map(Path::new);
            let folder = folder.and_then(|path| RunFolder::open(path).ok());
            // A folder that was moved or removed meanwhile has no use for it, and another run's even less.
            let is_own = |folder: &RunFolder| registration(folder).is_ok_and(|run| run.run() == head.run);
            // One that takes no record must not stop what waits behind this.
            let stored = folder.filter(is_own).map_or(Ok(()), |folder| store(&folder, &record));
            self.notes[number].unstored = stored.err().map(|error| error.to_string());
            self.record = Some((number, record));
        }
        self.write(Event::Ended { number, outcome })
    }

    /// What was thought to be done is to be done again, first with the bytes that were sent before.
    fn undo(&mut self, number: usize) -> Result<(), ChainError> {
        self.write(Event::Undone { number })?;
        self.notes[number].sent = None;
        Ok(())
    }

    /// The client, at the contract that a submission is for.
    fn client_of(&self, number: usize) -> Client {
        self.client.clone().towards(self.submissions[number].contract)
    }

    /// Makes an event durable, then believes it.
    fn write(&mut self, event: Event) -> Result<(), ChainError> {
        let frame = serde_json::to_vec(&event).expect("an event is plain data");
        self.journal.append(&frame)?;
        self.journal.flush()?;
        apply(&mut self.submissions, event).expect("an event of this outbox");
        self.notes.resize(self.submissions.len(), Note::default());
        Ok(())
    }
}

fn damaged(path: &Path, detail: String) -> ChainError {
    ChainError::Outbox { path: path.display().to_string(), detail }
}
