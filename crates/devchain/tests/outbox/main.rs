//! Submissions through a node that fails in every way: with eventual service each is done exactly
//! once, no money is lost, and each rule that makes it so is missed when it is off.

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolEvent};
use common::{ETHER, IRunLedger, head, legacy, log_of, registration, signer};
use counterfoil::chain::outbox::{Outbox, Outcome, Rule};
use counterfoil::chain::{Client, DEVELOPMENT_CHAIN, Networks, Node, SignedHead, Task};
use serde_json::json;
use world::{Dice, FAULTS, Faulty, Killed, Sent, TIP_FLOOR, World};

const CONFIRMATIONS: u64 = 10;
/// Seconds between two looks.
const TICK: u64 = 5;
const DAY: u64 = 86_400;
const SUPERSEDED: &str = "a larger head took the place of one";
const ANCHORED: &str = "a head was anchored";
const CALLED: &str = "a call carried a value";

/// Who gets what calls carry, and nothing else.
const PAYEE: Address = Address::repeat_byte(0x77);

/// What went wrong with one schedule.
#[derive(Debug)]
struct Wrong(#[allow(dead_code, reason = "it is printed")] String);

fn tasks(dice: &mut Dice, worker: Address) -> Vec<Task> {
    let run = registration(worker);
    let mut tasks = vec![Task::Register(run)];
    let mut sizes = vec![0; 2 + dice.below(3) as usize];
    for _ in 0..sizes.len() as u64 + 1 + dice.below(3) {
        let lane = dice.below(sizes.len() as u64);
        let size = &mut sizes[lane as usize];
        *size += 1 + dice.below(2);
        tasks.push(Task::Anchor(SignedHead { lane: lane as u32, ..head(run.run(), worker, *size) }));
    }
    // A value that no 64 bits hold, at times.
    for _ in 0..dice.below(3) {
        let (value, what) = (u128::from(1 + dice.below(25)) * ETHER, "a gift".to_owned());
        let call = Task::Call { to: Some(PAYEE), value, data: Bytes::new(), what };
        tasks.insert(1 + dice.below(tasks.len() as u64) as usize, call);
    }
    // Somebody presses the button twice.
    tasks.push(tasks[dice.below(tasks.len() as u64) as usize].clone());
    tasks
}

/// One life of an outbox, from the first task to the last, with the faults that the seed decides.
fn schedule(seed: u64, off: Option<Rule>, fired: &mut BTreeMap<&'static str, u64>) -> Result<(), Wrong> {
    let key = Arc::new(signer(5));
    let account = counterfoil::receipt::Signer::address(&*key);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let node = Arc::new(Faulty(Mutex::new(World::new(dice.next(), account))));
    let is_registered = dice.one_in(3);
    if is_registered {
        let run = registration(account);
        let call = IRunLedger::registerCall {
            owner: run.owner,
            specification: run.specification,
            flags: run.flags,
            nonce: run.nonce,
        };
        let mut world = node.world();
        let raw = legacy(world.dev(), &key, 0, call.abi_encode());
        world.begin_with(&raw);
    }
    let folder = tempfile::tempdir().unwrap();
    let (fee_cap, budget): (u64, u128) = match dice.one_in(4) {
        // Room for some transactions a day at the usual fee, and for one at the highest.
        true => (12_000_000_000, 1_500_000_000_000_000),
        false => (50_000_000_000, u128::MAX / 4),
    };
    let table = json!([{"chainId": 31_337, "confirmations": CONFIRMATIONS, "tipFloor": TIP_FLOOR,
        "feeCap": fee_cap.to_string(), "budget": budget.to_string()}]);
    std::fs::write(folder.path().join("networks.json"), table.to_string()).unwrap();
    let networks = Networks::load(folder.path()).unwrap();
    let contract = node.world().dev().contract();
    let open = || {
        let node: Arc<dyn Node> = node.clone();
        let outbox = (0..200).find_map(|_| {
            let client = Client::connect(node.clone(), &networks, Some(contract)).ok()?;
            // Whoever names a network is told when the node speaks for another.
            let client = (client.chain_id() == DEVELOPMENT_CHAIN).then_some(client)?;
            Outbox::open(folder.path(), client, key.clone()).ok()
        });
        let outbox = outbox.expect("a node that answers once in a while");
        match off {
            Some(rule) => outbox.without(rule),
            None => outbox,
        }
    };
    let patient = |open: &dyn Fn() -> Outbox| {
        node.world().is_killing = false;
        let outbox = open();
        node.world().is_killing = true;
        outbox
    };
    let mut outbox = patient(&open);
    let mut wanted = tasks(&mut dice, account).into_iter().peekable();
    // While a head waits for those before it, the next one takes its place.
    let pace = if dice.one_in(2) { 3 } else { 25 };
    let (mut now, mut spent, mut ticks) = (1_000_000_000, BTreeMap::<u64, u128>::new(), 0);
    let foreign = |dev: &counterfoil_devchain::DevChain, nonce: u64| {
        let call = IRunLedger::setAnchorerCall { run: B256::ZERO, lane: nonce as u32, anchorer: account };
        legacy(dev, &key, nonce, call.abi_encode())
    };
    let mut idle = 0;
    while idle < 2 {
        ticks += 1;
        if ticks > 1500 {
            let why: Vec<_> = (0..outbox.submissions().len()).map(|number| outbox.why(number)).collect();
            return Err(Wrong(format!("never done: {why:?}")));
        }
        let is_idle = wanted.peek().is_none() && outbox.open_numbers().next().is_none();
        // Whatever the last fault undid is noticed by the next look.
        idle = if is_idle { idle + 1 } else { 0 };
        node.world().is_faulty = ticks < 120 && !is_idle;
        if let Some(task) = wanted.next_if(|_| dice.one_in(pace)) {
            outbox.submit(task, None).map_err(|error| Wrong(error.to_string()))?;
        }
        let looked = catch_unwind(AssertUnwindSafe(|| outbox.advance(now)));
        match looked {
            Ok(done) => done.map_err(|error| Wrong(error.to_string()))?,
            Err(payload) if payload.is::<Killed>() => {
                drop(outbox);
                outbox = patient(&open);
            }
            Err(payload) => resume_unwind(payload),
        }
        check_reasons(&outbox)?;
        let paused = outbox.paused().is_some();
        let mut world = node.world();
        if world.leaked > 0 {
            return Err(Wrong("a transaction went to another chain".into()));
        }
        world.tick(&foreign);
        let total: u128 = own(&world).map(|sent| sent.cost).sum();
        if let Some(sent) = own(&world).find(|sent| sent.cap > fee_cap.into()) {
            return Err(Wrong(format!("{} wei per gas were offered, {fee_cap} allowed", sent.cap)));
        }
        spent.insert(now, total);
        let before = spent.range(..=now - DAY).next_back().map_or(0, |(_, total)| *total);
        if total.saturating_sub(before) > budget {
            return Err(Wrong(format!("{total} wei were spent within a day, {} allowed", budget)));
        }
        now += if paused && !world.is_faulty { DAY / 4 } else { TICK };
    }
    let world = node.world();
    for (fault, count) in &world.fired {
        *fired.entry(fault).or_default() += count;
    }
    let hashes: BTreeSet<B256> = world.mined().map(|sent| sent.hash).collect();
    for submission in outbox.submissions() {
        let has_own = submission.transactions().any(|hash| hashes.contains(&hash));
        if has_own && !matches!(submission.outcome, Some(Outcome::Final(Some(_)))) {
            let (task, outcome) = (&submission.task, &submission.outcome);
            return Err(Wrong(format!("{task}: {outcome:?}, and its own transaction is on the chain")));
        }
    }
    let written: BTreeSet<B256> = outbox.submissions().iter().flat_map(|s| s.transactions()).collect();
    if let Some(sent) = own(&world).find(|sent| !written.contains(&sent.hash)) {
        return Err(Wrong(format!("the transaction {} was written down nowhere", sent.hash)));
    }
    for submission in outbox.submissions() {
        let event = match submission.outcome {
            Some(Outcome::Superseded) => SUPERSEDED,
            _ => ANCHORED,
        };
        *fired.entry(event).or_default() += u64::from(matches!(submission.task, Task::Anchor(_)));
        *fired.entry(CALLED).or_default() += u64::from(matches!(submission.task, Task::Call { .. }));
    }
    check_chain(&world, &outbox, is_registered)
}

/// What the outbox sent and a block took.
fn own(world: &World) -> impl Iterator<Item = &Sent> {
    world.mined().filter(|sent| sent.raw[0] == 2)
}

/// Whatever waits says which task it is and why, and what waits for the user says what to do.
fn check_reasons(outbox: &Outbox) -> Result<(), Wrong> {
    for number in outbox.open_numbers() {
        let (why, task) = (outbox.why(number), outbox.submissions()[number].task.to_string());
        if why.strip_prefix(&task).is_none_or(|reason| reason.len() < ": it waits".len()) {
            return Err(Wrong(format!("nobody knows why it waits: {why}")));
        }
    }
    let Some(why) = outbox.paused().map(|number| outbox.why(number)) else { return Ok(()) };
    let limits = ["raise feeCap in networks.json", "raise budget in networks.json"];
    match limits.map(|limit| format!("{limit}, then: counterfoil chain resume --chain dev")) {
        advice if advice.iter().any(|advice| why.ends_with(advice)) => Ok(()),
        _ => Err(Wrong(format!("nobody knows what to do: {why}"))),
    }
}

/// The chain holds what is final, once, in order, up to the largest head of each log; and nothing was paid for
/// that was not needed.
fn check_chain(world: &World, outbox: &Outbox, is_registered: bool) -> Result<(), Wrong> {
    let filter = json!([{"fromBlock": "0x0", "toBlock": "latest"}]);
    let events = world.dev().call("eth_getLogs", filter).unwrap();
    let mut found: BTreeMap<B256, Vec<(u64, u64)>> = BTreeMap::new();
    for event in events.as_array().unwrap() {
        let topics: Vec<B256> = serde_json::from_value(event["topics"].clone()).unwrap();
        let data: Bytes = serde_json::from_value(event["data"].clone()).unwrap();
        if let Ok(anchored) = IRunLedger::Anchored::decode_raw_log(topics, &data) {
            found.entry(anchored.log).or_default().push((anchored.index, anchored.size));
        }
    }
    let (mut anchored, mut largest) = (BTreeMap::<B256, BTreeSet<u64>>::new(), BTreeMap::new());
    let mut needed = world.vanished;
    for submission in outbox.submissions() {
        let is_final = match &submission.outcome {
            Some(Outcome::Final(_)) => true,
            Some(Outcome::Superseded) => false,
            // Who asks for it again when the larger one is there is told by the chain.
            Some(Outcome::Failed(reason)) if reason.contains("continue the newer record") => false,
            outcome => return Err(Wrong(format!("{}: {outcome:?}", submission.task))),
        };
        needed += u64::from(is_final && !matches!(submission.task, Task::Fill { .. }));
        if let Task::Anchor(head) = &submission.task {
            let largest = largest.entry(log_of(head)).or_insert((0, false));
            *largest = (*largest).max((head.size, is_final));
            anchored.entry(log_of(head)).or_default().extend(is_final.then_some(head.size));
        } else if !is_final {
            return Err(Wrong(format!("{} is no head, and has no larger one", submission.task)));
        }
    }
    if let Some(((size, _), log)) = largest.iter().map(|(log, last)| (*last, log)).find(|((_, is), _)| !is) {
        return Err(Wrong(format!("the head of {size} receipts of {log} is missing, and none is larger")));
    }
    let expected: BTreeMap<B256, Vec<(u64, u64)>> =
        anchored.into_iter().map(|(log, sizes)| (log, (0..).zip(sizes).collect())).collect();
    if found != expected {
        return Err(Wrong(format!("the chain holds {found:?}, expected {expected:?}")));
    }
    let given = outbox.submissions().iter().map(|submission| match submission.task {
        Task::Call { value, .. } => value,
        _ => 0,
    });
    let (given, arrived) = (U256::from(given.sum::<u128>()), world.balance(PAYEE));
    if arrived != given {
        return Err(Wrong(format!("{arrived} wei arrived, {given} were given")));
    }
    let paid = own(world).count() as u64 + u64::from(is_registered);
    if paid > needed {
        return Err(Wrong(format!("{paid} transactions were paid for, {needed} were needed")));
    }
    let nonces: Vec<u64> = world.mined().map(|sent| sent.nonce).collect();
    let distinct: BTreeSet<u64> = nonces.iter().copied().collect();
    match distinct.len() == nonces.len() && distinct.iter().copied().eq(0..nonces.len() as u64) {
        true => Ok(()),
        false => Err(Wrong(format!("nonces {nonces:?}"))),
    }
}

fn schedules() -> u64 {
    std::env::var("OUTBOX_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

fn quiet() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Killed>() {
            usual(info);
        }
    }));
}

#[test]
fn every_submission_is_done_once_whatever_the_node_does() {
    quiet();
    let mut fired = BTreeMap::new();
    let wrong: Vec<_> = (1..=schedules())
        .filter_map(|seed| schedule(seed, None, &mut fired).err().map(|wrong| (seed, wrong)))
        .collect();
    println!("{} schedules; what happened: {fired:?}", schedules());
    for event in FAULTS.into_iter().chain([SUPERSEDED, ANCHORED, CALLED]) {
        let count = fired.get(event).copied().unwrap_or_default();
        assert!(count >= 100 || schedules() < 2000, "{event}: {count} times");
    }
    assert!(wrong.is_empty(), "{} schedules: {:#?}", wrong.len(), &wrong[..wrong.len().min(4)]);
}

#[test]
#[ignore = "two minutes: `make crash` runs it"]
fn each_rule_is_missed() {
    quiet();
    use Rule::{
        Budget, Confirmations, DurableFirst, ForeignNonce, Gaps, Idempotent, OwnNonces, Replacement,
        SameBytes, Why,
    };
    for rule in [
        DurableFirst,
        SameBytes,
        OwnNonces,
        ForeignNonce,
        Replacement,
        Gaps,
        Idempotent,
        Confirmations,
        Budget,
        Why,
    ] {
        let missed = (1..=400).find_map(|seed| {
            schedule(seed, Some(rule), &mut BTreeMap::new()).err().map(|wrong| (seed, wrong))
        });
        println!("{rule:?} off: {missed:?}");
        let (seed, _) = missed.unwrap_or_else(|| panic!("without {rule:?} nothing goes wrong"));
        assert!(
            schedule(seed, None, &mut BTreeMap::new()).is_ok(),
            "{rule:?}: {seed} goes wrong with it too"
        );
    }
}
