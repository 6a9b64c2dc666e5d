//! Two records of what should be one training: the first receipt, field, tensor and element that differ.
//!
//! Leaves of two runs differ everywhere (nonces, times, blinds), so what is compared is what the receipts
//! open. A lie need not propagate: each receipt is looked at, which is cheap, because openings hold roots and no
//! tensor is read but the one that differs.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use super::Contents;
use super::element::{Element, first_element, value_text};
use crate::commit::{Content, Entry};
use crate::evidence::{FrameError, Log, Shown};
use crate::primitives::Digest;
use crate::receipt::schema::{AGGREGATION, CHECKPOINT, JOIN, Kind, Meaning, RESUME, ROUND, STEP};
use crate::receipt::{Body, Receipt};

/// The flag of a step whose optimiser changed nothing; the others speak of the recorder.
const SKIPPED: u64 = 1;
/// What is said of the two records.
const NAMES: [&str; 2] = ["the first record", "the second record"];
/// Most unreadable parts of a record that are named.
const MAX_DAMAGE: usize = 5;

/// The bytes that the first or second record stores for a tensor, none without any; why they are not the tensor's.
pub type Objects<'a> = dyn Fn(usize, &Entry) -> Result<Option<Vec<u8>>, String> + 'a;

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Comparison {
    /// The first difference; none when all that could be compared is equal.
    pub first: Option<Difference>,
    /// Steps that both records show and that were compared.
    pub steps: u64,
    /// Fields that were compared.
    pub fields: u64,
    /// What could not be compared, and why.
    pub gaps: Vec<String>,
}

/// Where two records differ.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// `<worker>/<lane>`; of both records where these are not equal.
    pub lane: String,
    /// Number of the step or round.
    pub step: u64,
    /// Kind of the receipt; `lane` when only one record has the lane.
    pub kind: &'static str,
    /// The receipt's field; empty when only one record has the receipt.
    pub field: &'static str,
    /// The tensor's name; empty when the difference is none of a tensor.
    pub tensor: String,
    /// The chunk of the first differing element.
    pub chunk: Option<u64>,
    /// The place of the first differing element.
    pub index: Option<Vec<u64>>,
    /// What the first record holds.
    pub ours: String,
    /// What the second record holds.
    pub theirs: String,
    /// Root of the first record's tensor.
    pub ours_root: Option<Digest>,
    /// Root of the second record's tensor.
    pub theirs_root: Option<Digest>,
    /// See [`Element::ulps`].
    pub ulps: Option<u64>,
    /// Elements that differ.
    pub differing: Option<u64>,
    /// Fields of this receipt that come before and are equal; `state` when the parameters of the step before are.
    pub equal: Vec<&'static str>,
    /// What differs in the environments; none where one of them is not opened.
    pub environment: Option<BTreeMap<String, [String; 2]>>,
    /// Openings of these two receipts that nobody signed.
    pub notes: Vec<String>,
}

/// The place of a receipt in a lane: 0 and the step, or 1 and the round; then 0 or 1 by the kind.
type Key = (u8, u64, u8);
/// Receipts of a lane in order: their places, and their numbers in the log.
type Line = Vec<(Key, usize)>;
/// A difference, and the place of its receipt and field.
type Found = ((Key, usize), Difference);

/// Fields that are compared, in the order in which data flow. Environments are no results, and of what
/// hangs on a checkpoint the bytes may differ where the meaning does not.
fn compared(kind: u16) -> &'static [&'static str] {
    match kind {
        STEP => &[
            "hyperparameters",
            "batch",
            "samples",
            "randomness",
            "contribution",
            "gradients",
            "metrics",
            "parameters",
            "optimizer",
            "buffers",
            "flags",
        ],
        CHECKPOINT => &["parameters", "optimizer", "buffers", "hyperparameters", "randomness"],
        ROUND => &["received", "metrics", "sent"],
        AGGREGATION => &["output"],
        _ => &[],
    }
}

/// Compares two records, whose signatures are not looked at.
///
/// # Errors
/// [`FrameError`] when a receipt cannot be read again.
pub fn compare(records: [&Contents; 2], objects: &Objects<'_>) -> Result<Comparison, FrameError> {
    let mut walk = Walk { objects, steps: 0, fields: 0, state: None, gaps: BTreeMap::new() };
    let (mut first, mut unread): (Option<Found>, Vec<String>) = (None, Vec::new());
    for (record, name) in records.iter().zip(NAMES) {
        let lines = record.damage.iter().take(MAX_DAMAGE);
        unread.extend(lines.map(|edge| format!("{name}: {}: {}", edge.edge, edge.actual)));
    }
    for pair in pairs(records) {
        match pair {
            [Some(ours), Some(theirs)] => {
                let found = walk.lane([ours, theirs], first.as_ref().map(|(place, _)| place.0))?;
                // Of lanes that differ at one place, the first one counts.
                first = match (first, found) {
                    (Some(known), Some(new)) if new.0 < known.0 => Some(new),
                    (known, new) => known.or(new),
                };
            }
            [ours, theirs] => {
                let lane = ours.or(theirs).map(lane_name).unwrap_or_default();
                let lacking = usize::from(ours.is_some());
                if records[lacking].damage.is_empty() {
                    let held = |log: Option<&Log>| if log.is_some() { "recorded" } else { "no such lane" };
                    let found = Difference::of_receipt(lane, "lane", 0, [held(ours), held(theirs)]);
                    // More or fewer workers are why what follows differs.
                    first = first.filter(|(_, known)| known.kind == "lane").or(Some((((0, 0, 0), 0), found)));
                } else {
                    unread.push(format!("lane {lane}: {} cannot be read", NAMES[lacking]));
                }
            }
        }
    }
    for ((kind, what, why), count) in &walk.gaps {
        let plural = if *count == 1 { "" } else { "s" };
        unread.push(match *what {
            "" => format!("{count} {kind}{plural}: {why}"),
            what => format!("{what} of {count} {kind}{plural}: {why}"),
        });
    }
    let first = first.map(|(_, difference)| difference);
    Ok(Comparison { first, steps: walk.steps, fields: walk.fields, gaps: unread })
}

/// Lanes of one worker and number belong together; the others by number, rank and order.
fn pairs<'a>(records: [&'a Contents; 2]) -> Vec<[Option<&'a Log>; 2]> {
    let [ours, theirs] = records.map(|record| &record.logs);
    let mut known: BTreeMap<_, &Log> = theirs.iter().map(|log| ((log.worker, log.lane), log)).collect();
    let (mut found, mut alone) = (Vec::new(), Vec::new());
    for log in ours {
        match known.remove(&(log.worker, log.lane)) {
            Some(other) => found.push([Some(log), Some(other)]),
            None => alone.push(log),
        }
    }
    let by_rank = |logs: Vec<&'a Log>| {
        let mut logs: Vec<_> = logs.into_iter().map(|log| (log.lane, rank(log), log)).collect();
        logs.sort_by_key(|(lane, rank, _)| (*lane, *rank));
        logs
    };
    let mut others: BTreeMap<u32, VecDeque<&Log>> = BTreeMap::new();
    for (lane, _, log) in by_rank(known.into_values().collect()) {
        others.entry(lane).or_default().push_back(log);
    }
    for (lane, _, log) in by_rank(alone) {
        found.push([Some(log), others.get_mut(&lane).and_then(VecDeque::pop_front)]);
    }
    found.extend(others.into_values().flatten().map(|log| [None, Some(log)]));
    found
}

/// The rank that the lane's join receipt states.
fn rank(log: &Log) -> u64 {
    let joins = log.receipts().take(2).flatten().filter(|receipt| receipt.kind == JOIN);
    joins.filter_map(|receipt| decoded(&receipt)).map(|body| body.unsigned("rank")).next().unwrap_or(u64::MAX)
}

fn lane_name(log: &Log) -> String {
    format!("{:#x}/{}", log.worker, log.lane)
}

fn decoded(receipt: &Receipt) -> Option<Body> {
    Body::decode(Kind::from_number(receipt.kind)?, &receipt.body).ok()
}

/// The receipts that are compared, by their places, without those that a resume went back behind.
fn lineage(log: &Log) -> Result<Line, FrameError> {
    let (mut steps, mut rounds): (Line, Line) = (Vec::new(), Vec::new());
    for (index, receipt) in log.receipts().enumerate() {
        let receipt = receipt?;
        let Some(body) = decoded(&receipt) else { continue };
        let (track, key) = match receipt.kind {
            STEP => (&mut steps, (0, body.unsigned("step"), 0)),
            CHECKPOINT => (&mut steps, (0, body.unsigned("step"), 1)),
            ROUND => (&mut rounds, (1, body.unsigned("round"), 0)),
            AGGREGATION => (&mut rounds, (1, body.unsigned("round"), 1)),
            RESUME => {
                let step = body.unsigned("step");
                while steps.last().is_some_and(|((_, number, _), _)| *number > step) {
                    steps.pop();
                }
                continue;
            }
            _ => continue,
        };
        // The checkpoint behind a resume says again what one before it said.
        if track.last().is_none_or(|(last, _)| *last < key) {
            track.push((key, index));
        }
    }
    steps.append(&mut rounds);
    Ok(steps)
}

/// What a receipt opens of one field.
struct Plain {
    /// Sorted by name.
    entries: Vec<Entry>,
    /// Bytes of the dense ones in order, if they were kept.
    values: Option<Vec<Vec<u8>>>,
    /// Whether these are all entries of the field.
    is_whole: bool,
}

impl Plain {
    fn new(log: &Log, shown: &Shown, index: usize, digest: &Digest) -> Result<Option<Plain>, &'static str> {
        if let Some(field) = shown.fields.iter().find(|field| usize::from(field.index) == index) {
            let opened = log.open_unsigned(field).map_err(|_| "an opening cannot be read")?;
            let entries = opened.state.entries().to_vec();
            return Ok(Some(Plain { entries, values: opened.values, is_whole: true }));
        }
        let mut entries = BTreeMap::new();
        for part in shown.parts.iter().filter(|part| usize::from(part.index) == index) {
            match part.opening.verify(digest, &part.blind) {
                Ok(entry) => entries.extend(entry.map(|entry| (entry.name.clone(), entry))),
                Err(_) => return Err("the opening of a tensor is not the signed one"),
            }
        }
        let entries: Vec<Entry> = entries.into_values().collect();
        Ok((!entries.is_empty()).then_some(Plain { entries, values: None, is_whole: false }))
    }

    fn value(&self, name: &str) -> Option<&[u8]> {
        let dense = self.entries.iter().filter(|entry| entry.is_dense());
        let (_, bytes) = dense.zip(self.values.as_ref()?).find(|(entry, _)| entry.name == name)?;
        Some(bytes)
    }
}

/// One name under which two records hold different things.
type Entries<'a> = [Option<&'a Entry>; 2];

/// The first tensor that differs, and whether one could not be compared.
fn first_entry<'a>([ours, theirs]: [&'a Plain; 2]) -> (Option<Entries<'a>>, bool) {
    let (mut our, mut their, mut is_gap) =
        (ours.entries.iter().peekable(), theirs.entries.iter().peekable(), false);
    loop {
        let order = match (our.peek(), their.peek()) {
            (None, None) => return (None, is_gap),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.name.as_bytes().cmp(other.name.as_bytes()),
        };
        let one = if order.is_le() { our.next() } else { None };
        let other = if order.is_ge() { their.next() } else { None };
        let is_known = match [one, other] {
            [Some(one), Some(other)] => {
                // Blocks of one division have no root that compares with another one's.
                let in_blocks = one.has_root() && other.has_root() && !(one.is_dense() && other.is_dense());
                !in_blocks || one.measured() != other.measured()
            }
            [one, _] => if one.is_some() { theirs } else { ours }.is_whole,
        };
        match one == other {
            true => {}
            false if is_known => return (Some([one, other]), is_gap),
            false => is_gap = true,
        }
    }
}

/// What stands under a name, in words.
fn described(entry: Option<&Entry>) -> String {
    match entry.map(|entry| &entry.content) {
        None => "no such tensor".into(),
        Some(Content::Absent) => "absent".into(),
        Some(Content::Alias { target }) => format!("the same as {target}"),
        Some(Content::Dense { dtype, shape, .. }) => format!("{dtype} {shape:?}"),
        Some(Content::Sharded { dtype, shape, .. }) => format!("{dtype} {shape:?} in blocks"),
    }
}

fn not_stored(field: &str) -> String {
    let hint = match field {
        "parameters" | "optimizer" | "buffers" => ": attach with checkpoint_every=1",
        "gradients" => ": attach with checkpoint_every=1 and store_gradients=True",
        _ => "",
    };
    format!("its bytes are not stored{hint}")
}

struct Walk<'a> {
    objects: &'a Objects<'a>,
    steps: u64,
    fields: u64,
    /// The last step of this lane behind which both records opened equal parameters.
    state: Option<u64>,
    /// How often a kind of receipt had a field that could not be compared, and why.
    gaps: BTreeMap<(&'static str, &'static str, &'static str), u64>,
}

impl Walk<'_> {
    fn gap(&mut self, kind: &'static str, field: &'static str, why: &'static str) {
        *self.gaps.entry((kind, field, why)).or_default() += 1;
    }

    /// The first difference of one lane that is not behind `limit`, with its place.
    fn lane(&mut self, logs: [&Log; 2], limit: Option<Key>) -> Result<Option<Found>, FrameError> {
        for (log, why) in
            logs.iter().zip(["the first record withholds them", "the second record withholds them"])
        {
            let withheld = log.size() - log.shown() as u64;
            if withheld > 0 {
                *self.gaps.entry(("receipt", "", why)).or_default() += withheld;
            }
        }
        self.state = None;
        let lines = [lineage(logs[0])?, lineage(logs[1])?];
        let names = logs.map(lane_name);
        let lane = if names[0] == names[1] { names[0].clone() } else { names.join(" | ") };
        let mut at = [0, 0];
        loop {
            let next = [0, 1].map(|side| lines[side].get(at[side]).map(|(key, _)| *key));
            let Some(key) = next.into_iter().flatten().min() else { return Ok(None) };
            if limit.is_some_and(|limit| key > limit) {
                return Ok(None);
            }
            let has = next.map(|next| next == Some(key));
            if has == [true, true] {
                let found = self.receipts(logs, [0, 1].map(|side| lines[side][at[side]].1), key)?;
                if let Some((field, mut found)) = found {
                    let known = [0, 1].map(|side| environment(logs[side], &lines[side], key));
                    found.environment = match known {
                        [Some(ours), Some(theirs)] => Some(unequal(ours, theirs)),
                        _ => None,
                    };
                    return Ok(Some(((key, field), Difference { lane, ..found })));
                }
            } else {
                let lacking = usize::from(has[0]);
                let kind = kind_of(key);
                if kind != "checkpoint" && ends_before(logs[lacking], &lines[lacking], key) {
                    let last = lines[lacking].iter().rev().find(|((track, ..), _)| *track == key.0);
                    let last = last.map_or(0, |((_, number, _), _)| *number);
                    let lacks = format!("not recorded: {} is the last", last);
                    let mut held = ["recorded"; 2];
                    held[lacking] = &lacks;
                    let found = Difference::of_receipt(lane, kind, key.1, held);
                    return Ok(Some(((key, 0), found)));
                }
                self.gap(kind, "", "only one record shows them");
            }
            at = [0, 1].map(|side| at[side] + usize::from(has[side]));
        }
    }

    /// The first field of two receipts that differs, and its number.
    fn receipts(
        &mut self,
        logs: [&Log; 2],
        indexes: [usize; 2],
        key: Key,
    ) -> Result<Option<(usize, Difference)>, FrameError> {
        let shown = [logs[0].read(indexes[0])?, logs[1].read(indexes[1])?];
        // A file that is written meanwhile may hold another kind of receipt here by now.
        let body = |shown: &Shown| decoded(&shown.receipt).filter(|body| body.kind().name == kind_of(key));
        let [Some(ours), Some(theirs)] = shown.each_ref().map(body) else { return Ok(None) };
        let bodies = [ours, theirs];
        let kind = bodies[0].kind();
        self.steps += u64::from(kind.number == STEP);
        let follows = kind.number == STEP && self.state.is_some() && self.state == key.1.checked_sub(1);
        let mut equal = if follows { vec!["state"] } else { Vec::new() };
        for (number, name) in compared(kind.number).iter().copied().enumerate() {
            if name == "flags" {
                let skipped = bodies.each_ref().map(|body| body.unsigned(name) & SKIPPED != 0);
                self.fields += 1;
                if skipped[0] != skipped[1] {
                    let held = skipped.map(|skipped| if skipped { "skipped" } else { "made" });
                    let mut found = Difference::of_receipt(String::new(), kind.name, key.1, held);
                    (found.field, found.equal, found.notes) = (name, equal, unsigned(logs, &shown, &bodies));
                    return Ok(Some((number, found)));
                }
                continue;
            }
            let digests = bodies.each_ref().map(|body| body.bytes32(name));
            if digests == [Digest::ZERO; 2] {
                continue;
            }
            if digests.contains(&Digest::ZERO) {
                self.gap(kind.name, name, "only one record commits to them");
                continue;
            }
            let index = kind.fields.iter().position(|field| field.name == name).unwrap_or_default();
            let whole = shown.each_ref().map(|shown| {
                let field = shown.fields.iter().find(|field| usize::from(field.index) == index);
                field.map(|field| (field.layout, &field.content))
            });
            if digests[0] == digests[1] || (whole[0].is_some() && whole[0] == whole[1]) {
                self.fields += 1;
                equal.push(name);
                continue;
            }
            let plain = [0, 1].map(|side| Plain::new(logs[side], &shown[side], index, &digests[side]));
            let plain = match plain {
                [Ok(Some(ours)), Ok(Some(theirs))] => [ours, theirs],
                [Err(why), _] | [_, Err(why)] => {
                    self.gap(kind.name, name, why);
                    continue;
                }
                [Ok(None), Ok(None)] => {
                    self.gap(kind.name, name, "no record opens them");
                    continue;
                }
                _ => {
                    self.gap(kind.name, name, "only one record opens them");
                    continue;
                }
            };
            let (entries, is_gap) = first_entry(plain.each_ref());
            if is_gap {
                self.gap(kind.name, name, "not all tensors are opened as wholes");
            }
            self.fields += 1;
            let Some(entries) = entries else {
                if !is_gap {
                    equal.push(name);
                }
                continue;
            };
            let mut found = self.difference(plain.each_ref(), entries, name);
            (found.step, found.kind, found.equal) = (key.1, kind.name, equal);
            found.notes.extend(unsigned(logs, &shown, &bodies));
            return Ok(Some((number, found)));
        }
        if equal.contains(&"parameters") {
            self.state = Some(key.1);
        }
        Ok(None)
    }

    /// What differs under one name.
    fn difference(&self, plain: [&Plain; 2], entries: Entries<'_>, field: &'static str) -> Difference {
        let words = entries.map(described);
        let tensor = entries[0].or(entries[1]).map(|entry| entry.name.clone()).unwrap_or_default();
        let mut found = Difference::of_receipt(String::new(), "", 0, words.each_ref().map(String::as_str));
        (found.field, found.tensor) = (field, tensor);
        let root = |entry: Option<&Entry>| entry.filter(|entry| entry.has_root()).map(Entry::root);
        (found.ours_root, found.theirs_root) = (root(entries[0]), root(entries[1]));
        let ([Some(ours), Some(theirs)], true) = (entries, words[0] == words[1]) else { return found };
        let bytes = [(0, ours), (1, theirs)].map(|(side, entry)| match plain[side].value(&entry.name) {
            Some(value) => Ok(Some(Cow::from(value))),
            None => (self.objects)(side, entry).map(|bytes| bytes.map(Cow::from)),
        });
        if let ([Ok(Some(our)), Ok(Some(their))], Some((dtype, shape))) = (&bytes, ours.measured()) {
            match first_element(dtype, shape, our, their) {
                Ok(Some(Element { chunk, index, ours, theirs, ulps, differing })) => {
                    (found.chunk, found.index, found.ulps) = (Some(chunk), Some(index), ulps);
                    (found.differing, found.ours, found.theirs) = (Some(differing), ours, theirs);
                }
                Ok(None) => found.notes.push("equal bytes under different roots: an opening is false".into()),
                Err(error) => found.notes.push(format!("what is stored is not the tensor: {error}")),
            }
            return found;
        }
        let [ours, theirs] = bytes.map(|bytes| match bytes {
            Ok(Some(_)) => "its bytes are stored".into(),
            Ok(None) => not_stored(field),
            Err(error) => format!("its bytes are damaged: {error}"),
        });
        (found.ours, found.theirs) = (ours, theirs);
        found
    }
}

impl Difference {
    /// A difference that is none of a tensor.
    fn of_receipt(lane: String, kind: &'static str, step: u64, [ours, theirs]: [&str; 2]) -> Difference {
        Difference {
            lane,
            step,
            kind,
            field: "",
            tensor: String::new(),
            chunk: None,
            index: None,
            ours: ours.into(),
            theirs: theirs.into(),
            ours_root: None,
            theirs_root: None,
            ulps: None,
            differing: None,
            equal: Vec::new(),
            environment: None,
            notes: Vec::new(),
        }
    }
}

fn kind_of((track, _, rank): Key) -> &'static str {
    [["step", "checkpoint"], ["round", "aggregation"]][usize::from(track)][usize::from(rank)]
}

/// Whether a lane ended before this place, and its end is shown.
fn ends_before(log: &Log, line: &[(Key, usize)], key: Key) -> bool {
    let is_shown = log.shown() > 0 && log.sequence(log.shown() - 1) + 1 == log.size();
    is_shown && line.iter().rev().find(|((track, ..), _)| *track == key.0).is_none_or(|(last, _)| *last < key)
}

/// What was not signed as it is opened, of two receipts.
fn unsigned(logs: [&Log; 2], shown: &[Shown; 2], bodies: &[Body; 2]) -> Vec<String> {
    let mut notes = Vec::new();
    for (((log, shown), body), name) in logs.iter().zip(shown).zip(bodies).zip(NAMES) {
        if body.digest() != shown.receipt.digest {
            notes.push(format!("{name}: the receipt's body is not the signed one"));
        }
        for opening in &shown.fields {
            let field = body.kind().fields.get(usize::from(opening.index));
            let Some(field) = field.filter(|field| field.meaning == Meaning::Commitment) else { continue };
            if let Err(error) = log.open(opening, body.bytes32(field.name)) {
                notes.push(format!("{name}: the opening of {} is not the signed one: {error}", field.name));
            }
        }
    }
    notes
}

/// What the last checkpoint up to this place says of the environment, in words; none when none opens it.
fn environment(log: &Log, line: &[(Key, usize)], key: Key) -> Option<BTreeMap<String, String>> {
    let before = line.iter().filter(|(known, _)| *known <= key && kind_of(*known) == "checkpoint");
    before.rev().find_map(|(_, index)| {
        let shown = log.read(*index).ok()?;
        let kind = Kind::from_number(CHECKPOINT)?;
        let index = kind.fields.iter().position(|field| field.name == "environment")?;
        let opening = shown.fields.iter().find(|field| usize::from(field.index) == index)?;
        let opened = log.open_unsigned(opening).ok()?;
        let dense = opened.state.entries().iter().filter(|entry| entry.is_dense());
        let words = |(entry, bytes): (&Entry, &Vec<u8>)| {
            let text = match entry.measured()? {
                (dtype, []) => value_text(dtype, bytes),
                // Words come from whoever made the record, and must not steer a terminal.
                ("U8", [_]) => String::from_utf8_lossy(bytes).escape_debug().to_string(),
                _ => format!("{:#x}", entry.root()),
            };
            Some((entry.name.clone(), text))
        };
        Some(dense.zip(opened.values.as_ref()?).filter_map(words).collect())
    })
}

fn unequal(
    ours: BTreeMap<String, String>,
    theirs: BTreeMap<String, String>,
) -> BTreeMap<String, [String; 2]> {
    let names = ours.keys().chain(theirs.keys());
    let held = |name: &String| [&ours, &theirs].map(|known| known.get(name).map_or("none", |text| text));
    let pairs = names.map(|name| (name.clone(), held(name).map(String::from)));
    pairs.filter(|(_, [ours, theirs])| ours != theirs).collect()
}
