//! The part of Ethereum's JSON-RPC that web3.py, viem and wallets need to follow a chain and to send
//! signed transactions. Accounts without their own key, mining and filters are left out on purpose.

use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256, keccak256};
use counterfoil::chain::{DEVELOPMENT_CHAIN, RpcError};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::block::{BASE_FEE, GAS_LIMIT};
use crate::chain::{Chain, call_environment};
use crate::query::{self, Filter};
use crate::{DevChain, chain::Called};

const PARSE: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const UNKNOWN_METHOD: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
pub(crate) const INTERNAL: i64 = -32603;
/// The node understood and will not.
pub(crate) const REJECTED: i64 = -32000;
const REVERTED: i64 = 3;
const LARGEST_BATCH: usize = 20;

pub(crate) fn error(code: i64, message: String) -> RpcError {
    RpcError { code, message, data: None }
}

/// Answers a request or a batch; whatever comes in, JSON goes out.
pub(crate) fn handle(chain: &DevChain, request: &str) -> String {
    let answer = match serde_json::from_str(request) {
        Err(reason) => failure(Value::Null, error(PARSE, reason.to_string())),
        Ok(Value::Array(batch)) if batch.is_empty() || batch.len() > LARGEST_BATCH => failure(
            Value::Null,
            error(INVALID_REQUEST, format!("a batch holds 1 to {LARGEST_BATCH} requests")),
        ),
        Ok(Value::Array(batch)) => batch.into_iter().map(|request| answer(chain, request)).collect(),
        Ok(request) => answer(chain, request),
    };
    answer.to_string()
}

fn answer(chain: &DevChain, mut request: Value) -> Value {
    let id = request.get("id").cloned().unwrap_or_default();
    let params = request.get_mut("params").map(Value::take).unwrap_or(json!([]));
    let Some(method) = request.get("method").and_then(Value::as_str) else {
        return failure(id, error(INVALID_REQUEST, "a request names its method".into()));
    };
    match dispatch(chain, method, params) {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => failure(id, error),
    }
}

fn failure(id: Value, error: RpcError) -> Value {
    let mut members = json!({"code": error.code, "message": error.message});
    if let Some(data) = error.data {
        members["data"] = data;
    }
    json!({"jsonrpc": "2.0", "id": id, "error": members})
}

/// Runs one method.
pub(crate) fn dispatch(node: &DevChain, method: &str, params: Value) -> Result<Value, RpcError> {
    let params = Params(params);
    let balance = |account, balance| node.set_balance(account, balance).map(|()| Value::Bool(true));
    Ok(match method {
        "eth_sendRawTransaction" => json!(node.mine(&params.required::<Bytes>(0)?)?),
        "anvil_setBalance" => balance(params.required(0)?, params.required(1)?)?,
        "web3_clientVersion" => json!(concat!("counterfoil-devchain/", env!("CARGO_PKG_VERSION"))),
        "web3_sha3" => json!(keccak256(params.required::<Bytes>(0)?)),
        "net_version" => json!(DEVELOPMENT_CHAIN.to_string()),
        "eth_chainId" => json!(U64::from(DEVELOPMENT_CHAIN)),
        "eth_accounts" => json!([]),
        "eth_syncing" => json!(false),
        "eth_gasPrice" => json!(U64::from(BASE_FEE)),
        "eth_maxPriorityFeePerGas" => json!(U64::ZERO),
        _ => return look(&node.lock(), method, &params),
    })
}

/// Methods that only look at the chain.
fn look(chain: &Chain, method: &str, params: &Params) -> Result<Value, RpcError> {
    Ok(match method {
        "dev_contract" => json!(chain.genesis().contract),
        "eth_blockNumber" => json!(U64::from(chain.latest().number)),
        "eth_getBlockByNumber" => {
            let number = query::block_number(chain, &params.required::<String>(0)?)?;
            let block = usize::try_from(number).ok().and_then(|number| chain.blocks().get(number));
            json!(block.map(|block| query::block(block, params.flag(1))))
        }
        "eth_getBlockByHash" => {
            json!(chain.block_by_hash(params.required(0)?).map(|block| query::block(block, params.flag(1))))
        }
        "eth_getTransactionByHash" => {
            json!(chain.block_of_transaction(params.required(0)?).map(query::transaction))
        }
        "eth_getTransactionReceipt" => {
            json!(chain.block_of_transaction(params.required(0)?).map(query::receipt))
        }
        "eth_getBlockReceipts" => {
            let block = chain.block_by_hash(params.required(0)?);
            json!(block.map(|block| block.mined.iter().map(|_| query::receipt(block)).collect::<Vec<_>>()))
        }
        "eth_getLogs" => query::logs(chain, &params.required::<Filter>(0)?)?,
        "eth_feeHistory" => query::fee_history(chain, params.required(0)?, &params.required::<String>(1)?)?,
        "eth_getBalance" => json!(chain.account(params.at_latest(chain, 1)?).balance),
        "eth_getTransactionCount" => json!(U64::from(chain.account(params.at_latest(chain, 1)?).nonce)),
        "eth_getCode" => json!(chain.code(params.at_latest(chain, 1)?)),
        "eth_getStorageAt" => json!(B256::from(chain.slot(params.at_latest(chain, 2)?, params.required(1)?))),
        "eth_call" => json!(finished(chain.call(params.call(chain)?.environment())?)?.outcome.output),
        "eth_estimateGas" => json!(U64::from(estimate(chain, &params.call(chain)?)?)),
        _ => return Err(error(UNKNOWN_METHOD, format!("the development chain has no method {method}"))),
    })
}

/// The least gas with which the call succeeds.
fn estimate(chain: &Chain, call: &Call) -> Result<u64, RpcError> {
    let run = |gas: u64| chain.call(revm::context::TxEnv { gas_limit: gas, ..call.environment() });
    let mut enough = call.environment().gas_limit;
    let mut too_little = finished(run(enough)?)?.gas_spent.saturating_sub(1);
    // A call may need more than it spends, since 1/64 of the gas stays behind at each depth.
    while enough - too_little > 1 {
        let middle = too_little + (enough - too_little) / 2;
        if run(middle).is_ok_and(|called| called.outcome.success) {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    Ok(enough)
}

fn finished(called: Called) -> Result<Called, RpcError> {
    if let Some(reason) = called.halted {
        return Err(error(REJECTED, format!("the call stopped: {reason}")));
    }
    if !called.outcome.success {
        let data = Some(json!(called.outcome.output));
        return Err(RpcError { code: REVERTED, message: "execution reverted".into(), data });
    }
    Ok(called)
}

/// The members of a call that matter here; fees do not, since nothing is paid.
#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    from: Address,
    to: Option<Address>,
    #[serde(default)]
    value: U256,
    #[serde(alias = "input", default)]
    data: Bytes,
    gas: Option<U64>,
}

impl Call {
    fn environment(&self) -> revm::context::TxEnv {
        let to = self.to.map_or(TxKind::Create, TxKind::Call);
        call_environment(self.from, to, self.value, self.data.clone(), self.gas.map(|gas| gas.to()))
    }
}

struct Params(Value);

impl Params {
    fn required<T: DeserializeOwned>(&self, index: usize) -> Result<T, RpcError> {
        let value = self.0.get(index).cloned().unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|reason| error(INVALID_PARAMS, format!("parameter {index}: {reason}")))
    }

    fn flag(&self, index: usize) -> bool {
        self.0.get(index).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Parameter 0 for a question about the state, which is kept for the latest block only.
    fn at_latest<T: DeserializeOwned>(&self, chain: &Chain, block: usize) -> Result<T, RpcError> {
        let named = self.0.get(block).filter(|named| !named.is_null());
        let number = match named {
            None => chain.latest().number,
            Some(Value::String(name)) => query::block_number(chain, name)?,
            Some(_) => return Err(error(INVALID_PARAMS, "name the block by its number or a tag".into())),
        };
        if number != chain.latest().number {
            return Err(error(
                REJECTED,
                format!("only the state after the latest block is kept, not that of {number}"),
            ));
        }
        self.required(0)
    }

    fn call(&self, chain: &Chain) -> Result<Call, RpcError> {
        self.at_latest(chain, 1)
    }
}

/// Gas that fits into a block, as the fee history reports it.
pub(crate) fn used_ratio(gas_used: u64) -> f64 {
    gas_used as f64 / GAS_LIMIT as f64
}
