//! Where outboxes lie, and what their journals say to whoever only reads.

use std::collections::BTreeSet;
use std::path::Path;

use super::record::replay;
use super::{JOURNAL, Outbox, PURPOSE, Submission, damaged};
use crate::chain::{ChainError, Client};
use crate::journal::{JournalError, read};
use crate::primitives::Address;

impl Outbox {
    /// The submissions of every account and chain in `folder`, by the names of their outboxes. Nothing is
    /// locked or asked.
    ///
    /// # Errors
    /// What the disk reports, and [`ChainError::Outbox`] for a damaged one.
    pub fn all(folder: &Path) -> Result<Vec<(String, Vec<Submission>)>, ChainError> {
        let known = names(folder)?.into_iter();
        known.map(|name| Ok((name.clone(), recorded(&folder.join(name))?))).collect()
    }

    /// The accounts that submitted to a chain from here.
    ///
    /// # Errors
    /// What the node or the disk reports.
    pub fn accounts(folder: &Path, client: &Client) -> Result<Vec<Address>, ChainError> {
        let prefix = prefix(client)?;
        let known = names(folder)?.into_iter();
        Ok(known.filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect())
    }

    /// The submissions of an account to a chain, as its journal has them, whoever writes it.
    ///
    /// # Errors
    /// As of [`Outbox::all`].
    pub fn recorded(folder: &Path, client: &Client, account: Address) -> Result<Vec<Submission>, ChainError> {
        recorded(&folder.join(of(client, account)?))
    }
}

/// The name of an account's outbox.
pub(super) fn of(client: &Client, account: Address) -> Result<String, ChainError> {
    Ok(format!("{}{account:#x}", prefix(client)?))
}

/// How the names of a chain's outboxes begin; the account follows. Chains share ids, so the first block tells
/// them apart.
fn prefix(client: &Client) -> Result<String, ChainError> {
    Ok(format!("{}-{:.8}-", client.chain_id(), format!("{:x}", client.genesis()?)))
}

fn recorded(outbox: &Path) -> Result<Vec<Submission>, ChainError> {
    let path = outbox.join(JOURNAL);
    replay(&read(&path, PURPOSE)?.frames).map_err(|detail| damaged(&path, detail))
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
