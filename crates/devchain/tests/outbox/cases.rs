//! What happens to single submissions, one cause at a time, on a chain where nothing else goes wrong.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::SolCall;
use counterfoil::chain::outbox::{Outbox, Outcome};
use counterfoil::chain::{ChainError, Client, Networks, Node, Payer, SignedHead, Submitter, Task};
use counterfoil::receipt::{LocalSigner, Signer};
use serde_json::{Value, json};

use crate::common::{ETHER, IRunLedger, anchor_of, head, legacy, registration, signer};
use crate::world::{Faulty, TIP_FLOOR, World};

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;
const NOW: u64 = 1_000_000_000;

/// An account, its outboxes, and the chain.
struct Case {
    key: Arc<LocalSigner>,
    node: Arc<Faulty>,
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        let key = Arc::new(signer(5));
        let mut world = World::new(1, key.address());
        (world.is_faulty, world.is_killing) = (false, false);
        Case { key, node: Arc::new(Faulty(Mutex::new(world))), folder: tempfile::tempdir().unwrap() }
    }

    /// The run ledger, on a chain of which the user's table says this too.
    fn client(&self, limits: Value) -> Client {
        let mut table = json!({"chainId": 31_337, "confirmations": 3, "tipFloor": TIP_FLOOR});
        table.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        std::fs::write(self.folder.path().join("networks.json"), json!([table]).to_string()).unwrap();
        let contract = self.node.world().dev().contract();
        let networks = Networks::load(self.folder.path()).unwrap();
        Client::connect(self.node.clone(), &networks, Some(contract)).unwrap()
    }

    fn outbox(&self, limits: Value) -> Outbox {
        Outbox::open(self.folder.path(), self.client(limits), self.key.clone()).unwrap()
    }

    /// An outbox that has sent the run's registration.
    fn with_registration_sent(&self) -> Outbox {
        let mut outbox = self.outbox(json!({}));
        outbox.submit(self.register(), None).unwrap();
        outbox.advance(NOW).unwrap();
        outbox
    }

    fn account(&self) -> Address {
        self.key.address()
    }

    fn register(&self) -> Task {
        Task::Register(registration(self.account()))
    }

    fn head(&self, size: u64) -> SignedHead {
        head(registration(self.account()).run(), self.account(), size)
    }

    /// A transaction of the account that the outbox does not know.
    fn foreign(&self, nonce: u64, call: &impl SolCall) -> Bytes {
        legacy(self.node.world().dev(), &self.key, nonce, call.abi_encode())
    }

    fn send(&self, raw: &Bytes) {
        self.node.call("eth_sendRawTransaction", json!([raw])).unwrap();
    }

    /// Blocks, each with what waits, and a look after each.
    fn blocks(&self, outbox: &mut Outbox, count: usize) {
        for _ in 0..count {
            self.node.world().mine(true);
            outbox.advance(NOW).unwrap();
        }
    }

    /// Transactions that a block took or the pool holds.
    fn sent(&self) -> usize {
        let world = self.node.world();
        world.mined().count() + world.pool.len()
    }

    /// A call that somebody else's transactions make, in the next block.
    fn registering(&self) -> IRunLedger::registerCall {
        let run = registration(self.account());
        let (owner, flags) = (run.owner, run.flags);
        IRunLedger::registerCall { owner, specification: run.specification, flags, nonce: run.nonce }
    }
}

fn attempts(outbox: &Outbox, number: usize) -> usize {
    outbox.submissions()[number].transactions().count()
}

/// An account without money makes a head for each try, and pays for all of them once it has some.
#[test]
fn of_the_heads_that_wait_the_largest_is_paid_for() {
    let case = Case::new();
    let mut outbox = case.outbox(json!({"feeCap": "1"}));
    outbox.submit(case.register(), None).unwrap();
    for size in 1..=50 {
        outbox.submit(Task::Anchor(case.head(size)), None).unwrap();
        outbox.advance(NOW).unwrap();
        assert_eq!(outbox.open_numbers().count(), 2, "the registration and one head");
    }
    outbox.submit(Task::Anchor(SignedHead { lane: 1, ..case.head(7) }), None).unwrap();
    outbox.advance(NOW).unwrap();
    assert_eq!(outbox.open_numbers().count(), 3, "another log is another log");
    drop(outbox);
    let mut outbox = case.outbox(json!({}));
    outbox.advance(NOW).unwrap();
    case.blocks(&mut outbox, 15);
    assert_eq!(outbox.open_numbers().count(), 0);
    assert_eq!(case.sent(), 3);
    let superseded = outbox.submissions().iter().filter(|each| each.outcome == Some(Outcome::Superseded));
    assert_eq!(superseded.count(), 49);
    assert!(outbox.why(1).ends_with("a larger anchor of the same log stands for it"));
}

/// A head is given up while a block may still take its transaction.
#[test]
fn a_head_that_was_signed_is_waited_for() {
    let case = Case::new();
    let mut outbox = case.with_registration_sent();
    case.blocks(&mut outbox, 3);
    for size in 1..=3 {
        outbox.submit(Task::Anchor(case.head(size)), None).unwrap();
        outbox.advance(NOW).unwrap();
    }
    case.blocks(&mut outbox, 10);
    let ended: Vec<_> = outbox.submissions().iter().map(|each| each.outcome.clone()).collect();
    assert!(matches!(ended[1], Some(Outcome::Final(Some(_)))), "{ended:?}");
    assert_eq!(ended[2], Some(Outcome::Superseded));
    assert!(matches!(ended[3], Some(Outcome::Final(Some(_)))), "{ended:?}");
}

/// A chain that stands still makes every minute an eighth dearer, until the cap is blamed on the chain.
#[test]
fn only_blocks_that_passed_it_over_make_a_transaction_dearer() {
    let case = Case::new();
    let mut outbox = case.outbox(json!({"feeCap": "5000000000"}));
    outbox.submit(case.register(), None).unwrap();
    (0..DAY / MINUTE).for_each(|minute| outbox.advance(NOW + minute * MINUTE).unwrap());
    assert_eq!(attempts(&outbox, 0), 1, "no block came");
    (0..3).for_each(|_| case.node.world().mine(false));
    outbox.advance(NOW + DAY).unwrap();
    assert_eq!(attempts(&outbox, 0), 2, "4.5 gwei in the place of 4");
    (0..3).for_each(|_| case.node.world().mine(false));
    outbox.advance(NOW + DAY + MINUTE - 1).unwrap();
    let why = outbox.why(0);
    assert!(why.contains("was sent and is in no block yet"), "no minute passed: {why}");
    outbox.advance(NOW + DAY + MINUTE).unwrap();
    // The chain asks for no more than before.
    let why = outbox.why(0);
    assert!(why.contains("a replacement pays 5062500000 wei per gas, at most 5000000000"), "{why}");
    assert!(why.contains("wait until a block takes it"), "{why}");
    assert_eq!(attempts(&outbox, 0), 2);
}

/// After a crash, or when a block is taken back, the old bytes are replaced before anybody has them again.
#[test]
fn the_same_bytes_are_sent_before_dearer_ones() {
    let case = Case::new();
    let outbox = case.with_registration_sent();
    drop(outbox);
    case.node.world().pool.clear();
    (0..9).for_each(|_| case.node.world().mine(false));
    let mut outbox = case.outbox(json!({}));
    outbox.advance(NOW + DAY).unwrap();
    assert_eq!((attempts(&outbox, 0), case.node.world().pool.len()), (1, 1), "as it was");
    assert!(outbox.why(0).contains("was sent and is in no block yet"));
    case.node.world().mine(true);
    case.node.world().mine(false);
    case.node.world().mine(false);
    outbox.advance(NOW + DAY).unwrap();
    assert!(outbox.submissions()[0].outcome.is_some());
    case.node.world().reorganise(5);
    case.node.world().pool.clear();
    (0..9).for_each(|_| case.node.world().mine(false));
    outbox.advance(NOW + 2 * DAY).unwrap();
    assert_eq!((attempts(&outbox, 0), case.node.world().pool.len()), (1, 1), "as it was");
}

/// A user is told that the node refuses what it has.
#[test]
fn what_the_node_has_already_was_sent() {
    let case = Case::new();
    let mut outbox = case.outbox(json!({}));
    outbox.submit(case.register(), None).unwrap();
    for seconds in [0, 20, 40] {
        outbox.advance(NOW + seconds).unwrap();
        assert!(outbox.why(0).contains("was sent and is in no block yet"), "{}", outbox.why(0));
    }
}

/// A failure is believed at once, so that the transaction is paid for twice when its block is taken back.
#[test]
fn a_failure_counts_when_its_block_is_deep() {
    let case = Case::new();
    let mut outbox = case.with_registration_sent();
    case.blocks(&mut outbox, 3);
    let registered = case.node.world().mined().next().unwrap().raw.clone();
    outbox.submit(Task::Anchor(case.head(1)), None).unwrap();
    outbox.advance(NOW).unwrap();
    // The registration vanishes, another transaction has its nonce, and so the anchor fails.
    let anchor = case.node.world().pool[&1].raw.clone();
    let other = IRunLedger::setAnchorerCall { run: B256::ZERO, lane: 0, anchorer: case.account() };
    let history = |first: &Bytes| {
        case.node.world().reorganise(20);
        case.node.world().pool.clear();
        case.send(first);
        case.send(&anchor);
        case.node.world().mine(true);
    };
    history(&case.foreign(0, &other));
    outbox.advance(NOW).unwrap();
    let why = outbox.why(1);
    assert!(why.contains("failed in block") && why.contains("1 of 3 blocks deep"), "{why}");
    // It comes back, and what had failed is done.
    history(&registered);
    outbox.advance(NOW).unwrap();
    case.blocks(&mut outbox, 5);
    assert_eq!((attempts(&outbox, 0), attempts(&outbox, 1), case.sent()), (1, 1, 2));
    assert_eq!(outbox.open_numbers().count(), 0);
    // The failure is on the chain for good: it is done again, and why it failed is told.
    history(&case.foreign(0, &other));
    outbox.advance(NOW).unwrap();
    case.blocks(&mut outbox, 2);
    let why = outbox.why(1);
    assert!(why.contains("UnknownRun"), "{why}");
    case.blocks(&mut outbox, 20);
    assert_eq!(outbox.open_numbers().count(), 0);
    assert_eq!((attempts(&outbox, 0), attempts(&outbox, 1), case.sent()), (2, 2, 4));
}

/// The wait never ends, since the text of why changes with every hash and every retry.
#[test]
fn a_new_hash_is_no_progress() {
    let case = Case::new();
    let mut outbox = case.with_registration_sent();
    let (progress, why) = (outbox.progress(), outbox.why(0));
    (0..3).for_each(|_| case.node.world().mine(false));
    outbox.advance(NOW + MINUTE).unwrap();
    assert_ne!(outbox.why(0), why);
    assert_eq!(outbox.progress(), progress);
    for _ in 0..3 {
        let before = outbox.progress();
        case.node.world().mine(true);
        outbox.advance(NOW + MINUTE).unwrap();
        assert_ne!(outbox.progress(), before, "{}", outbox.why(0));
    }
    assert_eq!(outbox.progress(), []);
}

/// A clock that was set back keeps a transaction from being sent again, and the day's money spent.
#[test]
fn a_clock_that_was_ahead_stops_nothing() {
    let case = Case::new();
    let once = json!({"budget": "400000000000000"});
    let mut outbox = case.outbox(once.clone());
    outbox.submit(case.register(), None).unwrap();
    outbox.advance(NOW + 300 * DAY).unwrap();
    case.node.world().pool.clear();
    outbox.advance(NOW).unwrap();
    assert_eq!(case.node.world().pool.len(), 1, "sent again");
    (0..3).for_each(|_| case.node.world().mine(false));
    outbox.advance(NOW + 1).unwrap();
    assert_eq!(attempts(&outbox, 0), 2, "and replaced");
    drop(outbox);
    let mut outbox = case.outbox(once);
    outbox.advance(NOW + 300 * DAY).unwrap();
    case.node.world().mine(true);
    outbox.submit(Task::Anchor(case.head(1)), None).unwrap();
    (0..3).for_each(|_| case.node.world().mine(false));
    outbox.advance(NOW + 300 * DAY).unwrap();
    assert!(outbox.why(1).contains("raise budget"), "{}", outbox.why(1));
    outbox.advance(NOW + 100 * DAY).unwrap();
    assert_eq!(attempts(&outbox, 1), 1, "{}", outbox.why(1));
}

/// Nobody says for which nonce it is that everything waits.
#[test]
fn a_gap_is_named_and_filled() {
    let case = Case::new();
    let other = IRunLedger::setAnchorerCall { run: B256::ZERO, lane: 0, anchorer: case.account() };
    case.send(&case.foreign(0, &other));
    case.node.world().mine(true);
    let mut outbox = case.with_registration_sent();
    case.node.world().reorganise(1);
    case.node.world().pool.retain(|nonce, _| *nonce == 1);
    outbox.advance(NOW + MINUTE).unwrap();
    assert!(outbox.why(0).contains("it waits for the nonce 0, which nothing here has"), "{}", outbox.why(0));
    case.blocks(&mut outbox, 12);
    assert_eq!(outbox.open_numbers().count(), 0);
    assert_eq!((attempts(&outbox, 0), case.sent()), (1, 2));
}

fn submitter<'a>(case: &'a Case, stop: &'a dyn Fn() -> bool) -> Submitter<'a> {
    let payer = Payer::Chosen(case.key.clone());
    Submitter::new(case.client(json!({})), payer, case.folder.path(), stop).unwrap()
}

/// An anchor or a revocation that somebody else has in the newest block is called final, and is taken back.
#[test]
fn what_is_done_counts_when_it_is_deep() {
    let case = Case::new();
    let (run, head) = (registration(case.account()), case.head(1));
    let key = Address::repeat_byte(7);
    case.send(&case.foreign(0, &case.registering()));
    case.node.world().mine(true);
    case.send(&case.foreign(1, &IRunLedger::anchorCall { a: anchor_of(&head, 0) }));
    case.node.world().mine(true);
    // They look once.
    let looks = || {
        let calls = Cell::new(0);
        move || calls.replace(calls.get() + 1) > 1
    };
    let (stop, other) = (looks(), looks());
    let early = submitter(&case, &stop).anchor(&head, &run, None);
    assert!(matches!(early, Err(ChainError::Interrupted)), "{early:?}");
    case.send(&case.foreign(2, &IRunLedger::revokeCall { worker: case.account(), key }));
    case.node.world().mine(true);
    let early = submitter(&case, &other).revoke(case.account(), key);
    assert!(matches!(early, Err(ChainError::Interrupted)), "{early:?}");
    (0..2).for_each(|_| case.node.world().mine(false));
    let other = Case { folder: tempfile::tempdir().unwrap(), ..case };
    let record = submitter(&other, &|| false).anchor(&head, &run, None).unwrap();
    assert_eq!(submitter(&other, &|| false).revoke(other.account(), key).unwrap().block, 3);
    assert_eq!((record.size, other.sent()), (1, 3), "and it costs nothing");
}

/// Whoever presses Ctrl-C pays afterwards.
#[test]
fn nothing_is_written_down_or_signed_for_nobody() {
    let case = Case::new();
    let run = registration(case.account());
    for patience in 0..3 {
        let calls = Cell::new(0);
        let stop = || calls.replace(calls.get() + 1) >= patience;
        let ended = submitter(&case, &stop).anchor(&case.head(1), &run, None);
        assert!(matches!(ended, Err(ChainError::Interrupted)), "{ended:?}");
        let outbox = case.outbox(json!({}));
        assert_eq!((outbox.submissions().len(), case.sent()), (patience, 0));
    }
}

/// What a node that is silent did not hear is forgotten.
#[test]
fn a_silent_node_does_not_keep_a_task_from_being_written_down() {
    struct Silent(Arc<Faulty>, Mutex<bool>);
    impl Node for Silent {
        fn call(&self, method: &str, params: Value) -> Result<Value, ChainError> {
            match *self.1.lock().unwrap() {
                true => Err(ChainError::Transport { method: method.into(), reason: "silence".into() }),
                false => self.0.call(method, params),
            }
        }
    }
    let case = Case::new();
    let node = Arc::new(Silent(case.node.clone(), Mutex::new(false)));
    case.client(json!({}));
    let networks = Networks::load(case.folder.path()).unwrap();
    let contract = case.node.world().dev().contract();
    let client = Client::connect(node.clone(), &networks, Some(contract)).unwrap();
    *node.1.lock().unwrap() = true;
    let payer = Payer::Chosen(case.key.clone());
    let submitter = Submitter::new(client, payer, case.folder.path(), &|| false).unwrap();
    let anchored = submitter.anchor(&case.head(1), &registration(case.account()), None);
    assert!(matches!(&anchored, Err(ChainError::Unfinished { reason }) if reason.ends_with("silence")));
    let revoked = submitter.revoke(case.account(), Address::ZERO);
    assert!(matches!(&revoked, Err(ChainError::Unfinished { reason }) if reason.ends_with("silence")));
    let tasks: Vec<_> =
        case.outbox(json!({})).submissions().iter().map(|each| each.task.to_string()).collect();
    assert_eq!(tasks.len(), 3, "{tasks:?}");
}

fn gift(value: u128) -> Task {
    Task::Call { to: Some(Address::repeat_byte(9)), value, data: Bytes::new(), what: "a gift".into() }
}

/// A second deposit is taken for the first one, or a final one is opened again and nothing is sent.
#[test]
fn two_equal_calls_are_two() {
    let case = Case::new();
    let mut outbox = case.outbox(json!({}));
    let first = outbox.submit(gift(ETHER), None).unwrap();
    let second = outbox.submit(gift(ETHER), None).unwrap();
    outbox.advance(NOW).unwrap();
    case.blocks(&mut outbox, 10);
    let third = outbox.submit(gift(ETHER), None).unwrap();
    outbox.advance(NOW).unwrap();
    case.blocks(&mut outbox, 10);
    assert_eq!((first, second, third, case.sent()), (0, 1, 2, 3));
    let arrived = case.node.world().balance(Address::repeat_byte(9));
    assert_eq!(arrived, alloy_primitives::U256::from(3 * ETHER));
    assert_eq!(outbox.open_numbers().count(), 0);
    assert!(outbox.why(2).starts_with("a gift: final in block"), "{}", outbox.why(2));
}

/// The value counts as a fee: it eats the day's budget, or raises what a transaction may cost.
#[test]
fn a_budget_is_about_fees_and_a_balance_about_all() {
    let case = Case::new();
    let mut outbox = case.outbox(json!({"budget": "400000000000000"}));
    outbox.submit(gift(900 * ETHER), None).unwrap();
    outbox.advance(NOW).unwrap();
    case.blocks(&mut outbox, 5);
    assert_eq!((case.sent(), outbox.open_numbers().count()), (1, 0), "{}", outbox.why(0));
    // A development chain gives at most 1,000 ether to whom it lacks.
    outbox.submit(gift(2000 * ETHER), None).unwrap();
    outbox.advance(NOW).unwrap();
    let why = outbox.why(1);
    assert!(why.contains("it may cost 2000") && why.contains("pay ETH to"), "{why}");
    assert_eq!((outbox.paused(), case.sent()), (Some(1), 1));
}

/// Whoever asks for what the contract refuses waits three minutes for a reason, or gets none.
#[test]
fn a_refused_call_is_given_up_with_its_reason() {
    let case = Case::new();
    let mut outbox = case.outbox(json!({}));
    let contract = case.node.world().dev().contract();
    let data = IRunLedger::anchorCall { a: anchor_of(&case.head(1), 0) }.abi_encode().into();
    let task = Task::Call { to: Some(contract), value: 0, data, what: "RunLedger.anchor".into() };
    outbox.submit(task, None).unwrap();
    // A function that the run ledger has not, and a value that it does not take.
    let data = Bytes::from([1, 2, 3, 4]);
    let task = Task::Call { to: Some(contract), value: 1, data, what: "RunLedger.nothing".into() };
    outbox.submit(task, None).unwrap();
    outbox.advance(NOW).unwrap();
    case.blocks(&mut outbox, 8);
    let why = outbox.why(0);
    assert!(why.starts_with("RunLedger.anchor: failed: the contract refuses: UnknownRun: nobody"), "{why}");
    let why = outbox.why(1);
    assert_eq!(why, "RunLedger.nothing: failed: the contract refuses: it names no reason");
    assert_eq!(case.sent(), 0, "and it costs nothing");
}
