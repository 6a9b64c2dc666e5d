//! Numpy arrays whose memory is their canonical bytes: taken without a call into Python.
#![allow(
    unsafe_code,
    reason = "The bytes of an array are read where they lie, as every function of the buffer protocol does: \
              numpy keeps them at this place as long as somebody holds the array, and the caller promises not \
              to write to them meanwhile. The numpy crate's own borrow would cost more than hashing a small \
              tensor, and ends the process if a callback changes the array's dtype."
)]

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

/// The tag of a numpy kind and item size. Booleans may hold bytes that are neither 0 nor 1, and are
/// left to `counterfoil.commit.describe`.
fn tag(kind: u8, size: usize) -> Option<&'static str> {
    Some(match (kind, size) {
        (b'u', 1) => "U8",
        (b'i', 1) => "I8",
        (b'u', 2) => "U16",
        (b'i', 2) => "I16",
        (b'f', 2) => "F16",
        (b'u', 4) => "U32",
        (b'i', 4) => "I32",
        (b'f', 4) => "F32",
        (b'u', 8) => "U64",
        (b'i', 8) => "I64",
        (b'f', 8) => "F64",
        (b'c', 8) => "C64",
        _ => return None,
    })
}

/// A contiguous array in little-endian byte order.
pub(crate) struct PlainArray<'py> {
    array: Bound<'py, PyUntypedArray>,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    start: *const u8,
    size: usize,
}

impl<'py> PlainArray<'py> {
    /// None for anything else, which `counterfoil.commit.describe` understands or refuses.
    pub(crate) fn new(value: &Bound<'py, PyAny>) -> Option<PlainArray<'py>> {
        let array = value.cast::<PyUntypedArray>().ok()?;
        // Not its subclasses, which may mean something else by their elements.
        let is_plain = value.get_type().is(value.py().get_type::<PyUntypedArray>());
        let descriptor = array.dtype();
        let is_native = descriptor.is_native_byteorder().unwrap_or(true) && cfg!(target_endian = "little");
        if !is_plain || !is_native || !array.is_c_contiguous() {
            return None;
        }
        let dtype = tag(descriptor.kind(), descriptor.itemsize())?;
        // SAFETY: the pointer is that of a living array.
        let start = unsafe { (*array.as_array_ptr()).fields.data }.cast_const().cast();
        let shape = array.shape().iter().map(|extent| *extent as u64).collect();
        let size = array.len() * descriptor.itemsize();
        Some(PlainArray { array: array.clone(), dtype, shape, start, size })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        if self.size == 0 {
            return &[];
        }
        // SAFETY: a contiguous array has so many bytes from there on, initialised by numpy, and `array`
        // keeps them: numpy refuses to resize an array that somebody else holds. Forcing it to (`refcheck=
        // False`) while it is hashed breaks the caller's promise, as writing to it does.
        debug_assert!(self.array.is_c_contiguous());
        unsafe { std::slice::from_raw_parts(self.start, self.size) }
    }
}
