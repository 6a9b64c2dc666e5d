//! Numpy arrays whose memory is their canonical bytes: taken without a call into Python.

use numpy::{
    PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;

macro_rules! element_types {
    ($($variant:ident $type:ty: $kind:literal $tag:literal),* $(,)?) => {
        /// A contiguous array in the machine's byte order, which is little-endian.
        pub(crate) enum PlainArray<'py> {
            $($variant(PyReadonlyArrayDyn<'py, $type>)),*
        }

        impl<'py> PlainArray<'py> {
            /// None for anything else, which `counterfoil.commit.describe` understands or refuses.
            pub(crate) fn new(value: &Bound<'py, PyAny>) -> Option<PlainArray<'py>> {
                let array = value.cast::<PyUntypedArray>().ok()?;
                if !array.is_c_contiguous() || cfg!(target_endian = "big") {
                    return None;
                }
                match (array.dtype().kind(), array.dtype().itemsize()) {
                    $(($kind, size) if size == size_of::<$type>() => {
                        let array = value.cast::<PyArrayDyn<$type>>().ok()?.try_readonly().ok()?;
                        // Numpy allows elements at odd addresses.
                        array.as_slice().is_ok().then_some(PlainArray::$variant(array))
                    })*
                    _ => None,
                }
            }

            pub(crate) fn dtype(&self) -> &'static str {
                match self {
                    $(PlainArray::$variant(_) => $tag),*
                }
            }

            pub(crate) fn shape(&self) -> Vec<u64> {
                let shape = match self {
                    $(PlainArray::$variant(array) => array.shape()),*
                };
                shape.iter().map(|extent| *extent as u64).collect()
            }

            pub(crate) fn bytes(&self) -> PyResult<&[u8]> {
                match self {
                    $(PlainArray::$variant(array) => Ok(bytemuck::cast_slice(array.as_slice()?))),*
                }
            }
        }
    };
}

element_types!(
    Bool bool: b'b' "BOOL",
    U8 u8: b'u' "U8",
    I8 i8: b'i' "I8",
    U16 u16: b'u' "U16",
    I16 i16: b'i' "I16",
    U32 u32: b'u' "U32",
    I32 i32: b'i' "I32",
    F32 f32: b'f' "F32",
    U64 u64: b'u' "U64",
    I64 i64: b'i' "I64",
    F64 f64: b'f' "F64",
);
