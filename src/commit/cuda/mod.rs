//! Roots of tensors in the memory of an NVIDIA GPU, computed there.
//!
//! [`Plan`] says which launches of the kernel `reduce.cu` make the roots; the caller owns the memory
//! and the stream, [`launch`] puts the kernel on it and returns at once. The shipped `reduce.ptx` is
//! what `make ptx` compiles; its first line holds the hash of its source.

mod driver;
mod plan;

pub use driver::{CudaError, Device, devices, driver_version, launch};
pub use plan::{Launch, Plan};
