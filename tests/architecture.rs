//! The one-way order of the core, checked on its source text.
//!
//! A module stands on the modules before it and never on those behind it, so that a reader can
//! start at the bottom and a change at the top cannot reach a hash. Each rule is a function from
//! sources to complaints; the tests run it on `src/` and on a planted violation, because a rule
//! that has never been seen to fail may not be looking.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The modules in their order: each may use the earlier rows and itself.
const PURE: &[&[&str]] = &[
    &["primitives", "error"],
    &["sortition", "tensor"],
    &["update"],
    &["commit"],
    &["receipt"],
    &["evidence"],
    &["verify"],
];
/// The modules that touch the outside, in their order. They may use every pure module.
const IO: &[&[&str]] = &[&["journal"], &["keys"], &["files"], &["ledger"], &["chain", "storage"], &["audit"]];

/// Parts of the standard library that a pure module does without.
const OUTSIDE: &[&str] = &["env", "fs", "net", "process", "thread"];
/// Where a pure module computes in threads, behind the feature `io`.
const POOL: &[&str] = &["commit/engine.rs"];
/// Who may open sockets.
const SOCKETS: &[&str] = &["chain/", "storage/"];
/// Who may hold a private key: the types that can are named nowhere else.
const KEY_HOLDERS: &[&str] = &["keys", "receipt/signature.rs"];
const KEY_TYPES: &[&str] = &["SigningKey", "SecretKey", "NonZeroScalar"];
/// Files with `unsafe`: those that call instructions of one processor, or the driver of a GPU.
const UNSAFE_FILES: &[&str] = &[
    "commit/cuda/driver.rs",
    "commit/hash/keccak_avx512.rs",
    "commit/hash/sha256_avx512.rs",
    "commit/hash/sha256_ni.rs",
];

/// A source file: its path below `src/` and its text without comments, strings and unit tests.
struct Source {
    path: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let code = without_comments_and_strings(text);
        let end = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
        Source { path: path.to_owned(), code: code[..end].to_owned() }
    }

    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn within(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// First segments of the paths that begin with `root`, such as `fs` of `std::{fs, io}`.
    fn used_from(&self, root: &str) -> Vec<&str> {
        let mut found = Vec::new();
        for (start, _) in self.code.match_indices(&format!("{root}::")) {
            if self.code[..start].ends_with(|c: char| is_word(c) || c == ':') {
                continue;
            }
            let rest = &self.code[start + root.len() + 2..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(first_segments(group)),
                None => found.push(word_at_start(rest)),
            }
        }
        found
    }

    fn has_word(&self, word: &str) -> bool {
        self.code.match_indices(word).any(|(start, _)| {
            !self.code[..start].ends_with(is_word) && !self.code[start + word.len()..].starts_with(is_word)
        })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_at_start(text: &str) -> &str {
    &text[..text.find(|c: char| !is_word(c)).unwrap_or(text.len())]
}

/// The first segment of each item of a `use` group whose opening brace was already read.
fn first_segments(group: &str) -> Vec<&str> {
    let (mut depth, mut expect, mut found) = (0, true, Vec::new());
    for (place, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expect = true,
            c if expect && is_word(c) => {
                found.push(word_at_start(&group[place..]));
                expect = false;
            }
            _ => {}
        }
    }
    found
}

/// Blanks out comments, string literals and character literals.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut kept, mut at) = (String::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with('"') {
            quoted_length(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'{'") || rest.starts_with("'}'") {
            3
        } else {
            0
        };
        if skipped == 0 {
            let c = rest.chars().next().expect("not at the end");
            kept.push(c);
            at += c.len_utf8();
        } else {
            at += skipped;
        }
    }
    kept
}

fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (place, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

fn rank(module: &str) -> Option<usize> {
    PURE.iter().chain(IO).position(|row| row.contains(&module))
}

fn is_pure(module: &str) -> bool {
    PURE.iter().any(|row| row.contains(&module))
}

/// Every `crate::` path leads to the module itself or to an earlier row.
fn order(source: &Source) -> Vec<String> {
    let module = source.module();
    if module == "lib" {
        return Vec::new();
    }
    let Some(own) = rank(module) else {
        return vec![format!("{}: the module has no place in the order", source.path)];
    };
    let mut complaints = Vec::new();
    let mut used = source.used_from("crate");
    if !source.path.contains('/') || source.path.ends_with("/mod.rs") {
        used.extend(source.used_from("super")); // `super` of a top module is the crate
    } else if source.code.contains("super::super::") {
        complaints.push(format!("{}: write crate:: instead of super::super::", source.path));
    }
    for name in used {
        if name != module && rank(name).is_some_and(|other| other >= own) {
            complaints.push(format!("{}: {module} must not use {name}", source.path));
        }
    }
    complaints
}

/// Pure modules need no files, sockets, threads or environment; one file holds the thread pool.
fn purity(source: &Source) -> Vec<String> {
    if !is_pure(source.module()) {
        return Vec::new();
    }
    let is_pool = source.within(POOL);
    let mut complaints: Vec<String> = source
        .used_from("std")
        .into_iter()
        .filter(|name| OUTSIDE.contains(name) && !(is_pool && ["process", "thread"].contains(name)))
        .map(|name| format!("{}: a pure module must not use std::{name}", source.path))
        .collect();
    if source.has_word("rayon") && !is_pool {
        complaints.push(format!("{}: only {POOL:?} computes in threads", source.path));
    }
    complaints
}

/// Sockets live in `chain` and `storage`.
fn sockets(source: &Source) -> Vec<String> {
    let opens = source.used_from("std").contains(&"net") || source.has_word("ureq");
    if opens && !source.within(SOCKETS) {
        return vec![format!("{}: sockets live in chain and storage", source.path)];
    }
    Vec::new()
}

/// The types that hold a private key are named only in `keys` and the signer.
fn key_bytes(source: &Source) -> Vec<String> {
    if source.within(KEY_HOLDERS) {
        return Vec::new();
    }
    KEY_TYPES
        .iter()
        .filter(|name| source.has_word(name))
        .map(|name| format!("{}: {name} belongs in keys and the signer", source.path))
        .collect()
}

/// `unsafe` stands in the listed files only.
fn unsafe_code(source: &Source) -> Vec<String> {
    if source.has_word("unsafe") && !UNSAFE_FILES.contains(&source.path.as_str()) {
        return vec![format!("{}: unsafe outside the listed files", source.path)];
    }
    Vec::new()
}

/// No crate below the core knows Python.
fn free_of_python(dependencies: &str) -> bool {
    !dependencies.lines().any(|line| line.starts_with("pyo3") || line.starts_with("numpy "))
}

fn read_sources(folder: &Path, root: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            read_sources(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below src").to_string_lossy().replace('\\', "/");
            found.push(Source::new(&name, &fs::read_to_string(&path).expect("source is UTF-8")));
        }
    }
}

fn core_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    read_sources(&root, &root, &mut sources);
    assert!(sources.len() > 5, "found only {} sources", sources.len());
    sources
}

fn assert_holds(rule: fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = core_sources().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[track_caller]
fn assert_refused(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) {
    assert!(!rule(&Source::new(path, text)).is_empty(), "{path} was accepted: {text}");
}

#[track_caller]
fn assert_accepted(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) {
    assert_eq!(rule(&Source::new(path, text)), Vec::<String>::new());
}

#[test]
fn modules_stand_on_earlier_ones_only() {
    assert_holds(order);
}

#[test]
fn a_planted_use_of_a_later_module_is_found() {
    assert_refused(order, "tensor.rs", "use crate::commit::Tree;");
    assert_refused(order, "tensor.rs", "use super::commit::Tree;");
    assert_refused(order, "commit/merkle.rs", "use crate::{primitives::{Digest, keccak256}, receipt};");
    assert_refused(order, "commit/merkle.rs", "use super::super::receipt::Receipt;");
    assert_refused(order, "verify/mod.rs", "fn f() { crate::journal::read() }");
    assert_refused(order, "keys/mod.rs", "use crate::ledger::Ledger;");
    assert_refused(order, "helpers.rs", "");
    assert_accepted(order, "chain/rpc.rs", "use crate::{primitives::{audit, Digest}, receipt, chain};");
    assert_accepted(order, "tensor.rs", "// crate::audit\nconst A: &str = \"crate::audit\";");
    assert_accepted(order, "tensor.rs", "#[cfg(test)]\nmod tests { use crate::audit; }");
}

#[test]
fn pure_modules_touch_nothing_outside() {
    assert_holds(purity);
}

#[test]
fn a_planted_file_or_thread_in_a_pure_module_is_found() {
    assert_refused(purity, "verify/mod.rs", "use std::{collections::BTreeMap, fs::File};");
    assert_refused(purity, "receipt/mod.rs", "std::thread::spawn(|| ());");
    assert_refused(purity, "evidence/mod.rs", "use rayon::prelude::*;");
    assert_refused(purity, "commit/merkle.rs", "use rayon::prelude::*;");
    assert_refused(purity, "commit/engine.rs", "use std::fs::File;");
    assert_accepted(purity, "commit/engine.rs", "use rayon::prelude::*; use std::{process, thread};");
    assert_accepted(purity, "journal/mod.rs", "use std::{fs::File, thread};");
    assert_accepted(purity, "tensor.rs", "use std::{collections::{BTreeMap, fs}, fmt};");
}

#[test]
fn sockets_live_in_chain_and_storage() {
    assert_holds(sockets);
}

#[test]
fn a_planted_socket_is_found() {
    assert_refused(sockets, "audit/mod.rs", "use std::{io, net::TcpStream};");
    assert_refused(sockets, "keys/mod.rs", "let agent = ureq::agent();");
    assert_accepted(sockets, "chain/rpc.rs", "use std::net::TcpStream; use ureq::Agent;");
}

#[test]
fn key_bytes_stay_with_the_keys_and_the_signer() {
    assert_holds(key_bytes);
}

#[test]
fn a_planted_private_key_is_found() {
    assert_refused(key_bytes, "ledger/mod.rs", "use k256::ecdsa::SigningKey;");
    assert_refused(key_bytes, "chain/transaction.rs", "fn pay(key: &k256::SecretKey) {}");
    assert_accepted(key_bytes, "keys/mod.rs", "use k256::ecdsa::SigningKey;");
    assert_accepted(key_bytes, "receipt/codec.rs", "use k256::ecdsa::VerifyingKey;");
}

#[test]
fn unsafe_stands_in_listed_files_only() {
    assert_holds(unsafe_code);
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/python/src");
    let mut sources = Vec::new();
    read_sources(&shim, &shim, &mut sources);
    let holders: Vec<&str> = sources
        .iter()
        .filter(|source| source.has_word("unsafe"))
        .map(|source| source.path.as_str())
        .collect();
    assert_eq!(holders, ["arrays.rs", "cuda.rs"], "of the shim, those that take addresses from Python");
}

#[test]
fn a_planted_unsafe_block_is_found() {
    assert_refused(unsafe_code, "tensor.rs", "fn f() { unsafe { g() } }");
    assert_refused(unsafe_code, "commit/hash/sha256.rs", "fn f() { unsafe { g() } }");
    assert_accepted(unsafe_code, "tensor.rs", "//! There is no unsafe code.\nfn not_unsafe_at_all() {}");
}

#[test]
fn the_core_does_not_depend_on_python() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "counterfoil", "--edges", "normal", "--prefix", "none", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let dependencies = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(dependencies.contains("sha2 "), "not a dependency tree: {dependencies}");
    assert!(free_of_python(&dependencies), "{dependencies}");
}

#[test]
fn a_planted_python_dependency_is_found() {
    assert!(free_of_python("counterfoil v0.1.0 (path)\nsha2 v0.11.0\n"));
    assert!(!free_of_python("counterfoil v0.1.0 (path)\npyo3-ffi v0.30.0\nsha2 v0.11.0\n"));
}
