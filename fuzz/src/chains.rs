//! Both sides of JSON-RPC: the client with any answers, the development chain with any requests.

use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use alloy_primitives::{Address, Bytes, keccak256};
use counterfoil::chain::outbox::Outbox;
use counterfoil::chain::{
    ChainError, Client, DEVELOPMENT_CHAIN, Networks, Node, Payer, Registration, RpcError, SignedHead,
    Submitter, artifact,
};
use counterfoil::evidence::AnchorRecord;
use counterfoil::journal::{Journal, read};
use counterfoil::verify::Standing;
use counterfoil_devchain::DevChain;
use serde_json::{Value, json};

use crate::sample::{RUN, owner};

/// The sample's head anchored on a development chain, every request and answer on the way, and what
/// the outbox wrote down, a frame a line.
pub struct Anchored {
    pub record: AnchorRecord,
    outbox: Vec<u8>,
    calls: Vec<(String, Value, Value)>,
}

struct Recorder {
    chain: DevChain,
    calls: Mutex<Vec<(String, Value, Value)>>,
}

impl Node for Recorder {
    fn call(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        let answer = self.chain.call(method, params.clone())?;
        self.calls.lock().expect("one thread").push((method.into(), params, answer.clone()));
        Ok(answer)
    }
}

fn registration() -> Registration {
    let specification = counterfoil::primitives::sha256(&[&RUN.specification]);
    Registration { owner: RUN.worker, specification, flags: 0, nonce: RUN.nonce }
}

fn connect(node: Arc<dyn Node>, contract: Option<Address>) -> Result<Client, ChainError> {
    Client::connect(node, &Networks::load(Path::new("nowhere"))?, contract)
}

/// Anchors the sample's head, until `stop` says that nobody waits.
fn anchor(client: &Client, outboxes: &Path, stop: &dyn Fn() -> bool) -> Result<AnchorRecord, ChainError> {
    let head = SignedHead::from(RUN.log.heads().next().expect("a head"));
    let payer = Payer::Device(Arc::new(owner()));
    Submitter::new(client.clone(), payer, outboxes, stop)?.anchor(&head, &registration(), None)
}

pub fn anchored() -> &'static Anchored {
    static ANCHORED: LazyLock<Anchored> = LazyLock::new(|| {
        let node = Arc::new(Recorder { chain: DevChain::in_memory(), calls: Mutex::default() });
        let client = connect(node.clone(), None).expect("the chain holds its contract");
        let outboxes = tempfile::tempdir().expect("a folder");
        let record = anchor(&client, outboxes.path(), &|| false).expect("an anchor");
        assert_eq!(client.confirm(&record).expect("an answer"), (Standing::Held, record.block_time));
        let calls = node.calls.lock().expect("one thread").clone();
        let outbox =
            outboxes.path().read_dir().expect("a folder").next().expect("an outbox").expect("a name");
        let frames = read(&outbox.path().join("journal"), "outbox").expect("a journal").frames;
        Anchored { record, outbox: frames.join(&b'\n'), calls }
    });
    &ANCHORED
}

/// Says what it was told to say, one answer after the other.
struct Puppet(Mutex<std::vec::IntoIter<Value>>);

impl Node for Puppet {
    fn call(&self, method: &str, _: Value) -> Result<Value, ChainError> {
        let silent = || ChainError::Transport { method: method.into(), reason: "no answer is left".into() };
        match method {
            "eth_chainId" => return Ok(json!(format!("{DEVELOPMENT_CHAIN:#x}"))),
            "eth_getCode" => return Ok(json!(artifact().deployed_bytecode)),
            _ => {}
        }
        let answer = self.0.lock().expect("one thread").next().ok_or_else(silent)?;
        match answer.get("error") {
            Some(data) => {
                let error = RpcError { code: 3, message: "reverted".into(), data: Some(data.clone()) };
                Err(ChainError::Rpc { method: method.into(), error })
            }
            // A transaction that is not mined is waited for.
            None if answer.is_null() && method == "eth_getTransactionReceipt" => Err(silent()),
            None => Ok(answer),
        }
    }
}

/// A list of answers, for a confirmation and for an anchor.
pub fn answers(bytes: &[u8]) {
    let Ok(answers) = serde_json::from_slice::<Vec<Value>>(bytes) else { return };
    let puppet = || Arc::new(Puppet(Mutex::new(answers.clone().into_iter())));
    let client = |node: Arc<Puppet>| connect(node, Some(anchored().record.contract)).expect("the right code");
    let claimed = &anchored().record;
    if let Ok((standing, time)) = client(puppet()).confirm(claimed) {
        assert!(standing == Standing::Held || time == claimed.block_time);
    }
    let outboxes = tempfile::tempdir().expect("a folder");
    // It waits as long as there is something to hear.
    let node = puppet();
    let is_silent = || node.0.lock().expect("one thread").len() == 0;
    let _ = anchor(&client(node.clone()), outboxes.path(), &is_silent);
    let _ = client(puppet()).head(RUN.id, RUN.worker, 0);
}

pub fn answer_seeds() -> Vec<Vec<u8>> {
    let calls = &anchored().calls;
    let fixed = ["eth_chainId", "eth_getCode", "dev_contract"];
    let said: Vec<&(String, Value, Value)> =
        calls.iter().filter(|(method, ..)| !fixed.contains(&method.as_str())).collect();
    let answers = |said: &[&(String, Value, Value)]| {
        serde_json::to_vec(&said.iter().map(|(_, _, answer)| answer).collect::<Vec<_>>()).expect("JSON")
    };
    // The confirmation was the last: the latest block, the stored value, the events, the block.
    let revert = br#"[null,{"error":"0x08c379a0"}]"#.to_vec();
    vec![answers(&said), answers(&[&said[..1], &said[said.len() - 4..]].concat()), revert]
}

/// The frames of an outbox's journal, one a line.
pub fn outbox(bytes: &[u8]) {
    let outboxes = tempfile::tempdir().expect("a folder");
    let folder = outboxes.path().join("1-of-somebody");
    std::fs::create_dir(&folder).expect("a folder");
    let journal = Journal::create(&folder.join("journal"), "outbox").expect("a new file");
    let frames = bytes.split(|byte| *byte == b'\n').filter(|frame| !frame.is_empty());
    frames.for_each(|frame| journal.append(frame).expect("room"));
    journal.flush().expect("room");
    if let Ok(known) = Outbox::all(outboxes.path()) {
        known.iter().flat_map(|(_, submissions)| submissions).for_each(|each| drop(each.state()));
    }
}

pub fn outbox_seeds() -> Vec<Vec<u8>> {
    vec![anchored().outbox.clone()]
}

/// Requests, one a line.
pub fn requests(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let chain = DevChain::in_memory();
    for request in text.lines().take(8) {
        let answer = chain.handle(request);
        assert!(serde_json::from_str::<Value>(&answer).is_ok(), "not JSON: {answer}");
    }
}

fn request(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    let calls = &anchored().calls;
    let mut seeds: Vec<Vec<u8>> =
        calls.iter().map(|(method, params, _)| request(method, params).into_bytes()).collect();
    let written = ["anvil_setBalance", "eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_getLogs"];
    let session = calls.iter().filter(|(method, ..)| written.contains(&method.as_str()));
    seeds.push(
        session
            .map(|(method, params, _)| request(method, params))
            .collect::<Vec<_>>()
            .join("\n")
            .into_bytes(),
    );
    let more = [
        ("eth_feeHistory", json!(["0x4", "latest", [10]])),
        ("eth_getStorageAt", json!([RUN.worker, "0x0", "latest"])),
        ("eth_getBlockByNumber", json!(["0x0", true])),
        ("eth_call", json!([{"data": "0x60016001f3"}, "latest"])),
    ];
    seeds.extend(more.map(|(method, params)| request(method, &params).into_bytes()));
    seeds.push(b"[{\"method\":\"eth_chainId\"},{\"id\":2}]".to_vec());
    seeds
}

/// The bytes of one signed transaction.
pub fn transaction(bytes: &[u8]) {
    let chain = DevChain::in_memory();
    let raw = Bytes::copy_from_slice(bytes);
    if let Ok(hash) = chain.call("eth_sendRawTransaction", json!([raw])) {
        assert_eq!(hash, json!(keccak256(bytes)));
        assert!(
            chain.call("eth_getTransactionReceipt", json!([hash])).is_ok_and(|receipt| receipt.is_object())
        );
    }
}

pub fn transaction_seeds() -> Vec<Vec<u8>> {
    let sent = anchored().calls.iter().filter(|(method, ..)| method == "eth_sendRawTransaction");
    let raw = |params: &Value| serde_json::from_value::<Vec<Bytes>>(params.clone()).expect("one transaction");
    sent.flat_map(|(_, params, _)| raw(params)).map(Vec::from).collect()
}
