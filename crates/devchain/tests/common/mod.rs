//! A worker that talks to the chain with its own legacy transactions, and RFC 9162 written down from
//! its definitions, so that neither shares code with what is tested.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::too_many_arguments)]

use std::path::Path;
use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_sol_types::{SolCall, SolError};
use counterfoil::chain::{ChainError, Client, Networks, Node, Payer, Registration, SignedHead, Submitter};
use counterfoil::evidence::AnchorRecord;
use counterfoil::receipt::{LocalSigner, Signer, log_id};
use counterfoil_devchain::DevChain;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

alloy_sol_types::sol!("../../contracts/src/interfaces/IRunLedger.sol");

pub const ETHER: u128 = 1_000_000_000_000_000_000;

pub fn signer(seed: u8) -> LocalSigner {
    LocalSigner::from_bytes(&[seed; 32]).expect("a small number is a key")
}

pub fn funded(chain: &DevChain, seed: u8) -> LocalSigner {
    let signer = signer(seed);
    chain.call("anvil_setBalance", json!([signer.address(), U256::from(10 * ETHER)])).expect("funding works");
    signer
}

pub fn registration(owner: Address) -> Registration {
    Registration { owner, specification: B256::repeat_byte(2), flags: 0, nonce: B256::repeat_byte(3) }
}

pub fn head(run: B256, worker: Address, size: u64) -> SignedHead {
    SignedHead { run, worker, lane: 0, size, root: keccak256([size as u8]), digest: keccak256([7]) }
}

/// The run ledger behind a node, with the table of networks as it is committed.
pub fn connect(node: Arc<dyn Node>, contract: Option<Address>) -> Result<Client, ChainError> {
    Client::connect(node, &Networks::load(Path::new("nowhere"))?, contract)
}

/// Anchors through an outbox that nobody used before.
pub fn anchor(
    client: &Client,
    head: &SignedHead,
    run: &Registration,
    payer: Payer,
) -> Result<AnchorRecord, ChainError> {
    let outboxes = tempfile::tempdir().expect("a folder");
    Submitter::new(client.clone(), payer, outboxes.path(), &|| false)?.anchor(head, run, None)
}

pub fn anchor_of(head: &SignedHead, index: u64) -> IRunLedger::Anchor {
    let SignedHead { run, worker, lane, size, root, digest } = *head;
    IRunLedger::Anchor { run, worker, lane, index, size, headDigest: digest, root }
}

pub fn log_of(head: &SignedHead) -> B256 {
    log_id(head.run, head.worker, head.lane)
}

pub fn nonce(chain: &DevChain, account: Address) -> u64 {
    let count =
        chain.call("eth_getTransactionCount", json!([account, "latest"])).expect("accounts have nonces");
    serde_json::from_value::<U64>(count).expect("a number").to()
}

/// An EIP-155 transaction to the run ledger.
pub fn legacy(chain: &DevChain, signer: &LocalSigner, nonce: u64, data: Vec<u8>) -> Bytes {
    transaction(TxKind::Call(chain.contract()), signer, nonce, data)
}

/// A chain of its own with the contract of this artifact.
pub fn deployed(artifact: &str) -> (DevChain, Address) {
    let chain = DevChain::in_memory();
    let address = deploy(&chain, &funded(&chain, 1), &creation_code(artifact));
    (chain, address)
}

/// Creates a contract and returns its address.
pub fn deploy(chain: &DevChain, signer: &LocalSigner, code: &Bytes) -> Address {
    let raw = transaction(TxKind::Create, signer, nonce(chain, signer.address()), code.to_vec());
    let hash = chain.call("eth_sendRawTransaction", json!([raw])).expect("the chain takes the transaction");
    let receipt = chain.call("eth_getTransactionReceipt", json!([hash])).expect("it is mined at once");
    assert!(succeeded(&receipt), "{receipt}");
    serde_json::from_value(receipt["contractAddress"].clone()).expect("an address")
}

/// What a build wrote down about a contract; only its creation code is needed here.
pub fn creation_code(artifact: &str) -> Bytes {
    let artifact: Value = serde_json::from_str(artifact).expect("an artifact is JSON");
    serde_json::from_value(artifact["bytecode"].clone()).expect("bytes")
}

fn transaction(to: TxKind, signer: &LocalSigner, nonce: u64, data: Vec<u8>) -> Bytes {
    let (price, gas) = (2_000_000_000u64, 3_000_000u64);
    let data = Bytes::from(data);
    let fields: [&dyn Encodable; 6] = [&nonce, &price, &gas, &to, &0u64, &data];
    let digest = keccak256(rlp(&[&fields[..], &[&31337u64, &0u64, &0u64]].concat()));
    let signature = signer.sign(digest).expect("a local key signs").0;
    let v = 31337u64 * 2 + 35 + u64::from(signature[64] - 27);
    let (r, s) = (U256::from_be_slice(&signature[..32]), U256::from_be_slice(&signature[32..64]));
    rlp(&[&fields[..], &[&v, &r, &s]].concat()).into()
}

fn rlp(fields: &[&dyn Encodable]) -> Vec<u8> {
    let mut bytes = Vec::new();
    alloy_rlp::encode_list::<&dyn Encodable, dyn Encodable>(fields, &mut bytes);
    bytes
}

/// Sends a contract call without asking first whether it would work; returns the receipt.
pub fn send(chain: &DevChain, signer: &LocalSigner, call: &impl SolCall) -> Value {
    let raw = legacy(chain, signer, nonce(chain, signer.address()), call.abi_encode());
    let hash = chain.call("eth_sendRawTransaction", json!([raw])).expect("the chain takes the transaction");
    chain.call("eth_getTransactionReceipt", json!([hash])).expect("it is mined at once")
}

pub fn succeeded(receipt: &Value) -> bool {
    receipt["status"] == "0x1"
}

pub fn gas(receipt: &Value) -> u64 {
    serde_json::from_value::<U64>(receipt["gasUsed"].clone()).expect("a number").to()
}

/// What a view of the run ledger returns, or the bytes with which the contract refused.
pub fn view<C: SolCall>(chain: &DevChain, from: Address, call: &C) -> Result<C::Return, Bytes> {
    ask(chain, chain.contract(), from, call)
}

/// What a view of any contract returns, or the bytes with which it refused.
pub fn ask<C: SolCall>(chain: &DevChain, to: Address, from: Address, call: &C) -> Result<C::Return, Bytes> {
    let request = json!([{"from": from, "to": to, "data": Bytes::from(call.abi_encode())}, "latest"]);
    match chain.call("eth_call", request) {
        Ok(answer) => {
            let answer: Bytes = serde_json::from_value(answer).expect("bytes");
            Ok(C::abi_decode_returns(&answer).expect("the declared type"))
        }
        Err(ChainError::Rpc { error, .. }) => {
            Err(serde_json::from_value(error.data.expect("a revert has data")).expect("bytes"))
        }
        Err(other) => panic!("{other}"),
    }
}

pub fn refused_with<E: SolError>(answer: Result<impl Sized, Bytes>) -> E {
    let Err(bytes) = answer else { panic!("the contract accepted") };
    E::abi_decode(&bytes).expect("another error than expected")
}

fn sha256(parts: &[&[u8]]) -> B256 {
    B256::from(<[u8; 32]>::from(Sha256::digest(parts.concat())))
}

/// MTH(D[n]) of RFC 9162, 2.1.1.
pub fn root(leaves: &[Vec<u8>]) -> B256 {
    match leaves {
        [] => sha256(&[]),
        [leaf] => sha256(&[&[0], leaf]),
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            sha256(&[&[1], root(left).as_slice(), root(right).as_slice()])
        }
    }
}

/// PATH(m, D[n]) of RFC 9162, 2.1.3.1.
pub fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<B256> {
    if leaves.len() == 1 {
        return vec![];
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let (mut below, sibling) = if index < split {
        (path(index, left), root(right))
    } else {
        (path(index - split, right), root(left))
    };
    below.push(sibling);
    below
}
