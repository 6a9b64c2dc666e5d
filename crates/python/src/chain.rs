//! The run ledger on a chain for Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use counterfoil::chain::outbox::Outbox;
use counterfoil::chain::{
    ChainError, Client, DEVELOPMENT_CHAIN, Networks, Node, Payer, Submitter, anchor_lane, deploy, why,
};
use counterfoil::evidence::AnchorRecord;
use counterfoil::keys::KeyFolder;
use counterfoil::ledger::{LedgerError, RunFolder};
use counterfoil::verify::Standing;
use counterfoil_devchain::DevChain;
use pyo3::prelude::*;

use crate::gateway::{address, enter, error, raise};
use crate::keys::Key;

/// How often a waiting call looks whether the user interrupted it.
const PATIENCE: Duration = Duration::from_millis(50);

/// A chain with a run ledger: the development chain in this process, or a node elsewhere.
#[pyclass(frozen, module = "counterfoil._native", name = "Chain")]
pub(crate) struct Chain {
    node: Arc<dyn Node>,
    pub(crate) client: Client,
    development: Option<Arc<DevChain>>,
}

#[pymethods]
impl Chain {
    /// Opens the development chain that lies in a folder.
    #[staticmethod]
    fn dev(py: Python<'_>, folder: PathBuf) -> PyResult<Chain> {
        let chain = Arc::new(enter(py, || DevChain::open(&folder))?);
        let node: Arc<dyn Node> = chain.clone();
        let client = enter(py, || Client::connect(Arc::clone(&node), &networks()?, None))?;
        Ok(Chain { node, client, development: Some(chain) })
    }

    #[staticmethod]
    #[pyo3(signature = (network, contract = None))]
    fn connect(py: Python<'_>, network: String, contract: Option<&str>) -> PyResult<Chain> {
        let contract = contract.map(|text| address(py, text)).transpose()?;
        wait(py, move |_| {
            let mut networks = networks()?;
            let node = networks.node(&network)?;
            let client = Client::connect(Arc::clone(&node), &networks, contract)?;
            Ok(Chain { node, client, development: None })
        })
    }

    /// As `connect`, where there may be no run ledger yet.
    #[staticmethod]
    fn reach(py: Python<'_>, network: String) -> PyResult<Chain> {
        wait(py, move |_| {
            let mut networks = networks()?;
            let node = networks.node(&network)?;
            let client = Client::reach(Arc::clone(&node), &networks, None)?;
            Ok(Chain { node, client, development: None })
        })
    }

    /// Brings the run ledger to a network.
    #[staticmethod]
    fn deploy(py: Python<'_>, network: String, key: &Key, chosen: bool) -> PyResult<Chain> {
        let payer = payer(key, chosen);
        wait(py, move |stop| {
            let mut networks = networks()?;
            let node = networks.node(&network)?;
            let client = deploy(Arc::clone(&node), &mut networks, payer, &outboxes()?, stop)?;
            Ok(Chain { node, client, development: None })
        })
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
        wait(py, move |_| node.call(&method, params)).map(|result| result.to_string())
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
        let head = wait(py, move |_| client.head(run, worker, lane))?;
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
        let (client, payer) = (self.client.clone(), self::payer(payer, chosen));
        let found =
            wait(py, move |stop| Submitter::new(client, payer, &outboxes()?, stop)?.revoke(worker, key))?;
        Ok((found.block, found.time))
    }

    /// The block and its time at which a key was revoked; none if it was not.
    fn revocation(&self, py: Python<'_>, worker: &str, key: &str) -> PyResult<Option<(u64, u64)>> {
        let (worker, key, client) = (address(py, worker)?, address(py, key)?, self.client.clone());
        Ok(wait(py, move |_| client.revocation(worker, key))?.map(|found| (found.block, found.time)))
    }

    #[getter]
    fn latest_block(&self, py: Python<'_>) -> PyResult<u64> {
        let client = self.client.clone();
        wait(py, move |_| client.latest_block())
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
        let (client, payer) = (self.client.clone(), payer(key, chosen));
        let record = wait(py, move |stop| {
            let outboxes = outboxes()?;
            let submitter = Submitter::new(client, payer, &outboxes, stop)?;
            anchor_lane(&submitter, &RunFolder::open(&folder)?, worker, lane)
        })?;
        Ok(serde_json::to_string(&record).expect("an anchor record is plain data"))
    }

    /// Brings what waits in the outbox of a key to its end; says how each submission ended.
    fn resume(&self, py: Python<'_>, key: &Key, chosen: bool) -> PyResult<Vec<String>> {
        let (client, payer) = (self.client.clone(), payer(key, chosen));
        wait(py, move |stop| Submitter::new(client, payer, &outboxes()?, stop)?.resume())
    }

    /// Why each submission to this chain waits that does.
    fn why(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let client = self.client.clone();
        wait(py, move |_| why(&client, &outboxes()?))
    }

    /// The block that holds an anchor, and the one that is as much later as the network asks for.
    fn block_of(&self, py: Python<'_>, record: &str) -> PyResult<(u64, u64)> {
        let (record, client) = (anchor_record(py, record)?, self.client.clone());
        let later = self.client.network().confirmations;
        let block = wait(py, move |_| client.block_of(&record))?;
        Ok((block, block.saturating_add(later)))
    }

    /// What this chain says about an anchor record: whether it holds it, and the block's time; none when it has
    /// nothing to say.
    fn confirm(&self, py: Python<'_>, record: &str) -> PyResult<Option<(bool, u64)>> {
        let (record, client) = (anchor_record(py, record)?, self.client.clone());
        let (standing, time) = wait(py, move |_| client.confirm(&record))?;
        Ok((standing != Standing::Unconfirmed).then_some((standing == Standing::Held, time)))
    }
}

fn anchor_record(py: Python<'_>, record: &str) -> PyResult<AnchorRecord> {
    serde_json::from_value(json(py, record)?).map_err(|refused| {
        error(py, "invalid-input", &format!("this is no anchor record: {refused}"), [None, None, None])
    })
}

/// Every submission: the name of its outbox, its task, and where it stands.
#[pyfunction]
fn submissions(py: Python<'_>) -> PyResult<Vec<(String, String, String)>> {
    let known = enter(py, || Outbox::all(&outboxes()?))?;
    let all = known.iter().flat_map(|(name, submissions)| submissions.iter().map(move |each| (name, each)));
    Ok(all.map(|(name, each)| (name.clone(), each.task.to_string(), each.state())).collect())
}

pub(crate) fn payer(key: &Key, chosen: bool) -> Payer {
    let signer = Arc::clone(&key.0);
    if chosen { Payer::Chosen(signer) } else { Payer::Device(signer) }
}

fn home() -> Result<PathBuf, ChainError> {
    let folder = KeyFolder::of_user().map_err(LedgerError::from)?;
    Ok(folder.path().to_owned())
}

pub(crate) fn outboxes() -> Result<PathBuf, ChainError> {
    Ok(home()?.join("outbox"))
}

fn networks() -> Result<Networks, ChainError> {
    Networks::load(&home()?)
}

/// Runs `work` on a thread of its own, so that Ctrl-C reaches a user who waits for a node. `work` is
/// told when nobody waits any more.
pub(crate) fn wait<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, ChainError> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver): (_, Receiver<Result<T, ChainError>>) = channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&is_over);
    std::thread::spawn(move || sender.send(work(&|| stop.load(Ordering::Relaxed))));
    loop {
        let answer;
        (receiver, answer) = py.detach(move || {
            let answer = receiver.recv_timeout(PATIENCE);
            (receiver, answer)
        });
        match answer {
            Ok(done) => return done.map_err(|failed| raise(py, &failed)),
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals().inspect_err(|_| is_over.store(true, Ordering::Relaxed))?;
            }
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

pub(crate) fn json(py: Python<'_>, text: &str) -> PyResult<serde_json::Value> {
    let refused = |failed: serde_json::Error| {
        error(py, "invalid-input", &format!("no JSON: {failed}"), [None, None, None])
    };
    serde_json::from_str(text).map_err(refused)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("DEVELOPMENT_CHAIN", DEVELOPMENT_CHAIN)?;
    module.add_function(wrap_pyfunction!(submissions, module)?)?;
    module.add_class::<Chain>()
}
