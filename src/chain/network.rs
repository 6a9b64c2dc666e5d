//! What differs between chains: a table, and the user's own file over it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy_primitives::U128;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::client::chain_id;
use super::http::shown;
use super::{ChainError, DEVELOPMENT_CHAIN, HttpNode, Node};
use crate::journal::write_durably;
use crate::primitives::Address;

const FILE: &str = "networks.json";

/// A chain, as far as submitting to it goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// EIP-155 id.
    pub chain_id: u64,
    /// How users call it.
    pub name: String,
    /// Its name in words.
    pub title: String,
    /// Where a node answers.
    #[serde(default)]
    pub rpc: Option<String>,
    /// The run ledger, where it does not lie at the address that its code gives it.
    #[serde(default)]
    pub contract: Option<Address>,
    /// Wei per gas below which its nodes refuse a tip.
    #[serde(deserialize_with = "wei")]
    pub tip_floor: u128,
    /// Blocks, that of the transaction included, after which a transaction counts as final.
    pub confirmations: u64,
    /// Most wei per gas that are paid.
    #[serde(deserialize_with = "wei")]
    pub fee_cap: u128,
    /// Most wei that one account spends within 24 hours.
    #[serde(deserialize_with = "wei")]
    pub budget: u128,
    /// What a unit of 10^18 wei is called.
    pub currency: String,
    /// Where a transaction is shown, before its hash.
    #[serde(default)]
    pub explorer: Option<String>,
    /// Where its currency is given away for trying.
    #[serde(default)]
    pub faucet: Option<String>,
}

impl Network {
    /// Whether its money is worth nothing and its keys are everybody's.
    pub fn is_development(&self) -> bool {
        self.chain_id == DEVELOPMENT_CHAIN
    }

    /// What a command needs to reach it, and to pay where a key has to be chosen.
    pub(super) fn options(&self) -> String {
        let key = if self.is_development() { "" } else { " --key FILE" };
        format!("--chain {}{key}", self.name)
    }

    /// An amount of wei in the network's currency.
    pub(super) fn amount(&self, wei: u128) -> String {
        let (whole, rest) = (wei / 10u128.pow(18), wei % 10u128.pow(18));
        let digits = format!("{rest:018}");
        let digits = digits.trim_end_matches('0');
        let point = if digits.is_empty() { "" } else { "." };
        format!("{whole}{point}{digits} {}", self.currency)
    }
}

/// The known networks. A user's `networks.json` in the key folder, an array of objects with a
/// `chainId` and whatever shall be different, goes over the table.
#[derive(Clone, Debug)]
pub struct Networks {
    any: Map<String, Value>,
    known: Vec<Map<String, Value>>,
    own: Vec<Map<String, Value>>,
    file: PathBuf,
    /// The name, or the node's address without its secrets, that the user typed; advice repeats it.
    typed: Option<String>,
}

impl Networks {
    /// Reads the user's file in `folder`, if there is one.
    ///
    /// # Errors
    /// [`ChainError::Networks`] when it cannot be read or says what no network has.
    pub fn load(folder: &Path) -> Result<Networks, ChainError> {
        #[derive(Deserialize)]
        struct Table {
            any: Map<String, Value>,
            known: Vec<Map<String, Value>>,
        }
        let Table { any, known } =
            serde_json::from_str(include_str!("networks.json")).expect("the table is committed");
        let mut networks = Networks { any, known, own: Vec::new(), file: folder.join(FILE), typed: None };
        networks.own = networks.read()?;
        for entry in &networks.own {
            let id = entry.get("chainId").and_then(Value::as_u64);
            networks.of(id.ok_or_else(|| networks.refused("each network needs a chainId".into()))?)?;
        }
        Ok(networks)
    }

    /// The user's file.
    fn read(&self) -> Result<Vec<Map<String, Value>>, ChainError> {
        match std::fs::read(&self.file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| self.refused(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.refused(error.to_string())),
        }
    }

    /// What is known of the chain with this id, or careful guesses.
    ///
    /// # Errors
    /// [`ChainError::Networks`] when the user's file says what no network has.
    pub fn of(&self, chain_id: u64) -> Result<Network, ChainError> {
        let has_id = |entry: &&Map<String, Value>| entry.get("chainId") == Some(&json!(chain_id));
        let guess =
            json!({"chainId": chain_id, "name": format!("{chain_id}"), "title": format!("chain {chain_id}")});
        let entry = self.known.iter().find(has_id).or(guess.as_object()).expect("an object");
        let network = self.merged(entry)?;
        Ok(Network { name: self.typed.clone().unwrap_or(network.name.clone()), ..network })
    }

    /// The network that users call so.
    ///
    /// # Errors
    /// As of [`Networks::of`].
    pub fn named(&self, name: &str) -> Result<Option<Network>, ChainError> {
        let has_name = |entry: &&Map<String, Value>| entry.get("name") == Some(&json!(name));
        if let Some(entry) = self.known.iter().find(has_name) {
            return self.merged(entry).map(Some);
        }
        let own = self.own.iter().find(has_name).and_then(|entry| entry.get("chainId")?.as_u64());
        own.map(|id| self.of(id)).transpose()
    }

    /// The node of a network, by its name or by the node's `http://` or `https://` address. Of a named
    /// network it refuses another chain's node.
    ///
    /// # Errors
    /// [`ChainError::NoSuchNetwork`], [`ChainError::WrongChain`], else what the node reports.
    pub fn node(&mut self, network: &str) -> Result<Arc<dyn Node>, ChainError> {
        if network.starts_with("http://") || network.starts_with("https://") {
            self.typed = Some(shown(network));
            return Ok(Arc::new(HttpNode::new(network)));
        }
        let found = self.named(network)?;
        let names = self.known.iter().chain(&self.own).filter(|entry| entry.contains_key("rpc"));
        let unknown = || ChainError::NoSuchNetwork {
            name: if network.contains(['/', '@', '?']) { shown(network) } else { network.to_owned() },
            known: names.filter_map(|entry| entry.get("name")?.as_str()).collect::<Vec<_>>().join(", "),
        };
        let (rpc, expected) =
            found.and_then(|found| Some((found.rpc?, found.chain_id))).ok_or_else(unknown)?;
        self.typed = Some(network.to_owned());
        let node = HttpNode::new(&rpc);
        match chain_id(&node)? {
            actual if actual == expected => Ok(Arc::new(node)),
            actual => Err(ChainError::WrongChain { expected, actual }),
        }
    }

    /// Writes into the user's file, as it is now, where the run ledger of a chain lies.
    ///
    /// # Errors
    /// [`ChainError::Networks`] when the file cannot be read any more, else what the disk reports.
    pub fn set_contract(&mut self, chain_id: u64, contract: Address) -> Result<(), ChainError> {
        self.own = self.read()?;
        let has_id = |entry: &&mut Map<String, Value>| entry.get("chainId") == Some(&json!(chain_id));
        match self.own.iter_mut().find(has_id) {
            Some(entry) => drop(entry.insert("contract".into(), json!(contract))),
            None => self.own.extend(json!({"chainId": chain_id, "contract": contract}).as_object().cloned()),
        }
        let text = serde_json::to_vec_pretty(&self.own).expect("plain data");
        Ok(write_durably(&self.file, &[&text, b"\n"])?)
    }

    /// An entry with what every network has below it and the user's words above it.
    fn merged(&self, entry: &Map<String, Value>) -> Result<Network, ChainError> {
        let own = self.own.iter().filter(|own| own.get("chainId") == entry.get("chainId"));
        let layers = [&self.any, entry].into_iter().chain(own);
        let mut merged = Map::new();
        merged.extend(layers.flat_map(|layer| layer.clone()));
        serde_json::from_value(Value::Object(merged)).map_err(|error| self.refused(error.to_string()))
    }

    fn refused(&self, detail: String) -> ChainError {
        ChainError::Networks { path: self.file.display().to_string(), detail }
    }
}

/// A number of wei, or a string of one, as JSON holds none above 2^64 exactly everywhere.
fn wei<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    U128::deserialize(deserializer).map(|wei| wei.to())
}
