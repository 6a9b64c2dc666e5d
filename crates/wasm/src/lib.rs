//! The verifier of bundles, for browsers and node, without any glue.
//!
//! The caller asks for room with [`input`], writes `judgement length (u32, little-endian) ||
//! judgement || bundle` there, calls [`verify`], and reads the JSON that lies at [`output`]:
//! `{"headline", "verdict"}` or `{"error", "message"}`.
//!
//! The only thing unsafe here is that the functions keep their names, so that they can be found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use counterfoil::commit::Entry;
use counterfoil::evidence::{Bundle, BundleError};
use counterfoil::primitives::{Reader, Report};
use counterfoil::verify::{Contents, Judgement, bundle_object, bundle_object_root, headline, unconfirmed};
use serde_json::{Value, json};

static INPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static OUTPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn lock(buffer: &'static Mutex<Vec<u8>>) -> MutexGuard<'static, Vec<u8>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for so many bytes of input; valid until the next call of any function.
#[allow(unsafe_code, reason = "a name that JavaScript finds")]
#[unsafe(no_mangle)]
pub extern "C" fn input(length: usize) -> *mut u8 {
    let mut buffer = lock(&INPUT);
    *buffer = vec![0; length];
    buffer.as_mut_ptr()
}

/// Verifies what lies in the input; returns the number of bytes of the answer.
#[allow(unsafe_code, reason = "a name that JavaScript finds")]
#[unsafe(no_mangle)]
pub extern "C" fn verify() -> usize {
    let input = std::mem::take(&mut *lock(&INPUT));
    let answer = judge(input).unwrap_or_else(|refused| refused);
    let text = answer.to_string().into_bytes();
    let length = text.len();
    *lock(&OUTPUT) = text;
    length
}

/// Where the answer lies; valid until the next call of any function.
#[allow(unsafe_code, reason = "a name that JavaScript finds")]
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    lock(&OUTPUT).as_ptr()
}

fn judge(input: Vec<u8>) -> Result<Value, Value> {
    let refused = |message: &str| json!({ "error": "invalid-input", "message": message });
    let mut reader = Reader::new(&input);
    let length = reader.array().map(u32::from_le_bytes).map_err(|error| refused(&error.to_string()))?;
    let judgement = reader.take(length as usize).map_err(|error| refused(&error.to_string()))?;
    let judgement: Judgement = serde_json::from_slice(judgement)
        .map_err(|error| refused(&format!("this is no requirement: {error}")))?;
    let bundle = reader.rest().to_vec();
    drop(input);
    let damaged = |error: BundleError| json!({ "error": error.code(), "message": error.to_string() });
    let size = bundle.len() as u64;
    let bundle = Bundle::open(Arc::new(bundle), size).map_err(damaged)?;
    let contents = Contents::of_bundle(&bundle).map_err(damaged)?;
    let root = |tensor: &Entry| bundle_object_root(&bundle, tensor);
    let verdict = contents.verify(&judgement, &unconfirmed, &root, &|tensor| bundle_object(&bundle, tensor));
    Ok(json!({ "headline": headline(&verdict), "verdict": verdict }))
}
