//! A development chain inside the process: the real contract's bytecode on a real EVM, no set-up.
//!
//! Its only state on disk is a journal of what happened, signed transactions above all, replayed at
//! open. A frame is durable before its effect is visible, and an unfinished last frame is dropped.
//! The chain belongs to whoever runs it, so its block times convince nobody else: anchors on it are
//! `self-anchored`. Blocks hold one transaction each; their hashes, transaction and receipt roots
//! are those of Ethereum, but the state root is a running hash over all changes, because nothing
//! here proves a single account and a trie over the whole state would make every block cost more.

mod block;
mod chain;
mod query;
mod rpc;
mod transaction;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256, U256};
use counterfoil::chain::{ChainError, Node};
use counterfoil::journal::{Journal, JournalError};
use counterfoil::primitives::Report;
use serde_json::Value;

use chain::{Chain, Event, Genesis};

const PURPOSE: &str = "devchain";
const JOURNAL: &str = "journal";

/// Why a development chain could not be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the line above each variant names its fields")]
pub enum DevChainError {
    /// The journal could not be read or written; another process may be running this chain.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The folder could not be made.
    #[error("{}: {reason}", path.display())]
    Folder { path: PathBuf, reason: String },
    /// A whole frame of the journal is not what this chain writes, or does not follow from the ones before.
    #[error("frame {frame} of the development chain cannot be replayed: {reason}")]
    Replay { frame: usize, reason: String },
}

impl Report for DevChainError {
    fn code(&self) -> &'static str {
        match self {
            DevChainError::Journal(error) => error.code(),
            DevChainError::Folder { .. } => "storage",
            DevChainError::Replay { .. } => "journal-corrupt",
        }
    }

    fn place(&self) -> Option<String> {
        match self {
            DevChainError::Journal(error) => error.place(),
            DevChainError::Folder { path, .. } => Some(path.display().to_string()),
            DevChainError::Replay { frame, .. } => Some(format!("frame {frame}")),
        }
    }
}

/// A development chain; one process at a time runs it.
pub struct DevChain {
    chain: Mutex<Chain>,
    journal: Option<Journal>,
    dropped_bytes: u64,
}

impl DevChain {
    /// Opens the chain in the folder `path`, or begins one there.
    ///
    /// # Errors
    /// [`DevChainError::Folder`] when the folder cannot be made, [`DevChainError::Journal`] when
    /// another process runs this chain or the journal is damaged, [`DevChainError::Replay`] when
    /// its contents contradict themselves.
    pub fn open(path: &Path) -> Result<Self, DevChainError> {
        let folder =
            |error: std::io::Error| DevChainError::Folder { path: path.into(), reason: error.to_string() };
        std::fs::create_dir_all(path).map_err(folder)?;
        let file = path.join(JOURNAL);
        let journal = match Journal::create(&file, PURPOSE) {
            Err(JournalError::Exists { .. }) => None,
            created => Some(created?),
        };
        let (journal, recovered) = match journal {
            Some(journal) => (journal, Default::default()),
            None => Journal::open(&file, PURPOSE)?,
        };
        let mut frames = recovered.frames.iter().enumerate();
        let replay = |frame, reason| DevChainError::Replay { frame, reason };
        let mut chain = match frames.next() {
            Some((_, payload)) => Chain::new(Genesis::decode(payload).map_err(|reason| replay(0, reason))?),
            None => {
                let genesis = begin();
                journal.append(&genesis.encode())?;
                journal.flush()?;
                Chain::new(genesis)
            }
        };
        for (frame, payload) in frames {
            let event = Event::decode(payload).map_err(|reason| replay(frame, reason))?;
            let change = chain.prepare(&event).map_err(|error| replay(frame, error.message))?;
            chain.commit(&event, change);
        }
        Ok(Self { chain: Mutex::new(chain), journal: Some(journal), dropped_bytes: recovered.dropped_bytes })
    }

    /// A chain that is gone when it is dropped.
    pub fn in_memory() -> Self {
        let chain = Chain::new(begin());
        Self { chain: Mutex::new(chain), journal: None, dropped_bytes: 0 }
    }

    /// Bytes of an unfinished last frame that were dropped at open.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Where the run ledger lies.
    pub fn contract(&self) -> Address {
        self.lock().genesis().contract
    }

    /// Running hash over everything that ever changed the state.
    pub fn state_root(&self) -> B256 {
        self.lock().state_root()
    }

    /// Answers one JSON-RPC request or a batch of them.
    pub fn handle(&self, request: &str) -> String {
        rpc::handle(self, request)
    }

    /// Checks what shall happen, makes it durable, then lets it happen: in this order, so that
    /// nobody sees a block that a crash could take back.
    fn apply(&self, chain: &mut Chain, event: &Event) -> Result<(), counterfoil::chain::RpcError> {
        let change = chain.prepare(event)?;
        if let Some(journal) = &self.journal {
            let written = journal.append(&event.encode()).and_then(|()| journal.flush());
            written.map_err(|error| rpc::error(rpc::INTERNAL, error.to_string()))?;
        }
        chain.commit(event, change);
        Ok(())
    }

    fn mine(&self, raw: &[u8]) -> Result<B256, counterfoil::chain::RpcError> {
        let mut chain = self.lock();
        let time = unix_time().max(chain.latest().time);
        self.apply(&mut chain, &Event::Transaction { time, raw: raw.to_vec() })?;
        Ok(chain.latest().transaction().hash)
    }

    fn set_balance(&self, account: Address, balance: U256) -> Result<(), counterfoil::chain::RpcError> {
        self.apply(&mut self.lock(), &Event::Balance { account, balance })
    }

    fn lock(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node for DevChain {
    fn call(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        rpc::dispatch(self, method, params).map_err(|error| ChainError::Rpc { method: method.into(), error })
    }
}

/// A genesis that no other chain has.
fn begin() -> Genesis {
    static CHAINS: AtomicU64 = AtomicU64::new(0);
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
    let number = CHAINS.fetch_add(1, Ordering::Relaxed);
    let salt = [&nanoseconds.to_be_bytes()[..], &std::process::id().to_be_bytes(), &number.to_be_bytes()];
    Genesis::new(unix_time(), salt.concat().into())
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
