//! Libraries with the C interface of BLAS: OpenBLAS, BLIS, MKL and Apple's Accelerate.
//!
//! Not here: finding and loading them, and the loop that is timed.
//! The interface: BLAS Technical Forum standard (2001), appendix B; the products of 16- and 8-bit
//! factors are each vendor's own.

use super::operands::Layout;
use super::symbols::{self, Symbols};
use super::{GemmLibrary, Product};
use crate::bench::{ElementFormat, Library, Unmeasurable};
use std::ffi::{c_char, c_int, c_schar};

/// `CblasRowMajor`.
const ROW_MAJOR: c_int = 101;
/// `CblasNoTrans`.
const NOT_TRANSPOSED: c_int = 111;
/// `CblasFixOffset` of MKL: one number is added to all of C.
const FIXED_OFFSET: c_int = 173;
/// `MKL_THREADING_SEQUENTIAL`.
pub(super) const MKL_WITHOUT_THREADS: c_int = 1;
/// `MKL_INTERFACE_LP64`: sizes have 32 bits.
const MKL_SIZES_OF_32_BITS: c_int = 0;
/// `BLAS_THREADING_MULTI_THREADED` and `BLAS_THREADING_SINGLE_THREADED` of Accelerate.
const ACCELERATE_THREADING: [u32; 2] = [0, 1];
/// Longest version text taken from MKL, whose header advises 198.
const MKL_VERSION_BYTES: usize = 256;

/// C = alpha A x B + beta C with sizes of type `I`, factors `F` and sums `S`.
type Gemm<I, F, S> =
    unsafe extern "C" fn(c_int, c_int, c_int, I, I, I, S, *const F, I, *const F, I, S, *mut S, I);

/// `cblas_gemm_s8u8s32` of MKL: row-major A is unsigned, B signed.
type MklGemmInt8 = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    i32,
    i32,
    i32,
    f32,
    *const u8,
    i32,
    c_schar,
    *const i8,
    i32,
    c_schar,
    f32,
    *mut i32,
    i32,
    *const i32,
);

/// Makes a product of given sizes ready.
type Make = Box<dyn Fn(Layout) -> Result<Box<dyn Product>, Unmeasurable> + Send + Sync>;

/// Tells the library on how many threads the calling thread's next products run.
type SetThreads = Box<dyn Fn(usize) -> Result<(), Unmeasurable> + Send + Sync>;

/// A BLAS.
struct Blas {
    library: Library,
    version: String,
    products: Vec<(ElementFormat, Make)>,
    set_threads: SetThreads,
}

impl GemmLibrary for Blas {
    fn library(&self) -> Library {
        self.library
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn formats(&self) -> Vec<ElementFormat> {
        self.products.iter().map(|(format, _)| *format).collect()
    }

    fn set_threads(&self, n_threads: usize) -> Result<(), Unmeasurable> {
        (self.set_threads)(n_threads)
    }

    fn product(&self, layout: Layout) -> Result<Box<dyn Product>, Unmeasurable> {
        let mut products = self.products.iter();
        match products.find(|(format, _)| *format == layout.format) {
            Some((_, make)) => make(layout),
            None => Err(Unmeasurable(format!(
                "{} does not multiply {}",
                self.library.name(),
                layout.format.name()
            ))),
        }
    }
}

/// OpenBLAS: <https://github.com/OpenMathLib/OpenBLAS>, `cblas.h`.
pub(super) fn openblas(symbols: Symbols) -> Result<Box<dyn GemmLibrary>, String> {
    let symbols = symbols.named_like("openblas_get_config").unwrap_or(symbols);
    // SAFETY: the type in `cblas.h`.
    let config =
        unsafe { symbols.need::<unsafe extern "C" fn() -> *const c_char>("openblas_get_config")? };
    // SAFETY: takes nothing; the text is a static buffer.
    let version = unsafe { symbols::text(config()) };
    let has_64_bit_sizes = symbols.is_64_bit_by_name() || version.contains("USE64BITINT");
    let mut products = float_products(symbols, has_64_bit_sizes)?;
    let wide = has_64_bit_sizes;
    products.extend(add::<u16, f32>(symbols, "cblas_sbgemm", wide, ElementFormat::Bf16));
    products.extend(add::<u16, f32>(symbols, "cblas_shgemm", wide, ElementFormat::Fp16));
    // SAFETY: the types in `cblas.h`.
    let (set, parallel) = unsafe {
        let set = symbols.need::<unsafe extern "C" fn(c_int)>("openblas_set_num_threads")?;
        (set, symbols.get::<unsafe extern "C" fn() -> c_int>("openblas_get_parallel"))
    };
    // SAFETY: takes nothing; 0 is a build without threads.
    let has_threads = parallel.is_none_or(|parallel| unsafe { parallel() } != 0);
    let set_threads: SetThreads = Box::new(move |n_threads| {
        refuse_threads(has_threads, n_threads)?;
        // SAFETY: any positive number is allowed; no product runs meanwhile.
        unsafe { set(n_threads as c_int) };
        Ok(())
    });
    Ok(Box::new(Blas { library: Library::OpenBlas, version, products, set_threads }))
}

/// BLIS and AMD's AOCL-BLIS: <https://github.com/flame/blis>, docs/Multithreading.md.
pub(super) fn blis(symbols: Symbols) -> Result<Box<dyn GemmLibrary>, String> {
    // SAFETY: the types in `blis.h`; `gint_t` has the size of a pointer unless built otherwise.
    let (version, int_bits, threading, set) = unsafe {
        (
            symbols.need::<unsafe extern "C" fn() -> *const c_char>("bli_info_get_version_str")?,
            symbols.get::<unsafe extern "C" fn() -> isize>("bli_info_get_blas_int_type_size"),
            symbols.get::<unsafe extern "C" fn() -> isize>("bli_info_get_enable_threading"),
            symbols.need::<unsafe extern "C" fn(isize)>("bli_thread_set_num_threads")?,
        )
    };
    // SAFETY: take nothing; the text is static.
    let (mut version, int_bits, has_threads) = unsafe {
        let has_threads = threading.is_none_or(|threading| threading() != 0);
        (symbols::text(version()), int_bits.map(|bits| bits()), has_threads)
    };
    // SAFETY: the types in `blis.h`: an enum and its name.
    let kernels = unsafe {
        let query = symbols.get::<unsafe extern "C" fn() -> c_int>("bli_arch_query_id");
        let name = symbols.get::<unsafe extern "C" fn(c_int) -> *const c_char>("bli_arch_string");
        query.zip(name).map(|(query, name)| symbols::text(name(query())))
    };
    if let Some(kernels) = kernels {
        version = format!("{version} {kernels}");
    }
    let products = float_products(symbols, int_bits == Some(64))?;
    let set_threads: SetThreads = Box::new(move |n_threads| {
        refuse_threads(has_threads, n_threads)?;
        // SAFETY: any positive number is allowed; no product runs meanwhile.
        unsafe { set(n_threads as isize) };
        Ok(())
    });
    Ok(Box::new(Blas { library: Library::Blis, version, products, set_threads }))
}

/// Intel's oneMKL through its single library, `threading` being a value of
/// `MKL_Set_Threading_Layer` or nothing for MKL's own choice. Developer reference: "Support
/// Functions", "cblas_?gemm_*".
pub(super) fn mkl(
    symbols: Symbols,
    threading: Option<c_int>,
) -> Result<Box<dyn GemmLibrary>, String> {
    // SAFETY: the types in `mkl_service.h`.
    let (version, interface, layer, dynamic, set_local) = unsafe {
        (
            symbols.need::<unsafe extern "C" fn(*mut c_char, c_int)>("MKL_Get_Version_String")?,
            symbols.get::<unsafe extern "C" fn(c_int) -> c_int>("MKL_Set_Interface_Layer"),
            symbols.get::<unsafe extern "C" fn(c_int) -> c_int>("MKL_Set_Threading_Layer"),
            symbols.need::<unsafe extern "C" fn(c_int)>("MKL_Set_Dynamic")?,
            symbols.need::<unsafe extern "C" fn(c_int) -> c_int>("MKL_Set_Num_Threads_Local")?,
        )
    };
    let mut text = [0u8; MKL_VERSION_BYTES];
    // SAFETY: both layers are chosen before anything else is called, as they must be; the version
    // is at most as long as the buffer; dynamic threads may be switched off at any time.
    unsafe {
        interface.map(|interface| interface(MKL_SIZES_OF_32_BITS));
        layer.zip(threading).map(|(layer, threading)| layer(threading));
        version(text.as_mut_ptr().cast(), MKL_VERSION_BYTES as c_int - 1);
        dynamic(0);
    }
    let version = text.split(|&byte| byte == 0).next().unwrap_or_default();
    let version = String::from_utf8_lossy(version).trim().to_owned();
    let mut products = float_products(symbols, false)?;
    let bf16 = "cblas_gemm_bf16bf16f32";
    products.extend(add::<u16, f32>(symbols, bf16, false, ElementFormat::Bf16));
    let fp16 = "cblas_gemm_f16f16f32";
    products.extend(add::<u16, f32>(symbols, fp16, false, ElementFormat::Fp16));
    // SAFETY: the type in `mkl_cblas.h`.
    if let Some(gemm) = unsafe { symbols.get::<MklGemmInt8>("cblas_gemm_s8u8s32") } {
        products.push((ElementFormat::Int8, Box::new(move |layout| mkl_int8(gemm, layout))));
    }
    let has_threads = threading != Some(MKL_WITHOUT_THREADS);
    let set_threads: SetThreads = Box::new(move |n_threads| {
        refuse_threads(has_threads, n_threads)?;
        // SAFETY: any positive number is allowed; it holds for the calling thread.
        unsafe { set_local(n_threads as c_int) };
        // Products of 16-bit floats ask OpenMP alone (seen in MKL 2026.2).
        symbols::set_openmp_threads(n_threads);
        Ok(())
    });
    Ok(Box::new(Blas { library: Library::Mkl, version, products, set_threads }))
}

/// Apple's Accelerate: `vecLib/cblas.h`, `vecLib/thread_api.h` (macOS 15).
pub(super) fn accelerate(symbols: Symbols) -> Result<Box<dyn GemmLibrary>, String> {
    let products = float_products(symbols, false)?;
    // SAFETY: the type in `thread_api.h`.
    let set = unsafe { symbols.get::<unsafe extern "C" fn(u32) -> c_int>("BLASSetThreading") };
    let set_threads: SetThreads = Box::new(move |n_threads| {
        let threading = ACCELERATE_THREADING[usize::from(n_threads == 1)];
        // SAFETY: one of the two values there are.
        let done = set.is_some_and(|set| unsafe { set(threading) } == 0);
        match done || 1 < n_threads {
            true => Ok(()), // it uses what it likes anyway
            false => Err(Unmeasurable(
                "accelerate cannot be held to one thread before macOS 15".to_owned(),
            )),
        }
    });
    let version = "part of the operating system".to_owned();
    Ok(Box::new(Blas { library: Library::Accelerate, version, products, set_threads }))
}

fn refuse_threads(has_threads: bool, n_threads: usize) -> Result<(), Unmeasurable> {
    match has_threads || n_threads == 1 {
        true => Ok(()),
        false => Err(Unmeasurable("the library was built for one thread".to_owned())),
    }
}

/// `cblas_dgemm` and `cblas_sgemm`, which every BLAS has.
fn float_products(symbols: Symbols, wide: bool) -> Result<Vec<(ElementFormat, Make)>, String> {
    let fp64 = add::<f64, f64>(symbols, "cblas_dgemm", wide, ElementFormat::Fp64);
    let fp32 = add::<f32, f32>(symbols, "cblas_sgemm", wide, ElementFormat::Fp32);
    let missing = || "has no cblas_sgemm and cblas_dgemm".to_owned();
    Ok(vec![fp64.ok_or_else(missing)?, fp32.ok_or_else(missing)?])
}

/// A product of factors `F` with sums `S`, where the library has it, its sizes of 64 or 32 bits.
fn add<F: 'static, S: From<u8> + 'static>(
    symbols: Symbols,
    name: &str,
    wide: bool,
    format: ElementFormat,
) -> Option<(ElementFormat, Make)> {
    let make: Make = if wide {
        // SAFETY: the type that the standard gives it, with the sizes this build has.
        let gemm = unsafe { symbols.get::<Gemm<i64, F, S>>(name)? };
        Box::new(move |layout| call(gemm, layout))
    } else {
        // SAFETY: as above.
        let gemm = unsafe { symbols.get::<Gemm<i32, F, S>>(name)? };
        Box::new(move |layout| call(gemm, layout))
    };
    Some((format, make))
}

/// One of the library's functions with its sizes.
struct Call<I, F, S> {
    gemm: Gemm<I, F, S>,
    sizes: Sizes<I>,
}

/// A product's sizes as the library counts.
#[derive(Clone, Copy)]
struct Sizes<I> {
    m: I,
    n: I,
    k: I,
    a_stride: I,
    b_stride: I,
}

fn sizes<I: TryFrom<usize>>(layout: Layout) -> Result<Sizes<I>, Unmeasurable> {
    let size = |size: usize| {
        I::try_from(size)
            .map_err(|_| Unmeasurable(format!("{size} is more than this library's sizes can be")))
    };
    Ok(Sizes {
        m: size(layout.m)?,
        n: size(layout.n)?,
        k: size(layout.k)?,
        a_stride: size(layout.a_stride())?,
        b_stride: size(layout.b_stride())?,
    })
}

fn call<I, F, S>(gemm: Gemm<I, F, S>, layout: Layout) -> Result<Box<dyn Product>, Unmeasurable>
where
    I: TryFrom<usize> + Copy + 'static,
    F: 'static,
    S: From<u8> + 'static,
{
    Ok(Box::new(Call { gemm, sizes: sizes(layout)? }))
}

impl<I: Copy, F, S: From<u8>> Product for Call<I, F, S> {
    unsafe fn multiply(&mut self, a: *const u8, b: *const u8, c: *mut u8) {
        let Sizes { m, n, k, a_stride, b_stride } = self.sizes;
        // SAFETY: the caller vouches for matrices of these sizes; C's rows are as long as B's.
        unsafe {
            (self.gemm)(
                ROW_MAJOR,
                NOT_TRANSPOSED,
                NOT_TRANSPOSED,
                m,
                n,
                k,
                S::from(1),
                a.cast(),
                a_stride,
                b.cast(),
                b_stride,
                S::from(0),
                c.cast(),
                b_stride,
            );
        }
    }
}

/// MKL's 8-bit product with its sizes.
struct MklInt8 {
    gemm: MklGemmInt8,
    sizes: Sizes<i32>,
}

fn mkl_int8(gemm: MklGemmInt8, layout: Layout) -> Result<Box<dyn Product>, Unmeasurable> {
    Ok(Box::new(MklInt8 { gemm, sizes: sizes(layout)? }))
}

impl Product for MklInt8 {
    unsafe fn multiply(&mut self, a: *const u8, b: *const u8, c: *mut u8) {
        let Sizes { m, n, k, a_stride, b_stride } = self.sizes;
        let no_offset = 0i32;
        // SAFETY: the caller vouches for matrices of these sizes; C's rows are as long as B's.
        unsafe {
            (self.gemm)(
                ROW_MAJOR,
                NOT_TRANSPOSED,
                NOT_TRANSPOSED,
                FIXED_OFFSET,
                m,
                n,
                k,
                1.0,
                a,
                a_stride,
                0,
                b.cast(),
                b_stride,
                0,
                0.0,
                c.cast(),
                b_stride,
                &raw const no_offset,
            );
        }
    }
}
