//! oneDNN through its C interface: a `matmul` primitive on plain row-major matrices.
//!
//! Not here: blocked layouts. A primitive is made once, outside the time; its own packing of plain
//! operands is inside, as a program that hands over plain tensors pays for it.
//! The interface: <https://uxlfoundation.github.io/oneDNN>, `dnnl.h` of versions 2 and 3, which
//! differ in how a primitive is described.

use super::operands::Layout;
use super::symbols::{self, Symbols};
use super::{GemmLibrary, Product};
use crate::bench::{ElementFormat, Library, Unmeasurable};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

const SUCCESS: c_int = 0;
const CPU: c_int = 1;
/// `dnnl_stream_default_flags`: in order.
const IN_ORDER: c_uint = 1;
/// `DNNL_ARG_SRC`, `DNNL_ARG_WEIGHTS`, `DNNL_ARG_DST`.
const ARGUMENTS: [c_int; 3] = [1, 33, 17];
/// `DNNL_RUNTIME_SEQ` and `DNNL_RUNTIME_OMP`: where the library's threads come from.
const SEQUENTIAL: c_uint = 1;
const OPENMP: c_uint = 2;

/// Version 2's descriptors are structs of the caller: some 700 bytes a matrix, 3 KiB a product.
/// This is several times that, and aligned for any of their fields.
#[repr(C, align(64))]
struct Descriptor([u8; 16 << 10]);

impl Descriptor {
    fn new() -> Box<Descriptor> {
        Box::new(Descriptor([0; 16 << 10]))
    }

    fn as_handle(&mut self) -> *mut c_void {
        (&raw mut *self).cast()
    }
}

/// A handle of the library: an engine, a stream, a descriptor, a primitive.
type Handle = *mut c_void;

#[repr(C)]
struct Version {
    major: c_int,
    minor: c_int,
    patch: c_int,
    hash: *const c_char,
    cpu_runtime: c_uint,
    gpu_runtime: c_uint,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Argument {
    arg: c_int,
    memory: Handle,
}

type Destroy = unsafe extern "C" fn(Handle) -> c_int;

/// The functions that both versions have.
#[derive(Clone, Copy)]
struct Functions {
    engine_create: unsafe extern "C" fn(*mut Handle, c_int, usize) -> c_int,
    engine_destroy: Destroy,
    stream_create: unsafe extern "C" fn(*mut Handle, Handle, c_uint) -> c_int,
    stream_wait: unsafe extern "C" fn(Handle) -> c_int,
    stream_destroy: Destroy,
    memory_create: unsafe extern "C" fn(*mut Handle, Handle, Handle, *mut c_void) -> c_int,
    memory_set: unsafe extern "C" fn(Handle, *mut c_void) -> c_int,
    memory_destroy: Destroy,
    primitive_create: unsafe extern "C" fn(*mut Handle, Handle) -> c_int,
    primitive_execute: unsafe extern "C" fn(Handle, Handle, c_int, *const Argument) -> c_int,
    primitive_destroy: Destroy,
    description_destroy: Destroy,
    describe: Describe,
}

/// How a primitive is described.
#[derive(Clone, Copy)]
enum Describe {
    /// Structs of the caller, filled in by the library.
    Version2 {
        matrix: unsafe extern "C" fn(Handle, c_int, *const i64, c_int, *const i64) -> c_int,
        product: unsafe extern "C" fn(Handle, Handle, Handle, Handle, Handle) -> c_int,
        primitive: unsafe extern "C" fn(*mut Handle, Handle, Handle, Handle, Handle) -> c_int,
    },
    /// Handles.
    Version3 {
        matrix: unsafe extern "C" fn(*mut Handle, c_int, *const i64, c_int, *const i64) -> c_int,
        matrix_destroy: Destroy,
        primitive: unsafe extern "C" fn(
            *mut Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
            Handle,
        ) -> c_int,
    },
}

/// The library.
struct OneDnn {
    functions: Functions,
    version: String,
    formats: Vec<ElementFormat>,
    runtime: c_uint,
    set_openmp_threads: Option<unsafe extern "C" fn(c_int)>,
}

/// oneDNN, and which formats it multiplies on this machine: it answers when asked for a primitive.
pub(super) fn onednn(symbols: Symbols) -> Result<Box<dyn GemmLibrary>, String> {
    // SAFETY: the type in `dnnl.h`.
    let version =
        unsafe { symbols.need::<unsafe extern "C" fn() -> *const Version>("dnnl_version")? };
    // SAFETY: takes nothing; the struct is static and has these fields since version 1.
    let version = unsafe { version().as_ref() }.ok_or("does not tell its version")?;
    let functions = functions(symbols, version.major)?;
    let runtime = match version.cpu_runtime {
        SEQUENTIAL => "without threads",
        OPENMP => "OpenMP",
        _ => "threads that cannot be counted from outside",
    };
    let Version { major, minor, patch, hash, cpu_runtime, .. } = version;
    // SAFETY: a static text.
    let hash = unsafe { symbols::text(*hash) };
    let hash = hash.get(..9).unwrap_or(&hash);
    let mut library = OneDnn {
        functions,
        version: format!("{major}.{minor}.{patch} ({hash}), {runtime}"),
        formats: Vec::new(),
        runtime: *cpu_runtime,
        // SAFETY: the type in `omp.h`; found where the library itself finds it.
        set_openmp_threads: unsafe { symbols.get("omp_set_num_threads") },
    };
    let is_multiplied = |&format: &ElementFormat| {
        let layout = Layout { format, m: 64, n: 64, k: 64, padding: 0 };
        library.product(layout).is_ok()
    };
    library.formats = ElementFormat::ALL.into_iter().filter(is_multiplied).collect();
    match library.formats.is_empty() {
        true => Err("multiplies nothing here".to_owned()),
        false => Ok(Box::new(library)),
    }
}

fn functions(symbols: Symbols, major: c_int) -> Result<Functions, String> {
    // SAFETY: the types in `dnnl.h` of this major version.
    let describe = unsafe {
        match major {
            2 => Describe::Version2 {
                matrix: symbols.need("dnnl_memory_desc_init_by_strides")?,
                product: symbols.need("dnnl_matmul_desc_init")?,
                primitive: symbols.need("dnnl_primitive_desc_create")?,
            },
            3 => Describe::Version3 {
                matrix: symbols.need("dnnl_memory_desc_create_with_strides")?,
                matrix_destroy: symbols.need("dnnl_memory_desc_destroy")?,
                primitive: symbols.need("dnnl_matmul_primitive_desc_create")?,
            },
            _ => return Err(format!("is version {major}; versions 2 and 3 are known here")),
        }
    };
    // SAFETY: the types in `dnnl.h`, the same in versions 2 and 3.
    unsafe {
        Ok(Functions {
            engine_create: symbols.need("dnnl_engine_create")?,
            engine_destroy: symbols.need("dnnl_engine_destroy")?,
            stream_create: symbols.need("dnnl_stream_create")?,
            stream_wait: symbols.need("dnnl_stream_wait")?,
            stream_destroy: symbols.need("dnnl_stream_destroy")?,
            memory_create: symbols.need("dnnl_memory_create")?,
            memory_set: symbols.need("dnnl_memory_set_data_handle")?,
            memory_destroy: symbols.need("dnnl_memory_destroy")?,
            primitive_create: symbols.need("dnnl_primitive_create")?,
            primitive_execute: symbols.need("dnnl_primitive_execute")?,
            primitive_destroy: symbols.need("dnnl_primitive_destroy")?,
            description_destroy: symbols.need("dnnl_primitive_desc_destroy")?,
            describe,
        })
    }
}

impl GemmLibrary for OneDnn {
    fn library(&self) -> Library {
        Library::OneDnn
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn formats(&self) -> Vec<ElementFormat> {
        self.formats.clone()
    }

    fn set_threads(&self, n_threads: usize) -> Result<(), Unmeasurable> {
        match (self.runtime, self.set_openmp_threads) {
            (OPENMP, Some(set)) => {
                // SAFETY: any positive number is allowed; it holds for the calling thread.
                unsafe { set(n_threads as c_int) };
                Ok(())
            }
            (SEQUENTIAL, _) if n_threads == 1 => Ok(()),
            (SEQUENTIAL, _) => Err(Unmeasurable("this onednn was built for one thread".to_owned())),
            // Other runtimes take a thread for each processor that the process may use.
            (_, _) if 1 < n_threads => Ok(()),
            (_, _) => Err(Unmeasurable(
                "this build of onednn cannot be held to one thread from outside".to_owned(),
            )),
        }
    }

    fn product(&self, layout: Layout) -> Result<Box<dyn Product>, Unmeasurable> {
        let missing = || {
            let format = layout.format.name();
            Unmeasurable(format!("onednn does not multiply {format} on this machine"))
        };
        let [a, b, c] = data_types(layout.format).ok_or_else(missing)?;
        let size = |size: usize| i64::try_from(size).expect("a matrix that is in memory has sizes");
        let (m, n, k) = (size(layout.m), size(layout.n), size(layout.k));
        let (a_stride, b_stride) = (size(layout.a_stride()), size(layout.b_stride()));
        let matrices = [
            Matrix { dims: [m, k], strides: [a_stride, 1], data_type: a },
            Matrix { dims: [k, n], strides: [b_stride, 1], data_type: b },
            Matrix { dims: [m, n], strides: [b_stride, 1], data_type: c },
        ];
        let product = Matmul::new(self.functions, &matrices).ok_or_else(missing)?;
        Ok(Box::new(product))
    }
}

/// `dnnl_data_type_t` of A, B and C.
fn data_types(format: ElementFormat) -> Option<[c_int; 3]> {
    const F16: c_int = 1;
    const BF16: c_int = 2;
    const F32: c_int = 3;
    const S32: c_int = 4;
    const S8: c_int = 5;
    const U8: c_int = 6;
    const F64: c_int = 7;
    match format {
        ElementFormat::Fp64 => Some([F64; 3]),
        ElementFormat::Fp32 => Some([F32; 3]),
        ElementFormat::Bf16 => Some([BF16, BF16, F32]),
        ElementFormat::Fp16 => Some([F16, F16, F32]),
        ElementFormat::Int8 => Some([U8, S8, S32]),
        ElementFormat::Int16 => None,
    }
}

/// A plain matrix.
struct Matrix {
    dims: [i64; 2],
    strides: [i64; 2],
    data_type: c_int,
}

/// A primitive and all it needs; what was not made is null.
struct Matmul {
    functions: Functions,
    engine: Handle,
    stream: Handle,
    primitive: Handle,
    memories: [Handle; 3],
    /// Where each memory points now.
    places: [*mut c_void; 3],
}

impl Matmul {
    /// `None` if the library does not do this.
    fn new(functions: Functions, matrices: &[Matrix; 3]) -> Option<Matmul> {
        let mut made = Matmul {
            functions,
            engine: null_mut(),
            stream: null_mut(),
            primitive: null_mut(),
            memories: [null_mut(); 3],
            places: [null_mut(); 3],
        };
        // SAFETY: each handle is written before it is used; `made` destroys what there is.
        unsafe {
            ok((functions.engine_create)(&raw mut made.engine, CPU, 0))?;
            ok((functions.stream_create)(&raw mut made.stream, made.engine, IN_ORDER))?;
            match functions.describe {
                Describe::Version2 { .. } => made.make_version_2(matrices)?,
                Describe::Version3 { .. } => made.make_version_3(matrices)?,
            }
        }
        Some(made)
    }

    /// # Safety
    /// Engine and stream are made.
    unsafe fn make_version_2(&mut self, matrices: &[Matrix; 3]) -> Option<()> {
        let functions = self.functions;
        let Describe::Version2 { matrix, product, primitive } = functions.describe else {
            return None;
        };
        let mut descriptors = [Descriptor::new(), Descriptor::new(), Descriptor::new()];
        for (descriptor, one) in descriptors.iter_mut().zip(matrices) {
            let (dims, strides) = (one.dims.as_ptr(), one.strides.as_ptr());
            // SAFETY: the descriptor is larger than the library's struct; two sizes and strides.
            ok(unsafe { matrix(descriptor.as_handle(), 2, dims, one.data_type, strides) })?;
        }
        let [a, b, c] = descriptors.each_mut().map(|one| one.as_handle());
        let mut wanted = Descriptor::new();
        let wanted = wanted.as_handle();
        let mut described = null_mut();
        // SAFETY: descriptors as above; no bias, no attributes, no hint; the description is
        // destroyed once the primitive holds what it needs.
        unsafe {
            ok(product(wanted, a, b, null_mut(), c))?;
            ok(primitive(&raw mut described, wanted, null_mut(), self.engine, null_mut()))?;
            let created = ok((functions.primitive_create)(&raw mut self.primitive, described));
            (functions.description_destroy)(described);
            created?;
            self.make_memories([a, b, c])
        }
    }

    /// # Safety
    /// Engine and stream are made.
    unsafe fn make_version_3(&mut self, matrices: &[Matrix; 3]) -> Option<()> {
        let functions = self.functions;
        let Describe::Version3 { matrix, matrix_destroy, primitive } = functions.describe else {
            return None;
        };
        let mut handles = [null_mut(); 3];
        for (handle, one) in handles.iter_mut().zip(matrices) {
            let (dims, strides) = (one.dims.as_ptr(), one.strides.as_ptr());
            // SAFETY: two sizes and strides each. What fails stays null, which the library refuses.
            unsafe { matrix(handle, 2, dims, one.data_type, strides) };
        }
        let [a, b, c] = handles;
        let mut described = null_mut();
        let (none, engine) = (null_mut(), self.engine);
        // SAFETY: descriptors made above; no bias, no attributes. All descriptors are destroyed
        // once primitive and memories hold what they need.
        unsafe {
            let made = ok(primitive(&raw mut described, engine, a, b, none, c, none))
                .and_then(|()| ok((functions.primitive_create)(&raw mut self.primitive, described)))
                .and_then(|()| self.make_memories(handles));
            (functions.description_destroy)(described);
            for handle in handles {
                matrix_destroy(handle);
            }
            made
        }
    }

    /// # Safety
    /// The descriptors are made.
    unsafe fn make_memories(&mut self, descriptors: [Handle; 3]) -> Option<()> {
        for (memory, descriptor) in self.memories.iter_mut().zip(descriptors) {
            // SAFETY: the engine is made; a null place means that it is given later.
            ok(unsafe {
                (self.functions.memory_create)(memory, descriptor, self.engine, null_mut())
            })?;
        }
        Some(())
    }
}

fn ok(status: c_int) -> Option<()> {
    (status == SUCCESS).then_some(())
}

impl Product for Matmul {
    unsafe fn multiply(&mut self, a: *const u8, b: *const u8, c: *mut u8) {
        let places = [a.cast_mut().cast(), b.cast_mut().cast(), c.cast()];
        let [a, b, c] = self.memories;
        for ((memory, place), current) in [a, b, c].into_iter().zip(places).zip(&mut self.places) {
            if *current != place {
                // SAFETY: the caller vouches for a matrix of the memory's sizes.
                unsafe { (self.functions.memory_set)(memory, place) };
                *current = place;
            }
        }
        let arguments =
            [0, 1, 2].map(|idx| Argument { arg: ARGUMENTS[idx], memory: self.memories[idx] });
        // SAFETY: three arguments; all handles live. A failure leaves C as it was, which is seen.
        unsafe {
            (self.functions.primitive_execute)(self.primitive, self.stream, 3, arguments.as_ptr());
            (self.functions.stream_wait)(self.stream);
        }
    }
}

impl Drop for Matmul {
    fn drop(&mut self) {
        let Functions { memory_destroy, primitive_destroy, stream_destroy, engine_destroy, .. } =
            self.functions;
        let memories = self.memories.map(|memory| (memory, memory_destroy));
        let others = [
            (self.primitive, primitive_destroy),
            (self.stream, stream_destroy),
            (self.engine, engine_destroy),
        ];
        for (handle, destroy) in memories.into_iter().chain(others) {
            if !handle.is_null() {
                // SAFETY: made by this library, destroyed once, the engine last.
                unsafe { destroy(handle) };
            }
        }
    }
}
