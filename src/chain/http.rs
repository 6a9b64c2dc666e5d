//! JSON-RPC over HTTP: the only place of the chain module that opens a socket.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

use super::{ChainError, Node, RpcError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: u64 = 16 << 20;

/// A node behind an `http://` or `https://` address.
#[derive(Debug)]
pub struct HttpNode {
    url: String,
    agent: Agent,
}

impl HttpNode {
    /// Names the node; nothing is sent yet.
    pub fn new(url: &str) -> Self {
        let agent = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(CALL_TIMEOUT))
            .max_redirects(0)
            .http_status_as_error(false)
            .build()
            .new_agent();
        Self { url: url.to_owned(), agent }
    }
}

impl Node for HttpNode {
    fn call(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let transport =
            |error: ureq::Error| ChainError::Transport { method: method.into(), reason: error.to_string() };
        let mut response = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .send(request.to_string())
            .map_err(transport)?;
        let status = response.status();
        let body =
            response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec().map_err(transport)?;
        // Nodes send JSON-RPC errors under many statuses, so the status matters only without JSON.
        match serde_json::from_slice::<Value>(&body) {
            Ok(answer) => read_answer(method, answer),
            Err(_) if !status.is_success() => {
                Err(ChainError::Transport { method: method.into(), reason: format!("HTTP status {status}") })
            }
            Err(error) => Err(ChainError::Malformed { method: method.into(), reason: error.to_string() }),
        }
    }
}

fn read_answer(method: &str, mut answer: Value) -> Result<Value, ChainError> {
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        let error = RpcError {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or("no message").to_owned(),
            data: error.get("data").cloned(),
        };
        return Err(ChainError::Rpc { method: method.into(), error });
    }
    let result = answer.as_object_mut().and_then(|members| members.remove("result"));
    result.ok_or_else(|| ChainError::Malformed {
        method: method.into(),
        reason: "neither result nor error".into(),
    })
}
