//! Submissions through a node that fails in every way: with eventual service each is done exactly
//! once, no money is lost, and each rule that makes it so is missed when it is off.

#[path = "../common/mod.rs"]
mod common;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256};
use alloy_sol_types::{SolCall, SolEvent};
use common::{IRunLedger, head, legacy, log_of, registration, signer};
use counterfoil::chain::outbox::{Outbox, Outcome, Rule};
use counterfoil::chain::{Client, DEVELOPMENT_CHAIN, Networks, Node, SignedHead, Task};
use serde_json::json;
use world::{Dice, Faulty, Killed, TIP_FLOOR, World};

const CONFIRMATIONS: u64 = 10;
/// Seconds between two looks.
const TICK: u64 = 5;
const DAY: u64 = 86_400;

/// What went wrong with one schedule.
#[derive(Debug)]
struct Wrong(#[allow(dead_code, reason = "it is printed")] String);

fn tasks(dice: &mut Dice, worker: Address) -> Vec<Task> {
    let run = registration(worker);
    let mut tasks = vec![Task::Register(run)];
    for size in 1..=2 + dice.below(3) {
        tasks.push(Task::Anchor(head(run.run(), worker, size)));
    }
    if dice.one_in(2) {
        tasks.push(Task::Anchor(SignedHead { lane: 1, ..head(run.run(), worker, 9) }));
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
    let own = json!([{"chainId": 31_337, "confirmations": CONFIRMATIONS, "tipFloor": TIP_FLOOR,
        "feeCap": fee_cap.to_string(), "budget": budget.to_string()}]);
    std::fs::write(folder.path().join("networks.json"), own.to_string()).unwrap();
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
    let mut given: Vec<Task> = Vec::new();
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
        if let Some(task) = wanted.next_if(|_| dice.one_in(3)) {
            outbox.submit(task.clone(), None).map_err(|error| Wrong(error.to_string()))?;
            if !given.contains(&task) {
                given.push(task);
            }
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
        for (number, submission) in outbox.submissions().iter().enumerate() {
            if submission.outcome.is_none() && outbox.why(number).is_empty() {
                return Err(Wrong("a submission waits and nobody knows why".into()));
            }
        }
        let paused = outbox.paused().is_some();
        let mut world = node.world();
        world.tick(&foreign);
        let total: u128 = world.mined().filter(|sent| sent.raw[0] == 2).map(|sent| sent.cost).sum();
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
    for submission in outbox.submissions() {
        if !matches!(submission.outcome, Some(Outcome::Final(_))) {
            return Err(Wrong(format!("{}: {:?}", submission.task, submission.outcome)));
        }
    }
    let hashes: BTreeSet<B256> = world.mined().map(|sent| sent.hash).collect();
    for submission in outbox.submissions() {
        let own = submission.transactions().find(|hash| hashes.contains(hash));
        if own.is_some() && matches!(submission.outcome, Some(Outcome::Final(None))) {
            return Err(Wrong(format!("{}: its own transaction is mistaken for another's", submission.task)));
        }
    }
    let written: BTreeSet<B256> = outbox.submissions().iter().flat_map(|s| s.transactions()).collect();
    if let Some(sent) = world.mined().find(|sent| sent.raw[0] == 2 && !written.contains(&sent.hash)) {
        return Err(Wrong(format!("the transaction {} was written down nowhere", sent.hash)));
    }
    let most = given.len() as u64 - u64::from(is_registered) + world.vanished;
    check_chain(&world, &given, most)
}

/// The chain holds every anchor once, in order, and nothing was paid for that was not needed.
fn check_chain(world: &World, given: &[Task], most: u64) -> Result<(), Wrong> {
    let filter = json!([{"fromBlock": "0x0", "toBlock": "latest"}]);
    let events = world.dev().call("eth_getLogs", filter).unwrap();
    let mut found: BTreeMap<B256, Vec<(u64, u64)>> = BTreeMap::new();
    for event in events.as_array().unwrap() {
        let topics: Vec<B256> = serde_json::from_value(event["topics"].clone()).unwrap();
        let data: alloy_primitives::Bytes = serde_json::from_value(event["data"].clone()).unwrap();
        if let Ok(anchored) = IRunLedger::Anchored::decode_raw_log(topics, &data) {
            found.entry(anchored.log).or_default().push((anchored.index, anchored.size));
        }
    }
    let mut expected: BTreeMap<B256, Vec<(u64, u64)>> = BTreeMap::new();
    for task in given {
        if let Task::Anchor(head) = task {
            let known = expected.entry(log_of(head)).or_default();
            known.push((known.len() as u64, head.size));
        }
    }
    if found != expected {
        return Err(Wrong(format!("the chain holds {found:?}, expected {expected:?}")));
    }
    let own = world.mined().filter(|sent| sent.raw[0] == 2).count() as u64;
    if own > most {
        return Err(Wrong(format!("{own} transactions were paid for, {most} were needed")));
    }
    let nonces: Vec<u64> = world.mined().map(|sent| sent.nonce).collect();
    let distinct: BTreeSet<u64> = nonces.iter().copied().collect();
    match distinct.len() == nonces.len() && distinct.iter().copied().eq(0..nonces.len() as u64) {
        true => Ok(()),
        false => Err(Wrong(format!("nonces {nonces:?}"))),
    }
}

fn schedules() -> u64 {
    std::env::var("OUTBOX_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
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
    println!("{} schedules; faults fired: {fired:?}", schedules());
    assert!(wrong.is_empty(), "{} schedules: {:#?}", wrong.len(), &wrong[..wrong.len().min(4)]);
}

#[test]
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
        assert!(missed.is_some(), "without {rule:?} nothing goes wrong");
    }
}
