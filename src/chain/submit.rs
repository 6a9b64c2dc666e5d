//! What users ask for, done through the outbox: anchor, revoke, deploy, go on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_primitives::address;

use super::outbox::{Outbox, Outcome};
use super::{ChainError, Client, Networks, Node, Registration, SignedHead, Task};
use crate::evidence::AnchorRecord;
use crate::ledger::RunFolder;
use crate::primitives::Address;
use crate::receipt::Signer;
use crate::verify::Revocation;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long nothing may change before waiting ends; what was begun stays in the outbox.
const PATIENCE: Duration = Duration::from_secs(180);

/// Accounts of the mnemonic that development nodes begin with (anvil, Hardhat): everybody has their keys.
const EVERYBODYS: [Address; 10] = [
    address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
    address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
    address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
    address!("90F79bf6EB2c4f870365E785982E1f101E93b906"),
    address!("15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
    address!("9965507D1a55bcC2695C58ba16FB37d819B0A4dc"),
    address!("976EA74026E726554dB657fA54763abd0C3a0aa9"),
    address!("14dC79964da2C08b23698B3D3cc7Ca32193d9955"),
    address!("23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f"),
    address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720"),
];

/// Whose money a transaction spends.
#[derive(Clone)]
pub enum Payer {
    /// A key that the user named for this purpose.
    Chosen(Arc<dyn Signer>),
    /// The key that was made without asking; it pays on development chains only.
    Device(Arc<dyn Signer>),
}

/// An account that submits to one chain.
pub struct Submitter<'a> {
    pub(super) client: Client,
    pub(super) signer: Arc<dyn Signer>,
    folder: &'a Path,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Submitter<'a> {
    /// Submits through the outboxes in `folder`, until `stop` says that nobody waits any more.
    ///
    /// # Errors
    /// [`ChainError::DeviceKeyRefused`], [`ChainError::DevelopmentKeyRefused`] when the key may not pay here.
    pub fn new(
        client: Client,
        payer: Payer,
        folder: &'a Path,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Self, ChainError> {
        let chain = client.chain_id();
        let signer = match payer {
            Payer::Device(signer) if !client.network().is_development() => {
                return Err(ChainError::DeviceKeyRefused { address: signer.address(), chain });
            }
            Payer::Chosen(signer) | Payer::Device(signer) => signer,
        };
        let address = signer.address();
        if EVERYBODYS.contains(&address) && !client.network().is_development() {
            return Err(ChainError::DevelopmentKeyRefused { address, chain });
        }
        Ok(Self { client, signer, folder, stop })
    }

    /// Anchors a head, registering its run first where the chain does not know it, and waits until that is
    /// final; its record goes into `folder`. Repeating a call is safe: a head that the chain already
    /// holds gives the record of the first time.
    ///
    /// # Errors
    /// [`ChainError::Behind`] or [`ChainError::OtherHistory`] when the chain holds another head,
    /// [`ChainError::Unfinished`] when it waits in the outbox, for the reason it names,
    /// [`ChainError::GivenUp`] when the contract refuses, else what the disk or the signer reports.
    pub fn anchor(
        &self,
        head: &SignedHead,
        run: &Registration,
        folder: Option<&RunFolder>,
    ) -> Result<AnchorRecord, ChainError> {
        let task = Task::Anchor(*head);
        let (mut outbox, mut silence) = (self.open()?, None);
        if !outbox.waits_for(&task) {
            if let Some(Some(record)) = unless_silent(self.held(head), &mut silence)? {
                return Ok(record);
            }
            let registration = Task::Register(*run);
            let is_registered =
                silence.is_none() && unless_silent(self.standing(&registration), &mut silence)? == Some(true);
            if !is_registered {
                self.submit(&mut outbox, registration, folder)?;
            }
        }
        let number = self.submit(&mut outbox, task, folder)?;
        self.finish(&mut outbox, number, silence)?;
        match (outbox.record(number), &outbox.submissions()[number].outcome) {
            (Some(record), _) => Ok(record),
            (None, Some(Outcome::Superseded)) => Err(ChainError::GivenUp { reason: outbox.why(number) }),
            (None, _) => self.client.anchored(head, None),
        }
    }

    /// Declares that a key signs for a worker no more; the payer is the worker or the key. Returns the block
    /// from which on that holds. Repeating a call is safe.
    ///
    /// # Errors
    /// As of [`Submitter::anchor`].
    pub fn revoke(&self, worker: Address, key: Address) -> Result<Revocation, ChainError> {
        let mut silence = None;
        if let Some(Some(found)) = unless_silent(self.revoked(worker, key), &mut silence)? {
            return Ok(found);
        }
        let mut outbox = self.open()?;
        let number = self.submit(&mut outbox, Task::Revoke { worker, key }, None)?;
        self.finish(&mut outbox, number, silence)?;
        let lags = || ChainError::Unfinished { reason: "the node does not know the revocation yet".into() };
        self.client.revocation(worker, key)?.ok_or_else(lags)
    }

    /// Brings everything that waits in the outbox to its end; says how each ended.
    ///
    /// # Errors
    /// As of [`Submitter::anchor`].
    pub fn resume(&self) -> Result<Vec<String>, ChainError> {
        let mut outbox = self.open()?;
        let ended = self.settle(&mut outbox, |_| true)?;
        Ok(ended.into_iter().map(|number| outbox.why(number)).collect())
    }

    fn standing(&self, task: &Task) -> Result<bool, ChainError> {
        self.client.standing(task, self.signer.address()).map(|standing| standing.is_done)
    }

    /// The record of a head that lies as deep in the chain as the network asks for.
    fn held(&self, head: &SignedHead) -> Result<Option<AnchorRecord>, ChainError> {
        if !self.standing(&Task::Anchor(*head))? {
            return Ok(None);
        }
        let record = self.client.anchored(head, None)?;
        Ok(self.is_deep(record.block_number)?.then_some(record))
    }

    /// The revocation of a key, if it lies as deep in the chain as the network asks for.
    fn revoked(&self, worker: Address, key: Address) -> Result<Option<Revocation>, ChainError> {
        match self.client.revocation(worker, key)? {
            Some(found) if self.is_deep(found.block)? => Ok(Some(found)),
            _ => Ok(None),
        }
    }

    fn is_deep(&self, block: u64) -> Result<bool, ChainError> {
        let depth = (self.client.latest_block()? + 1).saturating_sub(block);
        Ok(depth >= self.client.network().confirmations)
    }

    /// Opens the outbox as soon as nobody else submits for the account.
    pub(super) fn open(&self) -> Result<Outbox, ChainError> {
        let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            match Outbox::open(self.folder, self.client.clone(), Arc::clone(&self.signer)) {
                Err(ChainError::Busy { .. }) if !(self.stop)() && begin.elapsed() < PATIENCE => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    /// Writes down what shall be done, unless nobody waits for it any more.
    pub(super) fn submit(
        &self,
        outbox: &mut Outbox,
        task: Task,
        folder: Option<&RunFolder>,
    ) -> Result<usize, ChainError> {
        if (self.stop)() {
            return Err(ChainError::Interrupted);
        }
        outbox.submit(task, folder)
    }

    /// Brings a submission to its end, unless the node was silent when it was asked before.
    pub(super) fn finish(
        &self,
        outbox: &mut Outbox,
        number: usize,
        silence: Option<ChainError>,
    ) -> Result<(), ChainError> {
        match silence {
            Some(error) => {
                let task = &outbox.submissions()[number].task;
                Err(ChainError::Unfinished { reason: format!("{task}: {error}") })
            }
            None => self.settle(outbox, |open| open == number).map(drop),
        }
    }

    /// Advances until all submissions that `picks` wants have ended, the user is needed, or nothing changes for
    /// long; returns their numbers.
    fn settle(
        &self,
        outbox: &mut Outbox,
        picks: impl Fn(usize) -> bool,
    ) -> Result<BTreeSet<usize>, ChainError> {
        let (mut pause, mut known, mut changed) = (FIRST_PAUSE, outbox.progress(), Instant::now());
        let mut picked = BTreeSet::new();
        loop {
            if (self.stop)() {
                return Err(ChainError::Interrupted);
            }
            picked.extend(outbox.open_numbers().filter(|number| picks(*number)));
            outbox.advance(unix_time())?;
            // What was thought to be final may be open again.
            picked.extend(outbox.open_numbers().filter(|number| picks(*number)));
            if !outbox.open_numbers().any(&picks) {
                break;
            }
            let progress = outbox.progress();
            if progress != known {
                (known, changed) = (progress, Instant::now());
            }
            // Whatever is picked waits for the first one.
            let stuck = outbox.open_numbers().next().filter(|_| changed.elapsed() > PATIENCE);
            if let Some(number) = outbox.paused().or(stuck) {
                return Err(ChainError::Unfinished { reason: outbox.why(number) });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let is_failed =
            |number: &&usize| matches!(outbox.submissions()[**number].outcome, Some(Outcome::Failed(_)));
        match picked.iter().find(is_failed) {
            Some(failed) => Err(ChainError::GivenUp { reason: outbox.why(*failed) }),
            None => Ok(picked),
        }
    }
}

/// Splits off that the node is silent: what cannot be asked now is written down all the same, and asked later.
fn unless_silent<T>(
    asked: Result<T, ChainError>,
    silence: &mut Option<ChainError>,
) -> Result<Option<T>, ChainError> {
    match asked {
        Err(error) if error.is_silence() => {
            *silence = Some(error);
            Ok(None)
        }
        asked => asked.map(Some),
    }
}

/// Brings the run ledger to a chain. Where the usual factory is, its address follows from the code alone; another
/// one is written into the user's table. Repeating a call is safe.
///
/// # Errors
/// As of [`Submitter::anchor`], and [`ChainError::NotRunLedger`] when other code lies there.
pub fn deploy(
    node: Arc<dyn Node>,
    networks: &mut Networks,
    payer: Payer,
    folder: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Client, ChainError> {
    let client = Client::reach(node, networks, None)?;
    let submitter = Submitter::new(client.clone(), payer, folder, stop)?;
    let (mut address, mut silence) = (client.contract(), None);
    if unless_silent(submitter.standing(&Task::deploy()), &mut silence)? != Some(true) {
        let mut outbox = submitter.open()?;
        let number = submitter.submit(&mut outbox, Task::deploy(), None)?;
        submitter.finish(&mut outbox, number, silence)?;
        address = outbox.submissions()[number].created(submitter.signer.address()).unwrap_or(address);
    }
    let is_found = address == client.contract();
    let client = client.at(address)?;
    // Where it is looked for anyway it is not written down: a later version lies elsewhere.
    if !is_found && !client.network().is_development() {
        networks.set_contract(client.chain_id(), address)?;
    }
    Ok(client)
}

/// Says of everything that waits in the outboxes of a chain why it does; while another process submits, only how
/// far it is. Nothing is signed or sent.
///
/// # Errors
/// What the disk reports.
pub fn why(client: &Client, folder: &Path) -> Result<Vec<String>, ChainError> {
    let mut lines = Vec::new();
    for account in Outbox::accounts(folder, client)? {
        match Outbox::watch(folder, client.clone(), account) {
            Ok(mut outbox) => {
                outbox.advance(unix_time())?;
                lines.extend(outbox.open_numbers().map(|number| outbox.why(number)));
            }
            Err(ChainError::Busy { .. }) => {
                let known = Outbox::recorded(folder, client, account)?;
                let open = known.iter().filter(|submission| submission.outcome.is_none());
                lines.extend(
                    open.map(|each| {
                        format!("{}: {}; another process goes on with it", each.task, each.state())
                    }),
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
