//! Numpy arrays and PyTorch tensors whose memory is their canonical bytes: taken where they lie.
#![allow(
    unsafe_code,
    reason = "The bytes of an array are read where they lie, as every function of the buffer protocol does: \
              numpy and PyTorch keep them at this place as long as somebody holds the array, and the caller promises \
              not to write to them meanwhile. The numpy crate's own borrow would cost more than hashing a small \
              tensor, and ends the process if a callback changes the array's dtype."
)]

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

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

/// PyTorch's dtypes, but for booleans as above, with their tags and item sizes.
const TENSORS: [(&str, &str, usize); 16] = [
    ("float32", "F32", 4),
    ("bfloat16", "BF16", 2),
    ("float16", "F16", 2),
    ("float64", "F64", 8),
    ("int64", "I64", 8),
    ("uint8", "U8", 1),
    ("int32", "I32", 4),
    ("int8", "I8", 1),
    ("int16", "I16", 2),
    ("uint16", "U16", 2),
    ("uint32", "U32", 4),
    ("uint64", "U64", 8),
    ("complex64", "C64", 8),
    ("float8_e4m3fn", "F8_E4M3", 1),
    ("float8_e5m2", "F8_E5M2", 1),
    ("float8_e8m0fnu", "F8_E8M0", 1),
];

/// What is asked of PyTorch once.
struct Torch {
    tensor: Py<PyType>,
    parameter: Py<PyType>,
    /// Positions in `TENSORS` by dtype.
    dtypes: Py<PyDict>,
}

impl Torch {
    /// None as long as nobody imported it: then no value is a tensor.
    fn get(py: Python<'_>) -> Option<&Torch> {
        static TORCH: PyOnceLock<Torch> = PyOnceLock::new();
        if let Some(torch) = TORCH.get(py) {
            return Some(torch);
        }
        let modules = py.import("sys").ok()?.getattr("modules").ok()?;
        let torch = modules.get_item("torch").ok()?;
        let dtypes = PyDict::new(py);
        for (position, (name, ..)) in TENSORS.iter().enumerate() {
            if let Ok(dtype) = torch.getattr(*name) {
                dtypes.set_item(dtype, position).ok()?;
            }
        }
        let class =
            |owner: &Bound<'_, PyAny>, name: &str| Some(owner.getattr(name).ok()?.cast_into().ok()?.unbind());
        let found = Torch {
            tensor: class(&torch, "Tensor")?,
            parameter: class(&torch.getattr("nn").ok()?, "Parameter")?,
            dtypes: dtypes.unbind(),
        };
        Some(TORCH.get_or_init(py, || found))
    }
}

/// A contiguous array in little-endian byte order.
pub(crate) struct PlainArray<'py> {
    /// Keeps the memory.
    _array: Bound<'py, PyAny>,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    start: *const u8,
    size: usize,
}

impl<'py> PlainArray<'py> {
    /// None for anything else, which `counterfoil.commit.describe` understands or refuses.
    pub(crate) fn new(value: &Bound<'py, PyAny>) -> Option<PlainArray<'py>> {
        if cfg!(target_endian = "big") {
            return None;
        }
        PlainArray::of_numpy(value).or_else(|| PlainArray::of_torch(value).ok().flatten())
    }

    fn of_numpy(value: &Bound<'py, PyAny>) -> Option<PlainArray<'py>> {
        let array = value.cast::<PyUntypedArray>().ok()?;
        // Not its subclasses, which may mean something else by their elements.
        let is_plain = value.get_type().is(value.py().get_type::<PyUntypedArray>());
        let descriptor = array.dtype();
        let is_native = descriptor.is_native_byteorder().unwrap_or(true);
        if !is_plain || !is_native || !array.is_c_contiguous() {
            return None;
        }
        let dtype = tag(descriptor.kind(), descriptor.itemsize())?;
        // SAFETY: the pointer is that of a living array.
        let start = unsafe { (*array.as_array_ptr()).fields.data }.cast_const().cast();
        let shape = array.shape().iter().map(|extent| *extent as u64).collect();
        let size = array.len() * descriptor.itemsize();
        Some(PlainArray { _array: value.clone(), dtype, shape, start, size })
    }

    /// What PyTorch refuses to say is left to `describe` as well, which says why.
    fn of_torch(value: &Bound<'py, PyAny>) -> PyResult<Option<PlainArray<'py>>> {
        let py = value.py();
        let Some(torch) = Torch::get(py) else { return Ok(None) };
        let class = value.get_type();
        // Other classes wrap tensors, and have no memory or one that is not their own.
        if !class.is(&torch.tensor) && !class.is(&torch.parameter) {
            return Ok(None);
        }
        let Some(position) = torch.dtypes.bind(py).get_item(value.getattr(intern!(py, "dtype"))?)? else {
            return Ok(None);
        };
        let (_, dtype, item) = TENSORS[position.extract::<usize>()?];
        let is = |name| value.call_method0(name).and_then(|answer| answer.extract::<bool>());
        // Tensors of other layouts have no pointer, or no shape.
        let is_plain = value.getattr(intern!(py, "is_cpu"))?.extract::<bool>()?
            && is(intern!(py, "is_contiguous"))?
            && !is(intern!(py, "is_neg"))?
            && !(dtype == "C64" && is(intern!(py, "is_conj"))?);
        if !is_plain {
            return Ok(None);
        }
        let shape = value.getattr(intern!(py, "shape"))?.cast_into::<PyTuple>()?;
        let shape = shape.iter().map(|extent| extent.extract()).collect::<PyResult<Vec<u64>>>()?;
        let size = shape.iter().product::<u64>() as usize * item;
        let start: usize = value.call_method0(intern!(py, "data_ptr"))?.extract()?;
        let offset: usize = value.call_method0(intern!(py, "storage_offset"))?.extract()?;
        let storage = value.call_method0(intern!(py, "untyped_storage"))?;
        let held: usize = storage.call_method0(intern!(py, "nbytes"))?.extract()?;
        // Sharded training frees the memory of tensors that it keeps.
        if size > 0 && (start == 0 || offset * item + size > held) {
            return Ok(None);
        }
        Ok(Some(PlainArray { _array: value.clone(), dtype, shape, start: start as *const u8, size }))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        if self.size == 0 {
            return &[];
        }
        // SAFETY: a contiguous array has so many bytes from there on, initialised by its library, and `_array`
        // keeps them: numpy refuses to resize an array that somebody else holds, and PyTorch frees a storage when
        // the last tensor is gone. Forcing either (`refcheck=False`, `resize_`) while it is hashed breaks the
        // caller's promise, as writing to it does.
        unsafe { std::slice::from_raw_parts(self.start, self.size) }
    }
}
