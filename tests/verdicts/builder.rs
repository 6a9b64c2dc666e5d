//! A small run before and while it is signed. Any word can be changed by whoever has the key.

use crate::built::*;
use counterfoil::commit::merkle::CompactRange;
use counterfoil::commit::{ChunkOpening, Commitment, Entry, State, leaf_hash};
use counterfoil::evidence::{Delegation, FieldOpening, Frame, Openable, OpeningFrame, PartOpening, TreeHead};
use counterfoil::primitives::{Address, Digest, sha256};
use counterfoil::receipt::schema::{DELEGATION, Kind, TREE_HEAD};
use counterfoil::receipt::{Blind, Body, LaneSecret, LocalSigner, Receipt, Signer, Value, run_id};
use counterfoil::verify::{Specification, recipe_state};
use std::collections::BTreeMap;

pub(crate) const OWNER: u8 = 1;

pub(crate) const SESSION: u8 = 2;

pub(crate) const WORKER: u8 = 3;

pub(crate) const STRANGER: u8 = 7;

pub(crate) const MAKER: u8 = 9;

/// Names with values that replace what an honest signer would write.
pub(crate) type Words = Vec<(&'static str, Value)>;

pub(crate) fn key(number: u8) -> LocalSigner {
    LocalSigner::from_bytes(&[number; 32]).unwrap()
}

pub(crate) fn address(number: u8) -> Address {
    key(number).address()
}

/// How a field is shown.
#[derive(Clone)]
pub(crate) enum Form {
    /// Not at all.
    Closed,
    Roots,
    Values,
    /// Single entries, each as a whole or by one chunk.
    Parts(Vec<(usize, Option<u64>)>),
}

/// A committed state and how it is opened.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) entries: Vec<Entry>,
    /// Bytes of the dense entries in order.
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) form: Form,
    /// Whether the digest and whether the entries are blinded.
    pub(crate) is_blinded: [bool; 2],
}

impl Field {
    /// Tensors of bytes, sorted by name.
    pub(crate) fn new(name: &'static str, form: Form, tensors: &[(&str, &[u8])]) -> Field {
        let entry = |(name, bytes): &(&str, &[u8])| {
            Entry::dense(name, "U8", &[bytes.len() as u64], Commitment::of_bytes(bytes).root).unwrap()
        };
        Field {
            name,
            entries: tensors.iter().map(entry).collect(),
            values: tensors.iter().map(|(_, bytes)| bytes.to_vec()).collect(),
            form,
            is_blinded: [true; 2],
        }
    }

    pub(crate) fn public(mut self) -> Field {
        self.is_blinded = [false; 2];
        self
    }

    fn state(&self) -> State {
        State::new(self.entries.clone()).unwrap()
    }

    /// The frames that open this field of a receipt, and the opening that joins the others.
    fn opened(&self, receipt: Digest, index: u8, blind: Blind) -> (Vec<Frame>, Option<FieldOpening>) {
        let (layout, named) = Frame::layout(self.state().entries());
        let content = match &self.form {
            Form::Closed => return (Vec::new(), None),
            Form::Roots => {
                let with_root = self.entries.iter().filter(|entry| entry.has_root());
                Openable::Roots(with_root.flat_map(|entry| entry.root().0).collect())
            }
            Form::Values => Openable::Values(self.values.concat()),
            Form::Parts(parts) => {
                let part = |(entry, chunk): &(usize, Option<u64>)| {
                    let mut opening =
                        self.state().prove(&self.entries[*entry].name, blind.entry_key()).unwrap();
                    opening.chunk = chunk.map(|at| ChunkOpening::new(&self.values[*entry], at).unwrap());
                    Frame::Part(PartOpening { receipt, index, blind: blind.blind, opening })
                };
                return (parts.iter().map(part).collect(), None);
            }
        };
        (vec![layout], Some(FieldOpening { index, blind, layout: named, content }))
    }
}

/// A receipt before it is signed.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) kind: &'static Kind,
    /// The number under which it is filed.
    pub(crate) number: u16,
    pub(crate) words: Words,
    pub(crate) fields: Vec<Field>,
    /// Who signs instead of the worker.
    pub(crate) key: Option<u8>,
}

impl Draft {
    pub(crate) fn new(kind: &'static str, words: &[(&'static str, u64)]) -> Draft {
        let kind = Kind::from_name(kind).unwrap();
        let words = words.iter().map(|(name, number)| (*name, Value::from(*number))).collect();
        Draft { kind, number: kind.number, words, fields: Vec::new(), key: None }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Draft {
        self.words.push((name, value.into()));
        self
    }

    /// With this field, in the place of one of the same name.
    pub(crate) fn field(mut self, field: Field) -> Draft {
        self.fields.retain(|known| known.name != field.name);
        self.fields.push(field);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Draft {
        self.fields.retain(|known| known.name != name);
        self
    }

    /// Signed by another key, under a delegation.
    pub(crate) fn by(mut self, key: u8, delegation: &Body) -> Draft {
        self.key = Some(key);
        self.with("delegation", delegation.digest())
    }

    pub(crate) fn item(self) -> Item {
        Item::Receipt(self)
    }
}

/// What is written to a log next.
#[derive(Clone)]
pub(crate) enum Item {
    Receipt(Draft),
    /// A tree head over what stands before it.
    Head(Words, Option<u8>),
    Delegation(Body, u8),
}

/// One worker's lane before it is signed.
#[derive(Clone)]
pub(crate) struct LogDraft {
    pub(crate) worker: u8,
    pub(crate) lane: u32,
    pub(crate) items: Vec<Item>,
}

/// A run before it is signed; the owner's lane 0 is the first log.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) specification: String,
    pub(crate) recipe: BTreeMap<String, Vec<u8>>,
    pub(crate) logs: Vec<LogDraft>,
    pub(crate) objects: Vec<Vec<u8>>,
}

pub(crate) const FLOOR: &str =
    r#"{"policy":{"checkpoint":2,"gradients":1,"parameters":2},"public":["step.metrics"]}"#;

/// The weights after a step.
pub(crate) fn weights(step: u64) -> Vec<u8> {
    vec![step as u8; 5]
}

pub(crate) fn genesis() -> Item {
    Draft::new("genesis", &[]).item()
}

pub(crate) fn join() -> Item {
    Draft::new("join", &[("role", 1)]).item()
}

pub(crate) fn step(number: u64) -> Draft {
    let gradient = [number as u8, 1];
    let draft = Draft::new("step", &[("step", number)]);
    let draft = draft.field(Field::new("gradients", Form::Roots, &[("w", &gradient)]));
    match number % 2 {
        0 => draft.field(Field::new("parameters", Form::Roots, &[("w", &weights(number))])),
        _ => draft,
    }
}

pub(crate) fn checkpoint(number: u64) -> Draft {
    let parameters = Field::new("parameters", Form::Roots, &[("w", &weights(number))]);
    Draft::new("checkpoint", &[("step", number)]).field(parameters)
}

pub(crate) fn resume(number: u64) -> Draft {
    Draft::new("resume", &[("step", number), ("reason", 1)])
}

pub(crate) fn close(number: u64) -> Draft {
    Draft::new("close", &[("step", number)])
}

pub(crate) fn head() -> Item {
    Item::Head(Vec::new(), None)
}

impl Run {
    /// A run of one log: genesis, join and these items.
    pub(crate) fn of(items: impl IntoIterator<Item = Item>) -> Run {
        let items = [genesis(), join()].into_iter().chain(items).collect();
        Run {
            specification: FLOOR.into(),
            recipe: BTreeMap::new(),
            logs: vec![LogDraft { worker: OWNER, lane: 0, items }],
            objects: Vec::new(),
        }
    }

    /// Steps 1 to 3 with the checkpoint of the second one, closed.
    pub(crate) fn short() -> Run {
        let steps = [step(1), step(2), checkpoint(2), step(3), close(3)];
        let mut run = Run::of(steps.map(Draft::item));
        run.objects.push(weights(2));
        run
    }

    /// One of everything that a bundle can hold, and little more: a recipe, a delegation, openings
    /// by roots, by values and of single tensors, a head and an object.
    pub(crate) fn complete() -> Run {
        let mut run = Run::of([]);
        run.specification = r#"{"policy":{"parameters":1},"public":["step.metrics"]}"#.into();
        run.recipe.insert("code/recipe.py".into(), b"step = 1\n".to_vec());
        let allowed = run.delegation(OWNER, 0, &[("firstSequence", 2), ("lastSequence", 2)]);
        let long: Vec<u8> = (0..1050u32).map(|number| number as u8).collect();
        let parts = Form::Parts(vec![(0, Some(1)), (1, None)]);
        let gradients = Field::new("gradients", parts, &[("b", &long), ("w", &[2, 1])]);
        let metrics = Field::new("metrics", Form::Values, &[("loss", &[1, 2, 3, 4])]).public();
        let parameters = Field::new("parameters", Form::Roots, &[("w", &weights(1))]);
        let first = step(1).field(gradients).field(metrics).field(parameters);
        run.items().insert(0, Item::Delegation(allowed.clone(), OWNER));
        run.items().extend([first.by(SESSION, &allowed).item(), Item::Head(Vec::new(), Some(SESSION))]);
        run.objects.push(vec![2, 1]);
        run
    }

    pub(crate) fn items(&mut self) -> &mut Vec<Item> {
        &mut self.logs[0].items
    }

    /// Adds another log, of a worker that joins.
    pub(crate) fn and(mut self, worker: u8, lane: u32, items: impl IntoIterator<Item = Item>) -> Run {
        let items = [join()].into_iter().chain(items).collect();
        self.logs.push(LogDraft { worker, lane, items });
        self
    }

    pub(crate) fn id(&self) -> Digest {
        run_id(address(OWNER), sha256(&[self.specification.as_bytes()]), 0, Digest::repeat_byte(5))
    }

    /// Allows the session key everything, but for these words.
    pub(crate) fn delegation(&self, worker: u8, lane: u32, words: &[(&'static str, u64)]) -> Body {
        let mut values: Words = vec![
            ("schema", 1.into()),
            ("run", self.id().into()),
            ("worker", address(worker).into()),
            ("lane", u64::from(lane).into()),
            ("key", address(SESSION).into()),
            ("kinds", 0x1ed.into()),
            ("firstSequence", 0.into()),
            ("lastSequence", u64::MAX.into()),
        ];
        values.extend(words.iter().map(|(name, number)| (*name, Value::from(*number))));
        Body::new(&DELEGATION, &values).unwrap()
    }

    /// Signs everything in order.
    pub(crate) fn build(&self) -> Built {
        let mut logs: Vec<BuiltLog> = Vec::new();
        for draft in &self.logs {
            let genesis = logs.first().and_then(|log| log.receipts().next()).map(|first| first.digest);
            logs.push(self.sign(draft, genesis.unwrap_or_default()));
        }
        Built {
            run: self.id(),
            specification: self.specification.clone().into_bytes(),
            recipe: self.recipe.clone(),
            logs,
            objects: self.objects.clone(),
            anchors: Vec::new(),
        }
    }

    fn genesis_words(&self) -> Words {
        let specification = Specification::parse(self.specification.as_bytes()).unwrap_or_default();
        let recipe = recipe_state(&self.recipe).unwrap();
        let recipe = recipe.map_or(Digest::ZERO, |state| state.commitment().digest(&Digest::ZERO));
        vec![
            ("owner", address(OWNER).into()),
            ("specification", sha256(&[self.specification.as_bytes()]).into()),
            ("nonce", Digest::repeat_byte(5).into()),
            ("minimumSchema", 1.into()),
            ("recipe", recipe.into()),
            ("policy", specification.floor().digest().into()),
        ]
    }

    fn sign(&self, log: &LogDraft, genesis: Digest) -> BuiltLog {
        let worker = address(log.worker);
        let secret = LaneSecret::new([log.worker ^ 0x80; 32]);
        let is_owners = (log.worker, log.lane) == (OWNER, 0);
        let mut previous = if is_owners { Digest::ZERO } else { genesis };
        let (mut tree, mut last_head) = (<CompactRange>::default(), Digest::ZERO);
        let mut frames: Vec<Frame> = Vec::new();
        let common: Words = vec![
            ("schema", 1.into()),
            ("run", self.id().into()),
            ("worker", worker.into()),
            ("lane", u64::from(log.lane).into()),
        ];
        for item in &log.items {
            match item {
                Item::Delegation(body, by) => {
                    let signature = key(*by).sign_message(body).unwrap();
                    frames.push(Frame::Delegation(Delegation { body: body.clone(), signature }));
                }
                Item::Head(words, by) => {
                    let mut values = common.clone();
                    values.extend([("size", tree.size().into()), ("root", tree.root().into())]);
                    values.push(("previousHead", last_head.into()));
                    values.extend(words.clone());
                    let body = Body::new(&TREE_HEAD, &values).unwrap();
                    last_head = body.digest();
                    let signature = key(by.unwrap_or(log.worker)).sign_message(&body).unwrap();
                    frames.push(Frame::Head(TreeHead { body, signature }));
                }
                Item::Receipt(draft) => {
                    let mut values = common.clone();
                    values.extend([("sequence", tree.size().into()), ("previous", previous.into())]);
                    if draft.kind.name == "genesis" {
                        values.extend(self.genesis_words());
                    }
                    let mut opened = Vec::new();
                    for field in &draft.fields {
                        let fields = draft.kind.fields;
                        let index = fields.iter().position(|known| known.name == field.name).unwrap();
                        let lane = (self.id(), worker, log.lane);
                        let derived = secret.blind(lane, tree.size(), draft.kind, &fields[index]);
                        let keep = |kept: bool, part: Digest| if kept { part } else { Digest::ZERO };
                        let blind = Blind {
                            blind: keep(field.is_blinded[0], derived.blind),
                            entry_key: keep(field.is_blinded[1], derived.entry_key),
                        };
                        let state = field.state();
                        let commitment =
                            blind.entry_key().map_or(state.commitment(), |key| state.blinded(key));
                        values.push((field.name, commitment.digest(&blind.blind).into()));
                        opened.push((index as u8, field, blind));
                    }
                    values.extend(draft.words.clone());
                    let body = Body::new(draft.kind, &values).unwrap();
                    let digest = body.digest();
                    opened.sort_by_key(|(index, ..)| *index);
                    let (mut fields, mut parts) = (Vec::new(), Vec::new());
                    for (index, field, blind) in opened {
                        let (others, opening) = field.opened(digest, index, blind);
                        for frame in others {
                            match frame {
                                Frame::Layout(_) if frames.contains(&frame) => {}
                                Frame::Layout(_) => frames.push(frame),
                                part => parts.push(part),
                            }
                        }
                        fields.extend(opening);
                    }
                    if !fields.is_empty() {
                        frames.push(Frame::Opening(OpeningFrame { receipt: digest, fields }));
                    }
                    frames.extend(parts);
                    let signature = key(draft.key.unwrap_or(log.worker)).sign(digest).unwrap();
                    let receipt = Receipt { kind: draft.number, digest, signature, body: body.encode() };
                    previous = digest;
                    tree.push(leaf_hash(&receipt.leaf()));
                    frames.push(Frame::Receipt(receipt));
                }
            }
        }
        BuiltLog { worker, lane: log.lane, frames }
    }
}
