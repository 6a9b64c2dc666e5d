//! The sha3 crate's Keccak-256 over the first bytes of a file, a rival of `benches/hashing.py`: prints
//! the seconds that one call takes and its result.

use std::time::Instant;

use sha3::{Digest, Keccak256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (path, size) = (arguments.next().ok_or("a path")?, arguments.next().ok_or("a size")?.parse()?);
    let mut data = std::fs::read(path)?;
    data.truncate(size);
    let (mut result, mut calls, start) = (Keccak256::digest(&data[..size / 8]), 0, Instant::now());
    while calls == 0 || start.elapsed().as_secs_f64() < 0.2 {
        result = Keccak256::digest(&data);
        calls += 1;
    }
    let result = counterfoil::primitives::Digest::from_slice(&result);
    let seconds = start.elapsed().as_secs_f64() / f64::from(calls);
    println!(r#"{{"wall": {seconds}, "cpu": {seconds}, "result": "{result:x}"}}"#);
    Ok(())
}
