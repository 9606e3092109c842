//! A library's product as a kernel of a worker: right before it is timed, hot or cold, on one
//! thread or on the library's own.
//!
//! Not here: the libraries.

use super::operands::{Expected, Layout, Operands};
use super::{GemmLibrary, Product};
use crate::bench::Unmeasurable;
use crate::cpu::os;
use crate::cpu::workers::Kernel;
use std::sync::Arc;
use std::time::Instant;

/// The piece of a product by whose time the whole one's is foreseen.
const PIECE_EDGE: usize = 256;
/// A product that would take longer is not tried: a sample needs several.
const MAX_PRODUCT_S: f64 = 10.0;
/// Nor is one that would take longer than this at so few operations a second that it is no kernel
/// of this machine: a library's fallback for a format it has no instructions for.
const MAX_SLOW_PRODUCT_S: f64 = 1.0;
const SLOW_FLOPS_PER_S: f64 = 5e9;

/// What one experiment asks of a library.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) layout: Layout,
    /// Sets of operands that are used in turn: one if they are to be hot, so many that the caches
    /// have forgotten each when its turn comes again if they are to be cold.
    pub(super) n_copies: usize,
    pub(super) n_threads: usize,
    /// The processors that the library's threads may use; empty where the system does not say.
    pub(super) cpus: Vec<usize>,
}

/// Makes the product on the thread that will call it, and verifies it.
pub(super) fn build(
    library: &Arc<dyn GemmLibrary>,
    order: &Order,
) -> Result<Box<dyn Kernel>, Unmeasurable> {
    let own_cpus = os::allowed_cpus();
    let is_widened = 1 < order.n_threads && os::confine_to(&order.cpus);
    let built = build_widened(&**library, order);
    if let (true, Some(own_cpus)) = (is_widened, own_cpus) {
        // The library's threads have inherited the wide set; the caller goes back to its place, so
        // that the clock beside it is that of one processor.
        os::confine_to(&own_cpus);
    }
    built
}

fn build_widened(
    library: &dyn GemmLibrary,
    order: &Order,
) -> Result<Box<dyn Kernel>, Unmeasurable> {
    library.set_threads(order.n_threads)?;
    refuse_endless(library, order.layout)?;
    let product = library.product(order.layout)?;
    let copies: Result<Vec<Operands>, Unmeasurable> =
        (0..order.n_copies).map(|_| Operands::new(order.layout)).collect();
    let copies = copies?;
    let expected = copies[0].expected();
    let work = order.layout.n_operations();
    let has_own_threads = 1 < order.n_threads;
    let mut repeated =
        Repeated { product, copies, last: 0, expected, work, has_own_threads, has_run: false };
    for _ in 0..order.n_copies {
        repeated.run(1); // each copy is right, and its pages are mapped
        if !repeated.is_correct() {
            return Err(Unmeasurable("the product differs from a naive one".to_owned()));
        }
    }
    Ok(Box::new(repeated))
}

/// Multiplies a small piece twice and foresees the whole from the second: the first one starts
/// threads and generates code.
fn refuse_endless(library: &dyn GemmLibrary, layout: Layout) -> Result<(), Unmeasurable> {
    let edge = |size: usize| size.min(PIECE_EDGE);
    let (m, n, k) = (edge(layout.m), edge(layout.n), edge(layout.k));
    let piece = Layout { m, n, k, ..layout };
    let mut operands = Operands::new(piece)?;
    let mut product = library.product(piece)?;
    let (a, b, c) = operands.pointers();
    let mut seconds = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        // SAFETY: matrices of this very layout.
        unsafe { product.multiply(a, b, c) };
        seconds = start.elapsed().as_secs_f64();
    }
    let rate = piece.n_operations() / seconds.max(1e-9);
    let foreseen_s = layout.n_operations() / rate;
    let is_fallback = rate < SLOW_FLOPS_PER_S && MAX_SLOW_PRODUCT_S < foreseen_s;
    if MAX_PRODUCT_S < foreseen_s || is_fallback {
        return Err(Unmeasurable(format!(
            "{} reaches {:.2} GFLOP/s here at {m}x{n}x{k}: one product of this shape would take \
             {foreseen_s:.0} s",
            library.library().name(),
            rate / 1e9
        )));
    }
    Ok(())
}

/// Tries each format once, on small matrices; meant for a child process.
pub(super) fn try_once(
    library: &dyn GemmLibrary,
    n_threads: usize,
    step: &mut dyn FnMut(&str),
) -> Result<(), String> {
    for format in library.formats() {
        for n_threads in [1, n_threads] {
            step(&format!("multiplying {} on {n_threads} threads", format.name()));
            if library.set_threads(n_threads).is_err() {
                continue; // it says so when it is asked for
            }
            let layout = Layout { format, m: 96, n: 80, k: 64, padding: 0 };
            let mut operands = Operands::new(layout).map_err(|error| error.to_string())?;
            let mut product = library.product(layout).map_err(|error| error.to_string())?;
            let (a, b, c) = operands.pointers();
            // SAFETY: matrices of this very layout.
            unsafe { product.multiply(a, b, c) };
        }
    }
    Ok(())
}

/// The product, over and over.
struct Repeated {
    product: Box<dyn Product>,
    copies: Vec<Operands>,
    /// The copy that was multiplied last.
    last: usize,
    expected: Vec<Expected>,
    /// Operations of one product.
    work: f64,
    has_own_threads: bool,
    has_run: bool,
}

impl Kernel for Repeated {
    fn has_own_threads(&self) -> bool {
        self.has_own_threads
    }

    fn run(&mut self, amount: u64) {
        for _ in 0..amount {
            self.last = (self.last + 1) % self.copies.len();
            let (a, b, c) = self.copies[self.last].pointers();
            // SAFETY: every copy has the layout that the product was made for.
            unsafe { self.product.multiply(a, b, c) };
            self.has_run = true;
        }
    }

    fn work(&self, amount: u64) -> f64 {
        self.work * amount as f64
    }

    /// The sample is right in the last result, and is wiped for the next.
    fn is_correct(&mut self) -> bool {
        let operands = &mut self.copies[self.last];
        let is_correct = self.has_run && operands.holds(&self.expected);
        operands.wipe(&self.expected);
        is_correct
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{ElementFormat, Library};

    /// FP32 by three loops; wrong from a given product on, or slow.
    struct Loops {
        wrong_from: u32,
        delay_s: f64,
    }

    struct LoopsProduct {
        layout: Layout,
        n_products: u32,
        wrong_from: u32,
        delay_s: f64,
    }

    impl GemmLibrary for Loops {
        fn library(&self) -> Library {
            Library::OpenBlas
        }
        fn version(&self) -> String {
            String::new()
        }
        fn formats(&self) -> Vec<ElementFormat> {
            vec![ElementFormat::Fp32]
        }
        fn set_threads(&self, n_threads: usize) -> Result<(), Unmeasurable> {
            match n_threads {
                1 | 2 => Ok(()),
                _ => Err(Unmeasurable("two threads at most".to_owned())),
            }
        }
        fn product(&self, layout: Layout) -> Result<Box<dyn Product>, Unmeasurable> {
            let Loops { wrong_from, delay_s } = *self;
            Ok(Box::new(LoopsProduct { layout, n_products: 0, wrong_from, delay_s }))
        }
    }

    impl Product for LoopsProduct {
        unsafe fn multiply(&mut self, a: *const u8, b: *const u8, c: *mut u8) {
            std::thread::sleep(std::time::Duration::from_secs_f64(self.delay_s));
            self.n_products += 1;
            let wrong = if self.wrong_from <= self.n_products { 0.25 } else { 0.0 };
            let (a, b, c) = (a.cast::<f32>(), b.cast::<f32>(), c.cast::<f32>());
            let Layout { m, n, k, .. } = self.layout;
            let (a_stride, b_stride) = (self.layout.a_stride(), self.layout.b_stride());
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let terms = (0..k).map(|depth| {
                    // SAFETY: the caller vouches for matrices of the layout.
                    unsafe { *a.add(row * a_stride + depth) * *b.add(depth * b_stride + column) }
                });
                let sum: f32 = terms.sum();
                // SAFETY: as above.
                unsafe { c.add(row * b_stride + column).write(sum + wrong) };
            }
        }
    }

    fn order(n_copies: usize, n_threads: usize) -> Order {
        let layout = Layout { format: ElementFormat::Fp32, m: 17, n: 9, k: 12, padding: 3 };
        Order { layout, n_copies, n_threads, cpus: os::allowed_cpus().unwrap_or_default() }
    }

    fn loops(wrong_from: u32, delay_s: f64) -> Arc<dyn GemmLibrary> {
        Arc::new(Loops { wrong_from, delay_s })
    }

    #[test]
    fn a_right_library_is_run_on_every_copy_in_turn() {
        let mut kernel = build(&loops(u32::MAX, 0.0), &order(3, 1)).unwrap();
        assert!(!kernel.has_own_threads());
        assert!((kernel.work(4) - 4.0 * 2.0 * 17.0 * 9.0 * 12.0).abs() < 1e-9);
        kernel.run(4);
        assert!(kernel.is_correct());
        kernel.run(2);
        assert!(kernel.is_correct());
        kernel.run(0);
        assert!(!kernel.is_correct(), "nothing was written since the sample was wiped");
    }

    #[test]
    fn the_caller_stays_where_it_was() {
        let before = os::allowed_cpus();
        let kernel = build(&loops(u32::MAX, 0.0), &order(1, 2)).unwrap();
        assert!(kernel.has_own_threads());
        assert_eq!(os::allowed_cpus(), before);
        assert!(build(&loops(u32::MAX, 0.0), &order(1, 3)).is_err());
        assert_eq!(os::allowed_cpus(), before);
    }

    #[test]
    fn a_wrong_library_is_refused_at_once_or_found_out_later() {
        // The piece is multiplied by a product of its own, so the whole one's count starts anew.
        let refused = build(&loops(1, 0.0), &order(2, 1)).err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some("the product differs from a naive one"));
        let mut kernel = build(&loops(3, 0.0), &order(2, 1)).unwrap();
        kernel.run(1);
        assert!(!kernel.is_correct());
    }

    #[test]
    fn a_product_that_would_take_too_long_is_refused() {
        let slow = Loops { wrong_from: u32::MAX, delay_s: 0.01 };
        let layout = |edge: usize| Layout { m: edge, n: edge, k: edge, ..order(1, 1).layout };
        // 4 x 4 x 4 in 10 ms: 640 in 41 s, 8 in 80 ms. The piece is cut at its edge of 256.
        assert!(refuse_endless(&slow, layout(8)).is_ok());
        let endless = Layout { m: 1 << 40, n: 1, k: 1, ..order(1, 1).layout };
        let reason = refuse_endless(&slow, endless).unwrap_err().to_string();
        assert!(reason.contains("at 256x1x1: one product of this shape would take"), "{reason}");
    }

    #[test]
    fn a_trial_names_what_it_does() {
        let mut steps = Vec::new();
        let library = loops(u32::MAX, 0.0);
        try_once(&*library, 2, &mut |step| steps.push(step.to_owned())).unwrap();
        assert_eq!(steps, ["multiplying fp32 on 1 threads", "multiplying fp32 on 2 threads"]);
    }
}
