//! Bundles: what an owner shows of a run, in one file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::Record;
use crate::commit::merkle::CompactRange;
use crate::commit::{ChunkOpening, Entry, leaf_hash};
use crate::evidence::bundle::{Manifest, Part, PartKind, log_name, object_name};
use crate::evidence::{FieldOpening, Frame, Log, Mark, Opened, OpeningFrame, PartOpening, Shown};
use crate::journal::JournalError;
use crate::keys::KeyFolder;
use crate::ledger::LedgerError;
use crate::primitives::{Address, Digest};
use crate::receipt::schema::{HEADER, Kind, OBSERVED_HEAD};
use crate::receipt::{Body, Signer, Value};
use crate::verify::FROM_CHECKPOINT;

/// What goes into a bundle.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Steps whose receipts and checkpoints are shown; none for all. Receipts of other kinds are
    /// always shown.
    pub steps: Option<BTreeSet<u64>>,
    /// Tensors that are opened, as `<field>/<name>`, and fields that are opened as a whole, as `<field>`; none
    /// for everything that the run opens. With a number, only that chunk of the stored tensor is shown.
    pub tensors: Option<BTreeMap<String, Option<u64>>>,
}

impl Selection {
    fn shows(&self, body: Option<&Body>) -> bool {
        let step = body.filter(|body| ["step", "checkpoint"].contains(&body.kind().name));
        let Some((steps, step)) = self.steps.as_ref().zip(step) else { return true };
        steps.contains(&step.unsigned("step"))
    }
}

/// What the bundle needs besides the logs.
#[derive(Default)]
struct Needed {
    objects: BTreeMap<Digest, Entry>,
    /// Selected tensors that were found.
    tensors: BTreeSet<String>,
}

/// Sizes of the heads that other logs observed, by log.
type Observed = BTreeMap<(Address, u32), BTreeSet<u64>>;

/// Takes the frames of one log.
type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), LedgerError> + 'a;

impl Record {
    /// Writes a bundle of this record, signed by `signer`; a file that is there is replaced.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] when the record cannot be read or a selected tensor is not there,
    /// and what the signer or the disk report.
    pub fn export(
        &self,
        selection: &Selection,
        signer: &dyn Signer,
        keys: &KeyFolder,
        path: &Path,
    ) -> Result<(), LedgerError> {
        self.release(keys)?;
        if let Some(edge) = self.contents.damage.first() {
            return Err(damaged(&edge.edge, format!("{}; nothing was exported", edge.actual)));
        }
        let observed = self.observed(selection)?;
        let mut parts = Vec::new();
        let mut add = |kind, name: &str, bytes: &[u8]| {
            let digest = crate::primitives::sha256(&[bytes]);
            parts.push(Part { kind, name: name.into(), size: bytes.len() as u64, digest });
        };
        add(PartKind::Specification, "", &self.contents.specification);
        for (name, bytes) in &self.contents.recipe {
            add(PartKind::Recipe, name, bytes);
        }
        let mut needed = Needed::default();
        for log in &self.contents.logs {
            let (mut hasher, mut size) = (sha2::Sha256::new(), 0);
            self.write_log(log, selection, &observed, &mut needed, &mut |bytes| {
                hasher.update(bytes);
                size += bytes.len() as u64;
                Ok(())
            })?;
            let digest = Digest::from(<[u8; 32]>::from(hasher.finalize()));
            parts.push(Part { kind: PartKind::Log, name: log_name(log.worker, log.lane), size, digest });
        }
        let missing = |tensors: &BTreeMap<String, _>| {
            tensors.keys().find(|name| !needed.tensors.contains(*name)).cloned()
        };
        if let Some(name) = selection.tensors.as_ref().and_then(missing) {
            return Err(damaged(&name, "the shown receipts open no such tensor, <field>/<name>"));
        }
        let mut objects = Vec::new();
        for (root, entry) in &needed.objects {
            if let Some(bytes) = self.object(entry)? {
                let digest = crate::primitives::sha256(&[&bytes]);
                let (name, size) = (object_name(root), bytes.len() as u64);
                parts.push(Part { kind: PartKind::Object, name, size, digest });
                objects.push(entry);
            }
        }
        let anchors = self.contents.anchors.iter().map(|(name, record)| {
            (name.as_str(), serde_json::to_vec(record).expect("an anchor record is plain data"))
        });
        let anchors: Vec<_> = anchors.collect();
        for (name, bytes) in &anchors {
            let digest = crate::primitives::sha256(&[bytes]);
            parts.push(Part {
                kind: PartKind::Anchor,
                name: (*name).into(),
                size: bytes.len() as u64,
                digest,
            });
        }
        parts.sort_by(|one, next| (one.kind, &one.name).cmp(&(next.kind, &next.name)));
        let run = self.contents.run().ok_or_else(|| damaged("genesis", "the run has no genesis receipt"))?;
        let head = Manifest { run, maker: signer.address(), parts }.sign(signer)?;

        let partial = self.partial_of(path)?;
        let written = self.write(&partial, &head, selection, &observed, &objects, anchors);
        let failed = |error: std::io::Error| LedgerError::from(JournalError::of_file(path, &error));
        let named = written.and_then(|()| std::fs::rename(&partial, path).map_err(failed));
        if named.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        named
    }

    /// A new name beside the bundle's, which must not lie in the run itself.
    fn partial_of(&self, path: &Path) -> Result<PathBuf, LedgerError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: std::io::Error| LedgerError::from(JournalError::of_file(folder, &error));
        let (folder, run) =
            (folder.canonicalize().map_err(failed)?, self.path.canonicalize().map_err(failed)?);
        if folder.starts_with(&run) || path.is_dir() {
            return Err(LedgerError::Exists { path: path.display().to_string() });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let chance = alloy_primitives::hex::encode(&crate::keys::random()?[..8]);
        Ok(folder.join(format!("{name}.{chance}.partial")))
    }

    fn write(
        &self,
        partial: &Path,
        head: &[u8],
        selection: &Selection,
        observed: &Observed,
        objects: &[&Entry],
        mut anchors: Vec<(&str, Vec<u8>)>,
    ) -> Result<(), LedgerError> {
        let failed = |error: std::io::Error| LedgerError::from(JournalError::of_file(partial, &error));
        let mut file = BufWriter::new(File::create_new(partial).map_err(failed)?);
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(failed);
        put(head)?;
        put(&self.contents.specification)?;
        self.contents.recipe.values().try_for_each(|bytes| put(bytes))?;
        for log in &self.contents.logs {
            self.write_log(log, selection, observed, &mut Needed::default(), &mut put)?;
        }
        for entry in objects {
            put(&self.object(entry)?.unwrap_or_default())?;
        }
        anchors.sort();
        anchors.iter().try_for_each(|(_, bytes)| put(bytes))?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)
    }

    fn observed(&self, selection: &Selection) -> Result<Observed, LedgerError> {
        let mut observed = Observed::new();
        let receipts =
            self.contents.logs.iter().filter(|_| selection.steps.is_some()).flat_map(Log::receipts);
        for receipt in receipts {
            let receipt = receipt?;
            let body = Kind::from_number(receipt.kind).filter(|kind| kind.number == OBSERVED_HEAD);
            let Some(body) = body.and_then(|kind| Body::decode(kind, &receipt.body).ok()) else { continue };
            let log = (body.address("observedWorker"), body.unsigned("observedLane") as u32);
            observed.entry(log).or_default().insert(body.unsigned("size"));
        }
        Ok(observed)
    }

    /// The frames of one log as far as the selection shows them.
    fn write_log(
        &self,
        log: &Log,
        selection: &Selection,
        observed: &Observed,
        needed: &mut Needed,
        sink: &mut Sink<'_>,
    ) -> Result<(), LedgerError> {
        let mut put = |frame: Frame| {
            let payload = frame.encode();
            sink(&(payload.len() as u32).to_be_bytes())?;
            sink(&payload)
        };
        log.delegations().iter().try_for_each(|delegation| put(Frame::Delegation(delegation.clone())))?;
        let own = self.contents.anchors.iter().filter(|(_, a)| (a.worker, a.lane) == (log.worker, log.lane));
        let mut named: BTreeSet<u64> = own.map(|(_, anchor)| anchor.size).collect();
        named.extend(observed.get(&(log.worker, log.lane)).into_iter().flatten());
        let last = log.heads().next_back().map(|head| head.body.digest());
        // Each head names the one before, and where nothing is withheld a verifier follows them.
        let is_whole = (0..log.shown()).try_fold(true, |is_whole, index| {
            let is_shown = |shown: Shown| selection.shows(body_of(&shown).as_ref());
            Ok::<_, LedgerError>(is_whole && (selection.steps.is_none() || is_shown(log.read(index)?)))
        })?;
        let mut withheld = CompactRange::default();
        let mut layouts = HashSet::new();
        let mut marks = log.marks().iter().peekable();
        for index in 0..=log.shown() {
            let sequence = if index < log.shown() { log.sequence(index) } else { u64::MAX };
            while let Some((_, mark)) = marks.next_if(|(at, _)| *at <= sequence) {
                match mark {
                    Mark::Withheld(range) => withheld.extend(range.clone()),
                    Mark::Head(head)
                        if is_whole || named.contains(&head.size()) || Some(head.body.digest()) == last =>
                    {
                        flush(&mut withheld, &mut put)?;
                        put(Frame::Head(head.clone()))?;
                    }
                    Mark::Head(_) => {}
                }
            }
            if index == log.shown() {
                break;
            }
            let shown = log.read(index)?;
            let body = body_of(&shown);
            if withheld.count() == 0 {
                withheld = CompactRange::from(sequence);
            }
            if !selection.shows(body.as_ref()) {
                withheld.push(leaf_hash(&shown.receipt.leaf()));
                continue;
            }
            flush(&mut withheld, &mut put)?;
            let is_whole = |field: &&FieldOpening| {
                let Some(tensors) = &selection.tensors else { return true };
                name_of(field, body.as_ref()).is_some_and(|name| tensors.get(name) == Some(&None))
            };
            let fields: Vec<FieldOpening> = shown.fields.iter().filter(is_whole).cloned().collect();
            needed.tensors.extend(fields.iter().filter_map(|f| name_of(f, body.as_ref())).map(str::to_owned));
            self.whole(log, shown.receipt.digest, fields, body.as_ref(), needed, &mut layouts, &mut put)?;
            match (&selection.tensors, &body) {
                (Some(tensors), Some(body)) => self.parts(log, &shown, body, tensors, needed, &mut put)?,
                (Some(_), None) => {}
                (None, _) => shown.parts.iter().try_for_each(|part| put(Frame::Part(part.clone())))?,
            }
            put(Frame::Receipt(shown.receipt))?;
        }
        flush(&mut withheld, &mut put)
    }

    /// Fields of a receipt that are opened as a whole.
    #[allow(clippy::too_many_arguments, reason = "one caller, which has them all at hand")]
    fn whole(
        &self,
        log: &Log,
        receipt: Digest,
        fields: Vec<FieldOpening>,
        body: Option<&Body>,
        needed: &mut Needed,
        layouts: &mut HashSet<Digest>,
        put: &mut impl FnMut(Frame) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let is_continuing = body.is_some_and(|body| {
            let states = fields.iter().filter_map(|field| Some((name_of(field, Some(body))?, field)));
            let extensions = states.filter(|(name, _)| body.kind().name == "step" && *name == "extensions");
            let mut states = extensions.filter_map(|(_, field)| Some(open(log, field, body)?.state));
            states.any(|state| state.entries().iter().any(|entry| entry.name == FROM_CHECKPOINT))
        });
        for field in &fields {
            let layout = log.layout(&field.layout).filter(|_| layouts.insert(field.layout));
            layout.map_or(Ok(()), |layout| put(Frame::Layout(layout.to_vec())))?;
            let Some(opened) = body.and_then(|body| open(log, field, body)) else { continue };
            // What else a step speaks of is stored with no step; a checkpoint may hold the same tensor.
            let name = name_of(field, body).unwrap_or_default();
            let is_stored = is_continuing && ["gradients", "parameters"].contains(&name);
            if (is_stored || body.is_some_and(|body| body.kind().name == "checkpoint"))
                && opened.values.is_none()
            {
                needed.objects.extend(
                    opened.state.entries().iter().filter(|e| e.is_dense()).map(|e| (e.root(), e.clone())),
                );
            }
        }
        match fields.is_empty() {
            true => Ok(()),
            false => put(Frame::Opening(OpeningFrame { receipt, fields })),
        }
    }

    /// Single tensors of a receipt, each without its siblings.
    fn parts(
        &self,
        log: &Log,
        shown: &Shown,
        body: &Body,
        tensors: &BTreeMap<String, Option<u64>>,
        needed: &mut Needed,
        put: &mut impl FnMut(Frame) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let mut fields: Vec<&FieldOpening> = shown.fields.iter().collect();
        fields.sort_by_key(|field| field.index);
        for field in fields {
            let Some(opened) = open(log, field, body) else { continue };
            let Some(name) = name_of(field, Some(body)) else { continue };
            if tensors.get(name) == Some(&None) {
                continue;
            }
            for (position, entry) in opened.state.entries().iter().enumerate() {
                let path = format!("{name}/{}", entry.name);
                let Some(chunk) = tensors.get(&path) else { continue };
                let mut opening = opened
                    .state
                    .prove(&entry.name, field.blind.entry_key())
                    .map_err(|error| damaged(&path, error))?;
                if let Some(chunk) = chunk {
                    // Of most receipts the run keeps roots alone.
                    let Some(bytes) = self.bytes_of(&opened, position)? else { continue };
                    let chunk = ChunkOpening::new(&bytes, *chunk).map_err(|error| damaged(&path, error))?;
                    opening.chunk = Some(chunk);
                } else if entry.is_dense() {
                    needed.objects.insert(entry.root(), entry.clone());
                }
                needed.tensors.insert(path);
                let (receipt, index, blind) = (shown.receipt.digest, field.index, field.blind.blind);
                put(Frame::Part(PartOpening { receipt, index, blind, opening }))?;
            }
        }
        Ok(())
    }

    /// The bytes of an opened state's entry, kept by value or stored.
    fn bytes_of(&self, opened: &Opened, position: usize) -> Result<Option<Vec<u8>>, LedgerError> {
        let entries = opened.state.entries();
        match &opened.values {
            Some(values) => {
                let before = entries[..position].iter().filter(|entry| entry.is_dense()).count();
                Ok(values.get(before).cloned())
            }
            None => self.object(&entries[position]),
        }
    }
}

/// The name of an opened field in its receipt's type.
fn name_of(field: &FieldOpening, body: Option<&Body>) -> Option<&'static str> {
    Some(body?.kind().fields.get(usize::from(field.index))?.name)
}

fn open(log: &Log, field: &FieldOpening, body: &Body) -> Option<Opened> {
    let Value::Digest(digest) = body.fields().nth(HEADER.len() + usize::from(field.index))?.1 else {
        return None;
    };
    log.open(field, digest).ok()
}

fn body_of(shown: &Shown) -> Option<Body> {
    Kind::from_number(shown.receipt.kind).and_then(|kind| Body::decode(kind, &shown.receipt.body).ok())
}

fn flush(
    withheld: &mut CompactRange,
    put: &mut impl FnMut(Frame) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let range = std::mem::take(withheld);
    if range.count() > 0 { put(Frame::Withheld(range)) } else { Ok(()) }
}

fn damaged(place: &str, detail: impl ToString) -> LedgerError {
    LedgerError::Damaged { place: place.into(), detail: detail.to_string() }
}
