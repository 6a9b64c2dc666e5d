//! Contracts that are not the run ledger: created, paid, read and refused, on the development chain.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256, Bytes, U256};
use common::{ETHER, anchor, connect, deploy, funded, head, registration};
use counterfoil::chain::{ChainError, Client, Decoded, Interface, Node, Payer, Submitter, embedded};
use counterfoil::receipt::Signer;
use counterfoil_devchain::DevChain;
use serde_json::{Value, json};

const TILL: &str = include_str!("vectors/Till.json");

struct Case {
    chain: Arc<DevChain>,
    client: Client,
    payer: Payer,
    account: Address,
    folder: tempfile::TempDir,
    till: Interface,
}

impl Case {
    fn new() -> Case {
        let chain = Arc::new(DevChain::in_memory());
        let key = Arc::new(funded(&chain, 3));
        let client = connect(chain.clone(), None).unwrap();
        let (account, folder) = (key.address(), tempfile::tempdir().unwrap());
        Case {
            chain,
            client,
            payer: Payer::Device(key),
            account,
            folder,
            till: Interface::parse(TILL).unwrap(),
        }
    }

    fn submitter(&self) -> Submitter<'_> {
        Submitter::new(self.client.clone(), self.payer.clone(), self.folder.path(), &|| false).unwrap()
    }

    fn created(&self) -> Address {
        self.submitter().create(&self.till, &[json!(self.account)]).unwrap()
    }

    fn read(&self, address: Address, function: &str, arguments: &[Value]) -> Result<Decoded, ChainError> {
        self.client.read(&self.till, address, function, arguments, Some(self.account))
    }

    fn balance(&self, account: Address) -> U256 {
        serde_json::from_value(self.chain.call("eth_getBalance", json!([account, "latest"])).unwrap())
            .unwrap()
    }
}

/// A contract cannot be created, paid or asked, or an event of it is lost.
#[test]
fn a_contract_is_created_paid_and_read() {
    let case = Case::new();
    let till = case.created();
    assert_eq!(case.read(till, "owner", &[]).unwrap(), Decoded::Address(case.account));
    let data = case.till.encode("pay", &[json!("for \u{fc}ber")]).unwrap();
    let called = case.submitter().call(Some(till), 25 * ETHER / 10, data, "Till.pay".into()).unwrap();
    assert_eq!(case.balance(till), U256::from(25 * ETHER / 10));
    assert_eq!(case.read(till, "payments", &[]).unwrap(), Decoded::Unsigned(U256::from(1)));
    let events = case.client.events_of(&case.till, till, called.mined.transaction).unwrap();
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&*event.name, event.block), ("Paid", called.mined.block_number));
    let hash = alloy_primitives::keccak256("for \u{fc}ber").to_vec();
    let expected = [
        ("from".to_owned(), Decoded::Address(case.account)),
        ("note".into(), Decoded::Bytes(hash)),
        ("value".into(), Decoded::Unsigned(U256::from(25 * ETHER / 10))),
        ("raw".into(), Decoded::Bytes("for \u{fc}ber".into())),
    ];
    assert_eq!(event.fields, expected);
    let asked = |indexed: Value| {
        case.client.events(&case.till, till, "Paid", 0, indexed.as_object().unwrap()).unwrap().len()
    };
    assert_eq!(asked(json!({})), 1);
    assert_eq!(asked(json!({"from": case.account, "note": "for \u{fc}ber"})), 1);
    assert_eq!(asked(json!({"note": "for another"})), 0);
    assert_eq!(case.read(till, "sender", &[]).unwrap(), Decoded::Address(case.account));
}

/// A refusal costs three minutes, or is not told.
#[test]
fn a_refusal_is_told_at_once() {
    let case = Case::new();
    let (till, begin) = (case.created(), std::time::Instant::now());
    for (code, reason) in [
        (0, "it names no reason"),
        (1, "Error(message: \"not this\")"),
        (2, "Panic(code: 1)"),
        (3, "TooLittle(expected: 3, actual: 0, note: \"refused\")"),
    ] {
        let refused = case.read(till, "refuse", &[json!(code)]);
        assert!(
            matches!(&refused, Err(ChainError::Refused { reason: told }) if told == reason),
            "{refused:?}"
        );
        let data = case.till.encode("refuse", &[json!(code)]).unwrap();
        let refused = case.submitter().call(Some(till), 0, data, "Till.refuse".into());
        let Err(ChainError::GivenUp { reason: told }) = &refused else { panic!("{refused:?}") };
        // No interface of the library declares the last one.
        let known = if code == 3 { "an unknown error, 0x" } else { reason };
        assert!(
            told.starts_with("Till.refuse: failed: the contract refuses: ") && told.contains(known),
            "{told}"
        );
    }
    assert!(begin.elapsed().as_secs() < 60);
    let nobody = case.read(Address::repeat_byte(1), "owner", &[]);
    assert!(nobody.unwrap_err().to_string().contains("no contract lies at"));
}

/// What another process had written down is sent by the next one, and only once.
#[test]
fn what_nobody_waited_for_is_resumed() {
    let case = Case::new();
    let (to, value) = (Address::repeat_byte(5), ETHER);
    let looks = std::cell::Cell::new(0);
    let stop = || looks.replace(looks.get() + 1) > 0;
    let submitter =
        Submitter::new(case.client.clone(), case.payer.clone(), case.folder.path(), &stop).unwrap();
    let interrupted = submitter.call(Some(to), value, Bytes::new(), "a gift".into());
    assert!(matches!(interrupted, Err(ChainError::Interrupted)), "{interrupted:?}");
    assert_eq!(case.balance(to), U256::ZERO);
    let ended = case.submitter().resume().unwrap();
    assert!(ended.len() == 1 && ended[0].starts_with("a gift: final in block"), "{ended:?}");
    assert_eq!(case.submitter().resume().unwrap(), Vec::<String>::new());
    assert_eq!(case.balance(to), U256::from(value));
}

/// A deadline is compared with the time of the last block, which may be days old.
#[test]
fn a_view_sees_the_time_of_now_and_the_hashes_of_blocks() {
    let case = Case::new();
    let till = case.created();
    anchor(
        &case.client,
        &head(registration(case.account).run(), case.account, 1),
        &registration(case.account),
        case.payer.clone(),
    )
    .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let Decoded::Unsigned(time) = case.read(till, "time", &[]).unwrap() else { panic!("no number") };
    assert!(time >= U256::from(now), "{time} is before {now}");
    let latest = case.client.latest_block().unwrap();
    assert!(latest >= 3);
    for number in 0..=latest {
        let block = case.chain.call("eth_getBlockByNumber", json!([format!("{number:#x}"), false])).unwrap();
        let hash: B256 = serde_json::from_value(block["hash"].clone()).unwrap();
        let told = case.read(till, "hashOf", &[json!(number)]).unwrap();
        assert_eq!(told, Decoded::Bytes(hash.to_vec()), "block {number}");
    }
    let data = case.till.encode("pay", &[json!("")]).unwrap();
    let request =
        |value: u64| json!([{"from": case.account, "to": till, "data": data, "value": U256::from(value)}]);
    assert!(case.chain.call("eth_call", request(0)).is_err());
    assert_eq!(case.chain.call("eth_call", request(1)).unwrap(), "0x");
}

/// Code of the greatest size that Ethereum takes cannot be created through JSON-RPC; one byte more can.
#[test]
fn the_largest_code_is_created() {
    // PUSH2 size, PUSH0, RETURN: that many zeros.
    let returning = |size: u16, length: usize| {
        let mut code = vec![0x61, (size >> 8) as u8, size as u8, 0x5f, 0xf3];
        code.resize(length, 0);
        Bytes::from(code)
    };
    let case = Case::new();
    let key = funded(&case.chain, 4);
    let largest = returning(24_576, 49_152);
    let called = case.submitter().call(None, 0, largest, "the largest".into()).unwrap();
    let code = case.chain.call("eth_getCode", json!([called.created.unwrap(), "latest"])).unwrap();
    assert_eq!(code.as_str().unwrap().len(), 2 + 2 * 24_576);
    for (size, length) in [(24_577, 100), (100, 49_153)] {
        let call = json!([{"from": key.address(), "data": returning(size, length)}]);
        assert!(case.chain.call("eth_estimateGas", call).is_err(), "{size} bytes of {length}");
    }
    let small = deploy(&case.chain, &key, &returning(3, 5));
    assert_eq!(case.chain.call("eth_getCode", json!([small, "latest"])).unwrap(), "0x000000");
}

#[test]
fn each_embedded_artifact_is_an_interface() {
    for name in ["RunLedger", "Openings"] {
        assert_eq!(Interface::parse(embedded(name).unwrap()).unwrap().name(), name);
    }
    assert!(embedded("Nothing").is_none());
}
