//! One worker's lane as found: where each frame lies, and what is read of it when it is needed.
//!
//! A run of a million steps has more bytes than a verifier has memory, so a log keeps places and
//! reads receipts and openings again from their [`Source`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::frame::{FieldOpening, Frame, FrameError, OpeningFrame, PartOpening, layout_digest, refused};
use super::opened::{Opened, OpeningError};
use super::{Delegation, TreeHead};
use crate::commit::Entry;
use crate::commit::merkle::CompactRange;
use crate::primitives::{Address, Digest};
use crate::receipt::schema::{GENESIS, Kind};
use crate::receipt::{Body, Receipt};

/// Where frames are read from: a file, or memory.
pub trait Source: Send + Sync {
    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// What the operating system reports, also when there are fewer bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

impl Source for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Where a frame's payload lies in its source.
#[derive(Clone, Copy, Debug)]
struct Span {
    offset: u64,
    length: u32,
}

/// Where a receipt lies, and the frames that open it.
#[derive(Clone, Copy, Debug)]
struct Place {
    sequence: u64,
    frame: Span,
    /// Range of [`Log::openings`].
    openings: (u32, u32),
}

/// What stands between receipts.
#[derive(Clone, Debug)]
pub enum Mark {
    /// A tree head.
    Head(TreeHead),
    /// Receipts that are withheld, by the hashes of their leaves.
    Withheld(CompactRange),
}

/// A receipt with the frames that open its fields.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Position in the log.
    pub sequence: u64,
    /// The receipt.
    pub receipt: Receipt,
    /// Fields opened as a whole.
    pub fields: Vec<FieldOpening>,
    /// Single tensors opened.
    pub parts: Vec<PartOpening>,
}

/// One worker's lane, as found.
pub struct Log {
    /// Address in the folder's name.
    pub worker: Address,
    /// Lane in the folder's name.
    pub lane: u32,
    /// Bytes of an unfinished end.
    pub dropped_bytes: u64,
    source: Arc<dyn Source>,
    size: u64,
    places: Vec<Place>,
    openings: Vec<Span>,
    marks: Vec<(u64, Mark)>,
    layouts: HashMap<Digest, Vec<Entry>>,
    /// Layouts of no opening yet.
    unused: HashSet<Digest>,
    /// Openings of no receipt, and repeated layouts.
    unclaimed: usize,
    delegations: Vec<Delegation>,
    /// Openings whose receipt has not come yet.
    pending: Vec<(Digest, Span)>,
    /// Receipts that these openings open as a whole.
    opened: HashSet<Digest>,
}

impl Log {
    /// A log of which nothing was read yet.
    pub fn new(worker: Address, lane: u32, source: Arc<dyn Source>) -> Log {
        Log {
            worker,
            lane,
            dropped_bytes: 0,
            source,
            size: 0,
            places: Vec::new(),
            openings: Vec::new(),
            marks: Vec::new(),
            layouts: HashMap::new(),
            unused: HashSet::new(),
            unclaimed: 0,
            delegations: Vec::new(),
            pending: Vec::new(),
            opened: HashSet::new(),
        }
    }

    /// Collects frames that lie in memory.
    ///
    /// # Errors
    /// [`FrameError`] with the number of the first frame that is none.
    pub fn from_frames(worker: Address, lane: u32, frames: &[Vec<u8>]) -> Result<Log, FrameError> {
        let mut log = Log::new(worker, lane, Arc::new(frames.concat()));
        let mut offset = 0;
        for (number, payload) in frames.iter().enumerate() {
            log.take(offset, payload).map_err(|error| error.at(number))?;
            offset += payload.len() as u64;
        }
        Ok(log)
    }

    /// Takes the next frame, which lies at `offset` of the source.
    ///
    /// # Errors
    /// [`FrameError`] when it is none, or cannot stand here.
    pub fn take(&mut self, offset: u64, payload: &[u8]) -> Result<(), FrameError> {
        let span = Span { offset, length: u32::try_from(payload.len()).unwrap_or(u32::MAX) };
        match Frame::decode(payload)? {
            Frame::Receipt(receipt) => {
                let first = self.openings.len();
                let pending = std::mem::take(&mut self.pending);
                self.opened.clear();
                for (_, span) in pending.iter().filter(|(digest, _)| *digest == receipt.digest) {
                    self.openings.push(*span);
                }
                self.unclaimed += pending.len() - (self.openings.len() - first);
                let openings = (first as u32, self.openings.len() as u32);
                self.places.push(Place { sequence: self.size, frame: span, openings });
                self.size += 1;
            }
            Frame::Withheld(range) => {
                // One run of withheld receipts has one encoding.
                let follows_another =
                    matches!(self.marks.last(), Some((_, Mark::Withheld(last))) if last.size() == self.size);
                if range.begin() != self.size || follows_another {
                    let (begin, size) = (range.begin(), self.size);
                    return Err(refused(format!(
                        "withheld receipts from {begin} on, expected from {size} on and all in one frame"
                    )));
                }
                let begin = self.size;
                self.size = range.size();
                self.marks.push((begin, Mark::Withheld(range)));
            }
            Frame::Head(head) => self.marks.push((self.size, Mark::Head(head))),
            Frame::Layout(entries) => {
                let digest = layout_digest(payload);
                self.unclaimed += usize::from(self.layouts.insert(digest, entries).is_some());
                self.unused.insert(digest);
            }
            Frame::Delegation(delegation) => self.delegations.push(delegation),
            Frame::Opening(OpeningFrame { receipt, fields }) => {
                for field in &fields {
                    self.unused.remove(&field.layout);
                }
                if !self.opened.insert(receipt) {
                    return Err(refused(format!("receipt {receipt} is opened twice")));
                }
                self.pending.push((receipt, span));
            }
            Frame::Part(part) => self.pending.push((part.receipt, span)),
        }
        Ok(())
    }

    /// Receipts of the log, with those that are withheld.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Frames that no receipt needs: what an interrupted write leaves in a journal, and what has no
    /// place in a bundle.
    pub fn unclaimed(&self) -> usize {
        self.unclaimed + self.unused.len() + self.pending.len()
    }

    /// Receipts that are shown.
    pub fn shown(&self) -> usize {
        self.places.len()
    }

    /// Tree heads and withheld receipts, each with the number of receipts before it.
    pub fn marks(&self) -> &[(u64, Mark)] {
        &self.marks
    }

    /// Tree heads in order.
    pub fn heads(&self) -> impl DoubleEndedIterator<Item = &TreeHead> {
        self.marks.iter().filter_map(|(_, mark)| match mark {
            Mark::Head(head) => Some(head),
            Mark::Withheld(_) => None,
        })
    }

    /// Delegations in order.
    pub fn delegations(&self) -> &[Delegation] {
        &self.delegations
    }

    /// The position in the log of the shown receipt with this index.
    pub fn sequence(&self, index: usize) -> u64 {
        self.places[index].sequence
    }

    /// The shown receipt with this index, and what opens it.
    ///
    /// # Errors
    /// [`FrameError`] when it cannot be read again.
    pub fn read(&self, index: usize) -> Result<Shown, FrameError> {
        let (place, receipt) = (self.places[index], self.receipt(index)?);
        let (mut fields, mut parts) = (Vec::new(), Vec::new());
        for span in &self.openings[place.openings.0 as usize..place.openings.1 as usize] {
            match self.frame(*span)? {
                Frame::Opening(opening) => fields = opening.fields,
                Frame::Part(part) => parts.push(part),
                _ => return Err(refused("the file was changed while it was read")),
            }
        }
        Ok(Shown { sequence: place.sequence, receipt, fields, parts })
    }

    fn receipt(&self, index: usize) -> Result<Receipt, FrameError> {
        match self.frame(self.places[index].frame)? {
            Frame::Receipt(receipt) => Ok(receipt),
            _ => Err(refused("the file was changed while it was read")),
        }
    }

    /// All shown receipts in order.
    pub fn receipts(&self) -> impl Iterator<Item = Result<Receipt, FrameError>> {
        (0..self.places.len()).map(|index| self.receipt(index))
    }

    /// The shown receipt at this position of the log.
    ///
    /// # Errors
    /// [`FrameError`] when it cannot be read again.
    pub fn at(&self, sequence: u64) -> Result<Option<Shown>, FrameError> {
        let index = self.places.binary_search_by_key(&sequence, |place| place.sequence);
        index.ok().map(|index| self.read(index)).transpose()
    }

    fn frame(&self, span: Span) -> Result<Frame, FrameError> {
        let mut payload = vec![0; span.length as usize];
        let read = self.source.read_at(span.offset, &mut payload);
        read.map_err(|error| refused(format!("cannot be read again at byte {}: {error}", span.offset)))?;
        Frame::decode(&payload)
    }

    /// The body of the genesis receipt, if this log begins with one.
    pub fn genesis(&self) -> Option<Body> {
        let first = self.at(0).ok()??.receipt;
        Body::decode(Kind::from_number(GENESIS)?, &first.body).ok().filter(|_| first.kind == GENESIS)
    }

    /// The state behind one opened field, which must have the digest that the receipt binds.
    ///
    /// # Errors
    /// [`OpeningError`].
    pub fn open(&self, field: &FieldOpening, digest: Digest) -> Result<Opened, OpeningError> {
        let layout =
            self.layouts.get(&field.layout).ok_or(OpeningError::NoLayout { layout: field.layout })?;
        Opened::new(field, layout, digest)
    }

    /// The state that an opened field speaks of, whatever the receipt binds.
    ///
    /// # Errors
    /// [`OpeningError`].
    pub fn open_unsigned(&self, field: &FieldOpening) -> Result<Opened, OpeningError> {
        let layout =
            self.layouts.get(&field.layout).ok_or(OpeningError::NoLayout { layout: field.layout })?;
        Opened::unsigned(field, layout)
    }

    /// Layouts that this log holds, by their digests.
    pub fn layout(&self, digest: &Digest) -> Option<&[Entry]> {
        self.layouts.get(digest).map(Vec::as_slice)
    }
}
