//! The run ledger on a chain for Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use counterfoil::chain::{ChainError, Client, DEVELOPMENT_CHAIN, HttpNode, Node, Payer, anchor_lane};
use counterfoil::ledger::RunFolder;
use counterfoil::primitives::Address;
use counterfoil_devchain::DevChain;
use pyo3::prelude::*;

use crate::gateway::{enter, error, raise};
use crate::keys::Key;

/// How often a waiting call looks whether the user interrupted it.
const PATIENCE: Duration = Duration::from_millis(50);

/// A chain with a run ledger: the development chain in this process, or a node elsewhere.
#[pyclass(frozen, module = "counterfoil._native", name = "Chain")]
pub(crate) struct Chain {
    node: Arc<dyn Node>,
    client: Client,
    development: Option<Arc<DevChain>>,
}

#[pymethods]
impl Chain {
    /// Opens the development chain that lies in a folder.
    #[staticmethod]
    fn dev(py: Python<'_>, folder: PathBuf) -> PyResult<Chain> {
        let chain = Arc::new(enter(py, || DevChain::open(&folder))?);
        let node: Arc<dyn Node> = chain.clone();
        let client = enter(py, || Client::connect(Arc::clone(&node), None))?;
        Ok(Chain { node, client, development: Some(chain) })
    }

    #[staticmethod]
    #[pyo3(signature = (url, contract = None))]
    fn connect(py: Python<'_>, url: &str, contract: Option<&str>) -> PyResult<Chain> {
        let contract = contract.map(|text| address(py, text)).transpose()?;
        let node: Arc<dyn Node> = Arc::new(HttpNode::new(url));
        let asked = Arc::clone(&node);
        let client = wait(py, move || Client::connect(asked, contract))?;
        Ok(Chain { node, client, development: None })
    }

    #[getter]
    fn chain_id(&self) -> u64 {
        self.client.chain_id()
    }

    #[getter]
    fn contract(&self) -> String {
        self.client.contract().to_checksum(None)
    }

    /// Bytes of an unfinished last frame that were dropped when the development chain was opened.
    #[getter]
    fn dropped_bytes(&self) -> u64 {
        self.development.as_ref().map_or(0, |chain| chain.dropped_bytes())
    }

    /// One JSON-RPC call; parameters and result are JSON.
    fn rpc(&self, py: Python<'_>, method: String, params: &str) -> PyResult<String> {
        let params = json(py, params)?;
        let node = Arc::clone(&self.node);
        wait(py, move || node.call(&method, params)).map(|result| result.to_string())
    }

    /// Answers a JSON-RPC request as the development chain does.
    fn handle(&self, py: Python<'_>, request: &str) -> PyResult<String> {
        let Some(chain) = &self.development else {
            let message = "only a development chain can be served; give others the node's own address";
            return Err(error(py, "chain", message, [None, None, None]));
        };
        enter(py, || Ok::<_, ChainError>(chain.handle(request)))
    }

    /// How many anchors a lane of a run has, and the size of the last one.
    fn head(&self, py: Python<'_>, run: &str, worker: &str, lane: u32) -> PyResult<Option<(u64, u64)>> {
        let run =
            run.parse().map_err(|_| error(py, "invalid-input", "this is no run id", [None, None, None]))?;
        let (worker, client) = (address(py, worker)?, self.client.clone());
        let head = wait(py, move || client.head(run, worker, lane))?;
        Ok(head.map(|head| (head.count, head.size)))
    }

    /// Declares that a key signs for a worker no more; returns the block and its time.
    fn revoke(
        &self,
        py: Python<'_>,
        worker: &str,
        key: &str,
        payer: &Key,
        chosen: bool,
    ) -> PyResult<(u64, u64)> {
        let (worker, key) = (address(py, worker)?, address(py, key)?);
        let (client, signer) = (self.client.clone(), Arc::clone(&payer.0));
        let found = wait(py, move || {
            let payer = if chosen { Payer::Chosen(&*signer) } else { Payer::Device(&*signer) };
            client.revoke(worker, key, payer)
        })?;
        Ok((found.block, found.time))
    }

    /// The block and its time at which a key was revoked; none if it was not.
    fn revocation(&self, py: Python<'_>, worker: &str, key: &str) -> PyResult<Option<(u64, u64)>> {
        let (worker, key, client) = (address(py, worker)?, address(py, key)?, self.client.clone());
        Ok(wait(py, move || client.revocation(worker, key))?.map(|found| (found.block, found.time)))
    }

    #[getter]
    fn latest_block(&self, py: Python<'_>) -> PyResult<u64> {
        let client = self.client.clone();
        wait(py, move || client.latest_block())
    }

    /// Anchors a lane of the run in a folder; returns the record's JSON.
    fn anchor(
        &self,
        py: Python<'_>,
        folder: PathBuf,
        worker: Option<&str>,
        lane: u32,
        key: &Key,
        chosen: bool,
    ) -> PyResult<String> {
        let worker = worker.map(|text| address(py, text)).transpose()?;
        let (client, signer) = (self.client.clone(), Arc::clone(&key.0));
        let record = wait(py, move || {
            let payer = if chosen { Payer::Chosen(&*signer) } else { Payer::Device(&*signer) };
            anchor_lane(&client, &RunFolder::open(&folder)?, worker, lane, payer)
        })?;
        Ok(serde_json::to_string(&record).expect("an anchor record is plain data"))
    }

    /// What this chain says about an anchor record: its own block time, or none when it has no such anchor.
    fn confirm(&self, py: Python<'_>, record: &str) -> PyResult<Option<u64>> {
        let record = serde_json::from_value(json(py, record)?).map_err(|refused| {
            error(py, "invalid-input", &format!("this is no anchor record: {refused}"), [None, None, None])
        })?;
        let client = self.client.clone();
        Ok(wait(py, move || client.confirm(&record))?.map(|record| record.block_time))
    }
}

/// Runs `work` on a thread of its own, so that Ctrl-C reaches a user who waits for a node. What was
/// begun ends by itself; every call of a chain can be repeated.
fn wait<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, ChainError> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver): (_, Receiver<Result<T, ChainError>>) = channel();
    std::thread::spawn(move || sender.send(work()));
    loop {
        let answer;
        (receiver, answer) = py.detach(move || {
            let answer = receiver.recv_timeout(PATIENCE);
            (receiver, answer)
        });
        match answer {
            Ok(done) => return done.map_err(|failed| raise(py, &failed)),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(error(
                    py,
                    "internal",
                    "internal error, please report it: a call of the chain panicked",
                    [None, None, None],
                ));
            }
        }
    }
}

fn address(py: Python<'_>, text: &str) -> PyResult<Address> {
    let message = || format!("{text:?} is no address (0x and 40 hexadecimal digits)");
    text.parse().map_err(|_| error(py, "invalid-input", &message(), [None, None, None]))
}

fn json(py: Python<'_>, text: &str) -> PyResult<serde_json::Value> {
    let refused = |failed: serde_json::Error| {
        error(py, "invalid-input", &format!("no JSON: {failed}"), [None, None, None])
    };
    serde_json::from_str(text).map_err(refused)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("DEVELOPMENT_CHAIN", DEVELOPMENT_CHAIN)?;
    module.add_class::<Chain>()
}
