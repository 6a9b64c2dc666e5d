//! Gathers a run's evidence from its folder or a bundle, has it verified, and makes bundles.

mod export;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commit::Entry;
use crate::evidence::{AnchorRecord, Bundle, FrameError, Log};
use crate::files::{self, FileError};
use crate::journal::JournalError;
use crate::keys::KeyFolder;
use crate::ledger::{LedgerError, RunFolder};
use crate::primitives::Digest;
use crate::verify::{
    Comparison, Confirmation, Contents, Edge, Judgement, Verdict, bundle_object_root, compare, edge,
    recipe_state,
};

pub use export::Selection;

/// Everything that lies in a run folder or a bundle, read once and not believed.
pub struct Record {
    path: PathBuf,
    place: Place,
    contents: Contents,
}

enum Place {
    Folder(RunFolder),
    Bundle(Bundle),
}

impl Record {
    /// Reads a run folder or a bundle.
    ///
    /// Damage that a change of bytes can cause (a journal that does not parse, a file that is no
    /// record) is kept and becomes a broken edge of the verdict; only what keeps the evidence from
    /// being read at all is an error.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when there is no run, [`LedgerError::Bundle`], and what the operating
    /// system reports.
    pub fn load(path: &Path) -> Result<Record, LedgerError> {
        let (place, contents) = match path.is_file() {
            true => {
                let opened = files::open(path).map_err(|error| match error {
                    FileError::Unreadable(error) => LedgerError::from(error),
                    other => LedgerError::NotFound { path: other.to_string() },
                });
                let (file, size) = opened?;
                let bundle = Bundle::open(Arc::new(file), size)?;
                let contents = Contents::of_bundle(&bundle)?;
                (Place::Bundle(bundle), contents)
            }
            false => {
                let folder = RunFolder::open(path)?;
                let contents = gather(&folder)?;
                (Place::Folder(folder), contents)
            }
        };
        Ok(Record { path: path.to_path_buf(), place, contents })
    }

    /// The folder or bundle.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was found there.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The lanes found.
    pub fn logs(&self) -> &[Log] {
        &self.contents.logs
    }

    /// The anchor records found.
    pub fn anchors(&self) -> &[(String, AnchorRecord)] {
        &self.contents.anchors
    }

    /// The digest that a verifier pins for this recipe; none when the run has none.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] when a file's name cannot name an entry.
    pub fn recipe_digest(&self) -> Result<Option<Digest>, LedgerError> {
        let state = recipe_state(&self.contents.recipe)
            .map_err(|error| LedgerError::Damaged { place: "recipe".into(), detail: error.to_string() })?;
        Ok(state.map(|state| state.commitment().digest(&Digest::ZERO)))
    }

    /// The stored bytes of a tensor, if they are the tensor's; none when they are missing.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] when something else lies there.
    pub fn object(&self, tensor: &Entry) -> Result<Option<Vec<u8>>, LedgerError> {
        match &self.place {
            Place::Folder(folder) => folder.object(tensor),
            Place::Bundle(bundle) => match bundle_object_root(bundle, tensor) {
                Some(root) if root != tensor.root() => Err(LedgerError::Damaged {
                    place: format!("object {}", tensor.root()),
                    detail: format!("its bytes have the root {root}"),
                }),
                _ => Ok(bundle.object(&tensor.root(), tensor.size())?),
            },
        }
    }

    /// Notes that the receipts of this record may leave the device: those of lanes that are written here
    /// are durable on return, and no older copy of them is ever continued. A bundle has nothing to note.
    ///
    /// # Errors
    /// [`LedgerError::Key`], [`LedgerError::Journal`].
    pub fn release(&self, keys: &KeyFolder) -> Result<(), LedgerError> {
        let Place::Folder(folder) = &self.place else { return Ok(()) };
        self.contents.logs.iter().try_for_each(|log| folder.release(log, keys))
    }

    fn object_root(&self, tensor: &Entry) -> Option<Digest> {
        match &self.place {
            Place::Folder(folder) => folder.object_root(tensor),
            Place::Bundle(bundle) => bundle_object_root(bundle, tensor),
        }
    }

    /// Checks everything and draws the verdict. `confirmation` asks the chain that the verifier
    /// chose; without one no anchor is confirmed.
    pub fn verify(&self, judgement: &Judgement, confirmation: &Confirmation<'_>) -> Verdict {
        let object = |tensor: &Entry| self.object(tensor).ok().flatten();
        self.contents.verify(judgement, confirmation, &|tensor| self.object_root(tensor), &object)
    }

    /// The first difference between this record and another one of what should be the same training.
    /// Signatures are not checked, which [`Record::verify`] does.
    ///
    /// # Errors
    /// [`FrameError`] when a receipt cannot be read again.
    pub fn diff(&self, other: &Record) -> Result<Comparison, FrameError> {
        let records = [self, other];
        compare(records.map(Record::contents), &|side, tensor| {
            records[side].object(tensor).map_err(|error| error.to_string())
        })
    }
}

/// Everything that lies in a run folder.
fn gather(folder: &RunFolder) -> Result<Contents, LedgerError> {
    let mut contents = Contents { specification: folder.specification()?, ..Contents::default() };
    let damage = &mut contents.damage;
    let mut keep = |error: LedgerError| as_damage(error).map(|edge| damage.push(edge));
    let lanes = folder.lanes();
    for (worker, lane) in lanes.or_else(|error| keep(error).map(|()| Vec::new()))? {
        match folder.log(worker, lane) {
            Ok(log) => contents.logs.push(log),
            Err(error) => keep(error)?,
        }
    }
    contents.anchors = folder.anchors().or_else(|error| keep(error).map(|()| Vec::new()))?;
    contents.recipe = folder.recipe().or_else(|error| keep(error).map(|()| Default::default()))?;
    Ok(contents)
}

/// Damage of the bytes as an edge; what else went wrong stays an error.
fn as_damage(error: LedgerError) -> Result<Edge, LedgerError> {
    Ok(match error {
        LedgerError::Damaged { place, detail } => edge(&place, detail),
        LedgerError::Journal(JournalError::Corrupt { path, offset, detail }) => {
            edge(&format!("{} at byte {offset}", path.display()), detail)
        }
        LedgerError::Frame(error) => edge("ledger", error),
        other => return Err(other),
    })
}
