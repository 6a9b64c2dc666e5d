//! The shim: one Python function or method is argument parsing and one call of the core.

mod arrays;
mod audit;
mod chain;
mod commit;
mod contract;
mod cuda;
mod fingerprint;
mod gateway;
mod journal;
mod keys;
mod ledger;
mod merkle;
mod shard;
mod sortition;
mod storage;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    commit::register(module)?;
    cuda::register(module)?;
    fingerprint::register(module)?;
    merkle::register(module)?;
    shard::register(module)?;
    sortition::register(module)?;
    storage::register(module)?;
    keys::register(module)?;
    ledger::register(module)?;
    journal::register(module)?;
    audit::register(module)?;
    chain::register(module)?;
    contract::register(module)
}
