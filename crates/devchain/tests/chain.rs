//! What is on disk is the chain, and what a client is told is the truth.

mod common;

use std::sync::Arc;

use alloy_primitives::{Address, B256, U256, keccak256};
use common::*;
use counterfoil::chain::{ChainError, Node, Payer, SignedHead};
use counterfoil::primitives::Report;
use counterfoil::receipt::{LocalSigner, Signer};
use counterfoil_devchain::DevChain;
use serde_json::{Value, json};

fn anchored(
    chain: &Arc<DevChain>,
    worker: &Arc<LocalSigner>,
    size: u64,
) -> counterfoil::evidence::AnchorRecord {
    let run = registration(worker.address());
    let head: SignedHead = head(run.run(), worker.address(), size);
    let client = connect(chain.clone(), None).unwrap();
    anchor(&client, &head, &run, Payer::Device(worker.clone())).unwrap()
}

fn snapshot(chain: &DevChain, account: Address) -> (B256, Value, Value) {
    let block = chain.call("eth_getBlockByNumber", json!(["latest", true])).unwrap();
    (chain.state_root(), block, chain.call("eth_getBalance", json!([account, "latest"])).unwrap())
}

fn rejection(answer: Result<Value, ChainError>) -> (i64, String) {
    match answer {
        Err(ChainError::Rpc { error, .. }) => (error.code, error.message),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn replay_gives_the_same_chain() {
    let folder = tempfile::tempdir().unwrap();
    let worker = Arc::new(signer(9));
    let chain = Arc::new(DevChain::open(folder.path()).unwrap());
    let contract = chain.contract();
    let record = anchored(&chain, &worker, 3);
    anchored(&chain, &worker, 4);
    let before = snapshot(&chain, worker.address());
    let second = DevChain::open(folder.path()).err().expect("one process runs a chain");
    assert_eq!(second.code(), "locked");
    drop(chain);

    let chain = Arc::new(DevChain::open(folder.path()).unwrap());
    assert_eq!(snapshot(&chain, worker.address()), before);
    assert_eq!((chain.contract(), chain.dropped_bytes()), (contract, 0));
    assert_eq!(anchored(&chain, &worker, 5).index, 2);
    let receipt = chain.call("eth_getTransactionReceipt", json!([record.transaction_hash])).unwrap();
    assert_eq!(receipt["blockHash"], json!(record.block_hash));
}

#[test]
fn a_torn_tail_costs_the_unfinished_block_only() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, worker) = (folder.path().join("journal"), Arc::new(signer(9)));
    let chain = Arc::new(DevChain::open(folder.path()).unwrap());
    anchored(&chain, &worker, 3);
    let before = snapshot(&chain, worker.address());
    let whole = std::fs::metadata(&journal).unwrap().len();
    anchored(&chain, &worker, 4);
    drop(chain);
    let file = std::fs::OpenOptions::new().write(true).open(&journal).unwrap();
    file.set_len(whole + 20).unwrap();
    let chain = Arc::new(DevChain::open(folder.path()).unwrap());
    assert_eq!(chain.dropped_bytes(), 20);
    assert_eq!(snapshot(&chain, worker.address()), before);
    assert_eq!(anchored(&chain, &worker, 4).index, 1);
}

#[test]
fn frames_that_do_not_follow_are_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(DevChain::open(folder.path()).unwrap());
    let (journal, _) =
        counterfoil::journal::Journal::open(&folder.path().join("journal"), "devchain").unwrap();
    journal.append(b"Tnonsense").unwrap();
    drop(journal);
    let error = DevChain::open(folder.path()).err().expect("nonsense is no chain");
    assert_eq!((error.code(), error.place()), ("journal-corrupt", Some("frame 1".into())));
}

#[test]
fn refused_transactions_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Arc::new(DevChain::open(folder.path()).unwrap());
    let (rich, poor) = (funded(&chain, 1), signer(2));
    let before = snapshot(&chain, rich.address());
    let length = || std::fs::metadata(folder.path().join("journal")).unwrap().len();
    let bytes = length();
    let send = |raw: &[u8]| {
        rejection(chain.call("eth_sendRawTransaction", json!([alloy_primitives::hex::encode_prefixed(raw)])))
    };

    let (code, message) = send(&legacy(&chain, &rich, 7, vec![]));
    assert_eq!(
        (code, message.starts_with("nonce too high: next nonce 0, tx nonce 7")),
        (-32000, true),
        "{message}"
    );
    assert!(send(&legacy(&chain, &poor, 0, vec![])).1.starts_with("insufficient funds"));
    let good = legacy(&chain, &rich, 0, vec![]);
    assert!(send(&good[..good.len() - 1]).1.starts_with("not a transaction"));
    assert_eq!(send(&[&good[..], &[0]].concat()).1, "1 bytes follow the transaction");
    assert_eq!(send(&[3, 0xc0]).1, "transaction type 3 is not supported");
    assert_eq!(send(&[]).0, -32000);
    for position in 0..good.len() {
        // Whatever bit is turned, nobody but the key's owner pays: another sender has no money.
        let mut turned = good.to_vec();
        turned[position] ^= 1;
        send(&turned);
    }
    assert_eq!((snapshot(&chain, rich.address()), length()), (before, bytes));

    chain.call("eth_sendRawTransaction", json!([good])).unwrap();
    assert_eq!(send(&good).1, "already known");
    assert!(
        send(&legacy(&chain, &rich, 0, vec![1])).1.starts_with("nonce too low: next nonce 1, tx nonce 0")
    );
}

#[test]
fn money_is_neither_made_nor_lost_by_a_transaction() {
    let chain = DevChain::in_memory();
    let worker = funded(&chain, 1);
    let raw = legacy(&chain, &worker, 0, vec![]);
    let hash = chain.call("eth_sendRawTransaction", json!([raw])).unwrap();
    let receipt = chain.call("eth_getTransactionReceipt", json!([hash])).unwrap();
    assert!(!succeeded(&receipt), "the run ledger takes no calls without a function");
    let balance: U256 =
        serde_json::from_value(chain.call("eth_getBalance", json!([worker.address(), "latest"])).unwrap())
            .unwrap();
    let fee = U256::from(gas(&receipt)) * U256::from(2_000_000_000u64);
    assert_eq!(balance + fee, U256::from(10 * ETHER));
}

#[test]
fn json_rpc_answers_whatever_comes() {
    let chain = DevChain::in_memory();
    let answer = |request: &str| serde_json::from_str::<Value>(&chain.handle(request)).unwrap();
    assert_eq!(answer("{")["error"]["code"], -32700);
    assert_eq!(answer("[]")["error"]["code"], -32600);
    assert_eq!(answer("7")["error"]["code"], -32600);
    assert_eq!(answer(r#"{"id":4,"method":"eth_mine"}"#)["error"]["code"], -32601);
    assert_eq!(answer(r#"{"id":4,"method":"eth_getBalance","params":["0x1"]}"#)["error"]["code"], -32602);
    assert_eq!(answer(r#"{"id":4,"method":"eth_getBalance","params":{"a":1}}"#)["error"]["code"], -32602);
    assert_eq!(
        answer(r#"{"id":4,"method":"eth_getBlockByNumber","params":["0x99"]}"#)["result"],
        Value::Null
    );
    let batch =
        answer(r#"[{"id":"a","method":"eth_chainId"},{"id":2,"method":"eth_blockNumber","params":[]}]"#);
    assert_eq!(
        batch,
        json!([
            {"jsonrpc": "2.0", "id": "a", "result": "0x7a69"},
            {"jsonrpc": "2.0", "id": 2, "result": "0x0"},
        ])
    );
    let zero = Address::ZERO;
    let history = answer(r#"{"id":1,"method":"eth_feeHistory","params":["0x4","latest",[]]}"#);
    assert_eq!(history["result"]["oldestBlock"], "0x0");
    let old = json!({"id": 1, "method": "eth_getBalance", "params": [zero, "0x5"]}).to_string();
    assert_eq!(answer(&old)["error"]["code"], -32000, "the state of other blocks is not kept");
    let empty = answer(r#"{"id":1,"method":"web3_sha3","params":["0x"]}"#);
    assert_eq!(empty["result"], json!(keccak256([])));
}
