//! Submissions that survive crashes, silent nodes, lost transactions and reorganised chains.
//!
//! One journal per chain and account says what is to be done and every transaction that was signed
//! for it. [`Outbox::advance`] looks at the chain and does the next thing; it can be stopped
//! anywhere, called again any number of times, and continued by another process.

mod attempt;
mod fees;
mod record;
mod why;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::run::{registration, store};
use super::{ChainError, Client, Task};
use crate::evidence::AnchorRecord;
use crate::journal::{Journal, JournalError, read};
use crate::ledger::RunFolder;
use crate::primitives::Address;
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
    /// Unix seconds at which its bytes last left.
    sent: Option<u64>,
    /// Block at which its nonce, or its effect, was first seen to be taken by something else.
    taken: Option<u64>,
    /// Transactions that failed in their blocks.
    failures: usize,
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
    /// [`JournalError::Locked`] when another process submits for this account, else what the node or the
    /// disk reports.
    pub fn open(folder: &Path, client: Client, signer: Arc<dyn Signer>) -> Result<Outbox, ChainError> {
        let account = signer.address();
        Outbox::of(folder, client, account, Some(signer))
    }

    /// Opens the outboxes of all accounts that submitted to this chain, to look only.
    ///
    /// # Errors
    /// As of [`Outbox::open`].
    pub fn watch(folder: &Path, client: &Client) -> Result<Vec<Outbox>, ChainError> {
        let prefix = Self::prefix(client)?;
        let accounts = names(folder)?.into_iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok());
        accounts.map(|account| Outbox::of(folder, client.clone(), account, None)).collect()
    }

    fn of(
        folder: &Path,
        client: Client,
        account: Address,
        signer: Option<Arc<dyn Signer>>,
    ) -> Result<Outbox, ChainError> {
        let folder = folder.join(format!("{}{account:#x}", Self::prefix(&client)?));
        std::fs::create_dir_all(&folder).map_err(|error| JournalError::of_file(&folder, &error))?;
        let path = folder.join(JOURNAL);
        let (journal, recovered) = match Journal::create(&path, PURPOSE) {
            Err(JournalError::Exists { .. }) => Journal::open(&path, PURPOSE)?,
            created => (created?, Default::default()),
        };
        let submissions = replay(&recovered.frames).map_err(|detail| damaged(&path, detail))?;
        let notes = vec![Note::default(); submissions.len()];
        let (gap, record, off) = (None, None, None);
        Ok(Outbox { journal, client, account, signer, submissions, notes, gap, record, off })
    }

    /// How the names of a chain's outboxes begin; the account follows. Development chains share an id, so
    /// their first block tells them apart.
    fn prefix(client: &Client) -> Result<String, ChainError> {
        Ok(match client.network().is_development() {
            true => format!("{}-{:.8}-", client.chain_id(), format!("{:x}", client.genesis()?)),
            false => format!("{}-", client.chain_id()),
        })
    }

    /// The submissions of every account and chain in `folder`, by the names of their outboxes. Nothing is
    /// locked or asked.
    ///
    /// # Errors
    /// What the disk reports, and [`ChainError::Outbox`] for a damaged one.
    pub fn all(folder: &Path) -> Result<Vec<(String, Vec<Submission>)>, ChainError> {
        let known = names(folder)?.into_iter().map(|name| {
            let path = folder.join(&name).join(JOURNAL);
            let frames = read(&path, PURPOSE)?.frames;
            Ok((name, replay(&frames).map_err(|detail| damaged(&path, detail))?))
        });
        known.collect()
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
    /// submission, that of the earlier one unless that failed. An anchor's record goes into `folder`.
    ///
    /// # Errors
    /// What the disk reports; then nothing was written down.
    pub fn submit(&mut self, task: Task, folder: Option<&RunFolder>) -> Result<usize, ChainError> {
        let contract = self.client.contract();
        let is_same = |known: &Submission| {
            let is_failed = matches!(known.outcome, Some(Outcome::Failed(_)));
            (&known.task, known.contract) == (&task, contract) && !is_failed
        };
        if let Some(number) = self.submissions.iter().position(is_same) {
            if self.submissions[number].outcome.is_some() {
                self.write(Event::Undone { number })?;
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

    /// Looks at the chain once and does the next thing for every submission; `now` is Unix seconds. What a node
    /// says or fails to say stops nothing: [`Outbox::why`] tells it, and the next call tries again.
    ///
    /// # Errors
    /// [`ChainError::Journal`] when the disk fails, before anything that it could not hold has left,
    /// [`ChainError::Sign`] when the key does not sign.
    pub fn advance(&mut self, now: u64) -> Result<(), ChainError> {
        match self.look_around().and_then(|()| self.step_all(now)) {
            // Nobody answers, or nonsense: asking more would only take longer.
            Err(
                error
                @ (ChainError::Transport { .. } | ChainError::Malformed { .. } | ChainError::Rpc { .. }),
            ) => {
                let open: Vec<usize> = self.open_numbers().collect();
                open.into_iter().for_each(|number| self.notes[number].says(error.to_string()));
                Ok(())
            }
            looked => looked,
        }
    }

    fn look_around(&mut self) -> Result<(), ChainError> {
        self.reopen()?;
        self.fill_gaps()
    }

    fn step_all(&mut self, now: u64) -> Result<(), ChainError> {
        let open: Vec<usize> = self.open_numbers().collect();
        for number in open {
            // Nothing new is signed before the earlier ones are final: what it builds on could be taken
            // back, and it would be paid for in vain. A filler is what they wait for.
            let is_filler = matches!(self.submissions[number].task, Task::Fill { .. });
            let is_first = self.open_numbers().all(|other| other >= number);
            match self.step(number, now, is_filler || is_first) {
                Err(
                    error @ (ChainError::Behind { .. }
                    | ChainError::OtherHistory { .. }
                    | ChainError::Reverted { .. }),
                ) => {
                    // A node that lags behind, or a block that is taken back, refuses for a while.
                    match self.is_settled(number)? {
                        true => self.end(number, Outcome::Failed(error.to_string()))?,
                        false => self.notes[number].says(error.to_string()),
                    }
                }
                // The node refuses this one, or speaks for another chain, which gets nothing.
                Err(
                    error @ (ChainError::WrongChain { .. }
                    | ChainError::Rpc { .. }
                    | ChainError::Malformed { .. }),
                ) => {
                    self.notes[number].says(error.to_string());
                }
                done => done?,
            }
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
                Some(other) if other != hash => self.write(Event::Undone { number })?,
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
            if let Some(folder) = folder.filter(is_own) {
                store(&folder, &record)?;
            }
            self.record = Some((number, record));
        }
        self.write(Event::Ended { number, outcome })
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

/// Names of the outboxes in a folder. One without a journal was killed before it held anything.
fn names(folder: &Path) -> Result<BTreeSet<String>, ChainError> {
    let failed = |error: std::io::Error| JournalError::of_file(folder, &error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && path.join(JOURNAL).exists()
        {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

fn damaged(path: &Path, detail: String) -> ChainError {
    ChainError::Outbox { path: path.display().to_string(), detail }
}
