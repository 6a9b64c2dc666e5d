//! What users ask for, done through the outbox: anchor, revoke, deploy, go on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_primitives::address;

use super::outbox::{Outbox, Outcome};
use super::{ChainError, Client, Networks, Node, Registration, SignedHead, Task};
use crate::evidence::AnchorRecord;
use crate::journal::JournalError;
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
    client: Client,
    signer: Arc<dyn Signer>,
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
        let mut outbox = self.open()?;
        let is_open = outbox.waits_for(&task);
        if !is_open && self.standing(&task)? {
            return self.client.anchored(head, None);
        }
        if !is_open && !self.standing(&Task::Register(*run))? {
            outbox.submit(Task::Register(*run), folder)?;
        }
        let number = outbox.submit(task, folder)?;
        self.settle(&mut outbox, &[number])?;
        match outbox.record(number) {
            Some(record) => Ok(record),
            None => self.client.anchored(head, None),
        }
    }

    /// Declares that a key signs for a worker no more; the payer is the worker or the key. Returns the block
    /// from which on that holds. Repeating a call is safe.
    ///
    /// # Errors
    /// As of [`Submitter::anchor`].
    pub fn revoke(&self, worker: Address, key: Address) -> Result<Revocation, ChainError> {
        let task = Task::Revoke { worker, key };
        if !self.standing(&task)? {
            let mut outbox = self.open()?;
            let number = outbox.submit(task, None)?;
            self.settle(&mut outbox, &[number])?;
        }
        let lags = || ChainError::Unfinished { reason: "the node does not know the revocation yet".into() };
        self.client.revocation(worker, key)?.ok_or_else(lags)
    }

    /// Brings everything that waits in the outbox to its end; says how each ended.
    ///
    /// # Errors
    /// As of [`Submitter::anchor`].
    pub fn resume(&self) -> Result<Vec<String>, ChainError> {
        let mut outbox = self.open()?;
        let mut open: BTreeSet<usize> = outbox.open_numbers().collect();
        outbox.advance(unix_time())?;
        // What was thought to be final may be open again.
        open.extend(outbox.open_numbers());
        let open: Vec<usize> = open.into_iter().collect();
        self.settle(&mut outbox, &open)?;
        Ok(open.into_iter().map(|number| outbox.why(number)).collect())
    }

    fn standing(&self, task: &Task) -> Result<bool, ChainError> {
        self.client.standing(task, self.signer.address()).map(|standing| standing.is_done)
    }

    /// Opens the outbox as soon as nobody else submits for the account.
    fn open(&self) -> Result<Outbox, ChainError> {
        let begin = Instant::now();
        loop {
            match Outbox::open(self.folder, self.client.clone(), Arc::clone(&self.signer)) {
                Err(ChainError::Journal(JournalError::Locked { .. }))
                    if !(self.stop)() && begin.elapsed() < PATIENCE =>
                {
                    std::thread::sleep(FIRST_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    /// Advances until these submissions have ended, the user is needed, or nothing changes for long.
    fn settle(&self, outbox: &mut Outbox, numbers: &[usize]) -> Result<(), ChainError> {
        let (mut pause, mut known, mut changed) = (FIRST_PAUSE, Vec::new(), Instant::now());
        loop {
            outbox.advance(unix_time())?;
            let Some(waiting) = outbox.open_numbers().find(|open| numbers.contains(open)) else { break };
            let unfinished = |number| ChainError::Unfinished { reason: outbox.why(number) };
            if let Some(paused) = outbox.paused() {
                return Err(unfinished(paused));
            }
            let now: Vec<String> = outbox.open_numbers().map(|number| outbox.why(number)).collect();
            if now != known {
                (known, changed) = (now, Instant::now());
            }
            if (self.stop)() || changed.elapsed() > PATIENCE {
                return Err(unfinished(waiting));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let is_failed =
            |number: &&usize| matches!(outbox.submissions()[**number].outcome, Some(Outcome::Failed(_)));
        match numbers.iter().find(is_failed) {
            Some(failed) => Err(ChainError::GivenUp { reason: outbox.why(*failed) }),
            None => Ok(()),
        }
    }
}

/// Brings the run ledger to a chain and writes into the user's table where it lies. Where the usual
/// factory is, the address follows from the code alone. Repeating a call is safe.
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
    let (task, mut address) = (Task::deploy(), client.contract());
    if !submitter.standing(&task)? {
        let mut outbox = submitter.open()?;
        let number = outbox.submit(task, None)?;
        submitter.settle(&mut outbox, &[number])?;
        address = outbox.submissions()[number].created(submitter.signer.address()).unwrap_or(address);
    }
    let client = client.at(address)?;
    if !client.network().is_development() {
        networks.set_contract(client.chain_id(), address)?;
    }
    Ok(client)
}

/// Says of everything that waits in the outboxes of a chain why it does. Nothing is signed or sent.
///
/// # Errors
/// What the disk reports, [`JournalError::Locked`] while another process submits.
pub fn why(client: &Client, folder: &Path) -> Result<Vec<String>, ChainError> {
    let mut lines = Vec::new();
    for mut outbox in Outbox::watch(folder, client)? {
        outbox.advance(unix_time())?;
        lines.extend(outbox.open_numbers().map(|number| outbox.why(number)));
    }
    Ok(lines)
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
