//! The one table of receipt kinds. Type strings, encodings, Python, JSON and contracts follow it.

use std::sync::LazyLock;

use crate::primitives::{Digest, keccak256};

/// Version of the header and of every type below.
pub const SCHEMA_VERSION: u16 = 1;

/// The static EIP-712 type of a field; each is one 32-byte word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordType {
    /// `uint16`, `uint32` or `uint64`, by its number of bits.
    Unsigned(u16),
    /// `address`.
    Address,
    /// `bytes32`.
    Bytes32,
    /// `string` that is always this text, so that a wallet shows its owner what is being signed. Its
    /// word is the text's Keccak-256, as EIP-712 encodes strings.
    Notice(&'static str),
}

/// What a field's word means to a verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A number, an address or a digest that is always public.
    Public,
    /// The digest of a state commitment, blinded unless the specification lists it as public.
    Commitment,
}

/// One field of a receipt type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in the EIP-712 type.
    pub name: &'static str,
    /// Type of its word.
    pub word: WordType,
    /// Whether it holds a commitment.
    pub meaning: Meaning,
}

/// One row: a kind of receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Number in journals and contracts, never reused.
    pub number: u16,
    /// Name in user-facing text.
    pub name: &'static str,
    /// EIP-712 type name, with its version.
    pub type_name: &'static str,
    /// Fields after the header; empty while the kind is only reserved.
    pub fields: &'static [Field],
}

const fn unsigned(name: &'static str, bits: u16) -> Field {
    Field { name, word: WordType::Unsigned(bits), meaning: Meaning::Public }
}
const fn address(name: &'static str) -> Field {
    Field { name, word: WordType::Address, meaning: Meaning::Public }
}
const fn digest(name: &'static str) -> Field {
    Field { name, word: WordType::Bytes32, meaning: Meaning::Public }
}
const fn commitment(name: &'static str) -> Field {
    Field { name, word: WordType::Bytes32, meaning: Meaning::Commitment }
}

/// The fields with which every receipt begins.
pub const HEADER: [Field; 8] = [
    unsigned("schema", 16),
    digest("run"),
    address("worker"),
    unsigned("lane", 32),
    unsigned("sequence", 64),
    digest("previous"),
    digest("delegation"),
    unsigned("time", 64),
];

const fn reserved(number: u16, name: &'static str) -> Kind {
    Kind { number, name, type_name: "", fields: &[] }
}

/// First receipt of a run, by its owner.
pub const GENESIS: u16 = 1;
/// A worker opens a lane.
pub const JOIN: u16 = 2;
/// One optimiser step.
pub const STEP: u16 = 3;
/// What one party of a federation received and sent.
pub const ROUND: u16 = 4;
/// A complete state from which training can continue.
pub const CHECKPOINT: u16 = 5;
/// The lane is written again after it was closed or interrupted.
pub const RESUME: u16 = 6;
/// The lane ends.
pub const CLOSE: u16 = 7;
/// The cadences in force from a later step on.
pub const POLICY: u16 = 8;
/// Pairs of answers, of which one is preferred: a rater's, or those collected of several raters.
pub const PREFERENCE_SET: u16 = 11;
/// What somebody measured of a checkpoint.
pub const EVALUATION: u16 = 12;
/// The checkpoint that the run's owner gives away.
pub const RELEASE: u16 = 13;
/// What a released model answered.
pub const OUTPUT: u16 = 14;
/// What was made of several parties' round receipts.
pub const AGGREGATION: u16 = 15;
/// What came of executing another worker's step again.
pub const REPLAY: u16 = 16;
/// Sketches of a step's gradients.
pub const FINGERPRINT: u16 = 17;
/// The tree head of another log, as its writer gave it.
pub const OBSERVED_HEAD: u16 = 18;

/// Roles in a join receipt: a worker, who trains.
pub const WORKER: u64 = 1;
/// An observer, who writes of what others do.
pub const OBSERVER: u64 = 3;

/// All kinds: those with fields are implemented, the others are reserved names and numbers.
pub const KINDS: [Kind; 20] = [
    Kind {
        number: GENESIS,
        name: "genesis",
        type_name: "GenesisV1",
        fields: &[
            address("owner"),
            digest("specification"),
            unsigned("flags", 64),
            digest("nonce"),
            unsigned("minimumSchema", 16),
            digest("recipe"),
            commitment("dataset"),
            commitment("initialState"),
            commitment("environment"),
            digest("policy"),
            digest("beacon"),
        ],
    },
    Kind {
        number: JOIN,
        name: "join",
        type_name: "JoinV1",
        fields: &[unsigned("role", 16), unsigned("rank", 32), digest("secret")],
    },
    Kind {
        number: STEP,
        name: "step",
        type_name: "StepV1",
        fields: &[
            unsigned("step", 64),
            unsigned("flags", 32),
            commitment("batch"),
            commitment("samples"),
            commitment("contribution"),
            commitment("gradients"),
            commitment("parameters"),
            commitment("optimizer"),
            commitment("buffers"),
            commitment("hyperparameters"),
            commitment("randomness"),
            commitment("environment"),
            commitment("metrics"),
            unsigned("workUnits", 64),
            commitment("extensions"),
        ],
    },
    Kind {
        number: ROUND,
        name: "round",
        type_name: "RoundV1",
        fields: &[
            unsigned("round", 64),
            unsigned("party", 64),
            commitment("received"),
            commitment("sent"),
            commitment("metrics"),
        ],
    },
    Kind {
        number: CHECKPOINT,
        name: "checkpoint",
        type_name: "CheckpointV1",
        fields: &[
            unsigned("step", 64),
            commitment("parameters"),
            commitment("optimizer"),
            commitment("buffers"),
            commitment("hyperparameters"),
            commitment("randomness"),
            commitment("environment"),
            commitment("extensions"),
        ],
    },
    Kind {
        number: RESUME,
        name: "resume",
        type_name: "ResumeV1",
        fields: &[unsigned("step", 64), unsigned("reason", 32), unsigned("droppedBytes", 64)],
    },
    Kind {
        number: CLOSE,
        name: "close",
        type_name: "CloseV1",
        fields: &[
            unsigned("reason", 32),
            unsigned("step", 64),
            unsigned("workUnits", 64),
            commitment("extensions"),
        ],
    },
    Kind {
        number: POLICY,
        name: "policy",
        type_name: "PolicyV1",
        fields: &[
            unsigned("firstStep", 64),
            unsigned("batchEvery", 32),
            unsigned("samplesEvery", 32),
            unsigned("contributionEvery", 32),
            unsigned("gradientsEvery", 32),
            unsigned("parametersEvery", 32),
            unsigned("optimizerEvery", 32),
            unsigned("buffersEvery", 32),
            unsigned("hyperparametersEvery", 32),
            unsigned("randomnessEvery", 32),
            unsigned("environmentEvery", 32),
            unsigned("metricsEvery", 32),
            unsigned("checkpointEvery", 32),
        ],
    },
    reserved(9, "dataset"),
    reserved(10, "transform"),
    Kind {
        number: PREFERENCE_SET,
        name: "preference-set",
        type_name: "PreferenceSetV1",
        fields: &[commitment("pairs"), commitment("sources")],
    },
    Kind {
        number: EVALUATION,
        name: "evaluation",
        type_name: "EvaluationV1",
        fields: &[
            address("evaluatedWorker"),
            unsigned("evaluatedLane", 32),
            unsigned("evaluatedSequence", 64),
            digest("receipt"),
            commitment("heldOut"),
            commitment("metrics"),
        ],
    },
    Kind {
        number: RELEASE,
        name: "release",
        type_name: "ReleaseV1",
        fields: &[
            address("releasedWorker"),
            unsigned("releasedLane", 32),
            unsigned("releasedSequence", 64),
            digest("receipt"),
            commitment("evaluations"),
        ],
    },
    Kind {
        number: OUTPUT,
        name: "output",
        type_name: "OutputV1",
        fields: &[
            address("releaseWorker"),
            unsigned("releaseLane", 32),
            unsigned("releaseSequence", 64),
            digest("receipt"),
            commitment("parameters"),
            commitment("exchange"),
        ],
    },
    Kind {
        number: AGGREGATION,
        name: "aggregation",
        type_name: "AggregationV1",
        fields: &[unsigned("round", 64), commitment("inputs"), commitment("output")],
    },
    Kind {
        number: REPLAY,
        name: "replay",
        type_name: "ReplayV1",
        fields: &[
            address("replayedWorker"),
            unsigned("replayedLane", 32),
            unsigned("replayedSequence", 64),
            digest("receipt"),
            unsigned("outcome", 16),
            digest("beacon"),
            digest("commitment"),
            digest("answer"),
            digest("salt"),
        ],
    },
    Kind {
        number: FINGERPRINT,
        name: "fingerprint",
        type_name: "FingerprintV1",
        fields: &[
            address("fingerprintedWorker"),
            unsigned("fingerprintedLane", 32),
            unsigned("fingerprintedSequence", 64),
            digest("receipt"),
            digest("key"),
            commitment("sketch"),
        ],
    },
    Kind {
        number: OBSERVED_HEAD,
        name: "observed-head",
        type_name: "ObservedHeadV1",
        fields: &[
            address("observedWorker"),
            unsigned("observedLane", 32),
            unsigned("size", 64),
            digest("root"),
        ],
    },
    reserved(19, "delegation"),
    reserved(20, "revocation"),
];

/// The kinds' bits in a delegation: bit n for kind n, bit 0 for tree heads.
pub const TREE_HEADS: u64 = 1;

/// The signed size and root of a ledger: a type of its own, never a leaf of the log.
pub const TREE_HEAD: Kind = Kind {
    number: 0,
    name: "tree-head",
    type_name: "TreeHeadV1",
    fields: &[
        unsigned("schema", 16),
        digest("run"),
        address("worker"),
        unsigned("lane", 32),
        unsigned("size", 64),
        digest("root"),
        digest("previousHead"),
        unsigned("time", 64),
        digest("beacon"),
    ],
};

/// A worker's key allows another one to sign for it: some receipts of one lane, until some time.
pub const DELEGATION: Kind = Kind {
    number: 19,
    name: "delegation",
    type_name: "DelegationV1",
    fields: &[
        Field {
            name: "notice",
            word: WordType::Notice(
                "Allow the session key below to sign Counterfoil training receipts for me, for one lane of one run. \
                 This moves no funds and gives no other permission.",
            ),
            meaning: Meaning::Public,
        },
        unsigned("schema", 16),
        digest("run"),
        address("worker"),
        unsigned("lane", 32),
        address("key"),
        unsigned("kinds", 64),
        unsigned("firstSequence", 64),
        unsigned("lastSequence", 64),
        unsigned("expires", 64),
    ],
};

/// Whoever makes a bundle signs what it contains.
pub const BUNDLE: Kind = Kind {
    number: 0,
    name: "bundle",
    type_name: "BundleV1",
    fields: &[unsigned("schema", 16), digest("run"), digest("manifest")],
};

/// Types that are signed like receipts and are no receipts.
const STATEMENTS: [&Kind; 3] = [&TREE_HEAD, &DELEGATION, &BUNDLE];

impl WordType {
    /// The type's name in Solidity and EIP-712.
    pub fn solidity(self) -> String {
        match self {
            WordType::Unsigned(bits) => format!("uint{bits}"),
            WordType::Address => "address".into(),
            WordType::Bytes32 => "bytes32".into(),
            WordType::Notice(_) => "string".into(),
        }
    }
}

impl Kind {
    /// The implemented kind with this number.
    pub fn from_number(number: u16) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| kind.number == number && !kind.fields.is_empty())
    }

    /// The implemented kind with this name.
    pub fn from_name(name: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| kind.name == name && !kind.fields.is_empty())
    }

    /// The implemented kind, or other statement, with this EIP-712 type name.
    pub fn from_type_name(name: &str) -> Option<&'static Kind> {
        let all = KINDS.iter().chain(STATEMENTS);
        all.filter(|kind| !kind.fields.is_empty()).find(|kind| kind.type_name == name)
    }

    /// All fields of the type: of a receipt the header, and the kind's own.
    pub fn all_fields(&self) -> impl Iterator<Item = &'static Field> + use<> {
        let is_statement = STATEMENTS.iter().any(|statement| statement.type_name == self.type_name);
        let header: &'static [Field] = if is_statement { &[] } else { &HEADER };
        header.iter().chain(self.fields)
    }

    /// `encodeType` of EIP-712.
    pub fn encode_type(&self) -> String {
        let members: Vec<String> =
            self.all_fields().map(|field| format!("{} {}", field.word.solidity(), field.name)).collect();
        format!("{}({})", self.type_name, members.join(","))
    }

    /// `typeHash` of EIP-712.
    pub fn type_hash(&self) -> Digest {
        static HASHES: LazyLock<Vec<(&str, Digest)>> = LazyLock::new(|| {
            let all = KINDS.iter().chain(STATEMENTS);
            all.map(|kind| (kind.type_name, keccak256(kind.encode_type()))).collect()
        });
        let known = HASHES.iter().find(|(type_name, _)| *type_name == self.type_name);
        known.expect("every kind stands in the table").1
    }
}
