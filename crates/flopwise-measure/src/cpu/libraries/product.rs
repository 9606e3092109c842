//! A library's product as a kernel of a worker: right before it is timed, hot or cold, on one
//! thread or on the library's own.
//!
//! Not here: the libraries.

use super::operands::{Expected, Layout, Operands};
use super::{GemmLibrary, Product};
use crate::bench::{ElementFormat, Unmeasurable};
use crate::cpu::os::{self, Whose};
use crate::cpu::workers::Kernel;
use std::sync::Arc;
use std::time::Instant;

/// The piece of a product by whose time the whole one's is foreseen.
const PIECE_EDGE: usize = 256;
/// The piece is multiplied for so long, and at least so often: the shortest time counts, since a
/// neighbour only ever makes one longer, and the first one starts threads and generates code.
const PIECE_S: f64 = 0.1;
const PIECE_PRODUCTS: u32 = 4;
/// A product that would take longer is not tried: a sample needs several.
const MAX_PRODUCT_S: f64 = 10.0;
/// Nor is one that would take longer than this at so few operations a second that it is no kernel
/// of this machine: a library's fallback for a format it has no instructions for.
const MAX_SLOW_PRODUCT_S: f64 = 2.0;
const SLOW_FLOPS_PER_S: f64 = 3e9;

/// Processor time of a trial on one thread, and the share of it beyond which others worked too.
const TRIAL_S: f64 = 0.02;
const MAX_SHARE_OF_ONE: f64 = 1.2;

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
    refuse_endless(library, order.layout, order.n_threads)?;
    library.set_threads(order.n_threads)?;
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

/// Multiplies a small piece on one thread and foresees the time of the whole on all: several
/// threads on a busy machine wait for each other's time slices, which says nothing of the library.
fn refuse_endless(
    library: &dyn GemmLibrary,
    layout: Layout,
    n_threads: usize,
) -> Result<(), Unmeasurable> {
    if library.set_threads(1).is_err() {
        return Ok(());
    }
    let edge = |size: usize| size.min(PIECE_EDGE);
    let (m, n, k) = (edge(layout.m), edge(layout.n), edge(layout.k));
    let piece = Layout { m, n, k, ..layout };
    let mut operands = Operands::new(piece)?;
    let mut product = library.product(piece)?;
    let (a, b, c) = operands.pointers();
    let begin = Instant::now();
    let mut shortest_s = f64::INFINITY;
    let mut n_products = 0;
    while n_products < PIECE_PRODUCTS || begin.elapsed().as_secs_f64() < PIECE_S {
        let start = Instant::now();
        // SAFETY: matrices of this very layout.
        unsafe { product.multiply(a, b, c) };
        shortest_s = shortest_s.min(start.elapsed().as_secs_f64());
        n_products += 1;
    }
    let rate = piece.n_operations() / shortest_s.max(1e-9);
    let foreseen_s = layout.n_operations() / (rate * n_threads as f64);
    let is_fallback = rate < SLOW_FLOPS_PER_S && MAX_SLOW_PRODUCT_S < foreseen_s;
    if MAX_PRODUCT_S < foreseen_s || is_fallback {
        return Err(Unmeasurable(format!(
            "{} reaches {:.2} GFLOP/s on one thread at {m}x{n}x{k}: one product of this shape would \
             take {foreseen_s:.1} s",
            library.library().name(),
            rate / 1e9
        )));
    }
    Ok(())
}

/// What a trial found out about a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The product differs from a naive one.
    Wrong,
    /// Told to use one thread, it used more.
    Unruly,
}

/// Tries each format on small matrices, on one thread and then on all; meant for a child process.
pub(super) fn try_once(
    library: &dyn GemmLibrary,
    n_threads: usize,
    step: &mut dyn FnMut(&str),
) -> Result<Vec<(ElementFormat, Flaw)>, String> {
    let mut flaws = Vec::new();
    let told = |error: Unmeasurable| error.to_string();
    // One thread first: threads that were started wait for work spinning, and count as used.
    for n_threads in [1, n_threads] {
        for format in library.formats() {
            step(&format!("it multiplies {} with thread count {n_threads}", format.name()));
            if library.set_threads(n_threads).is_err() {
                continue; // it says so when it is asked for
            }
            let (m, n, k) = (PIECE_EDGE, PIECE_EDGE, PIECE_EDGE);
            let layout = Layout { format, m, n, k, padding: 0 };
            let mut operands = Operands::new(layout).map_err(told)?;
            let mut product = library.product(layout).map_err(told)?;
            let (a, b, c) = operands.pointers();
            // SAFETY: matrices of this very layout.
            let mut multiply = || unsafe { product.multiply(a, b, c) };
            multiply();
            if n_threads == 1 && MAX_SHARE_OF_ONE < processors_used(&mut multiply) {
                flaws.push((format, Flaw::Unruly));
            }
            if !operands.holds(&operands.expected()) {
                flaws.push((format, Flaw::Wrong));
            }
        }
    }
    Ok(flaws)
}

/// Processor time of the process over that of this thread while it works; 1 where neither is known.
fn processors_used(work: &mut dyn FnMut()) -> f64 {
    let times = || os::processor_s(Whose::Process).zip(os::processor_s(Whose::Thread));
    let Some((process_before, thread_before)) = times() else { return 1.0 };
    loop {
        work();
        let Some((process, thread)) = times() else { return 1.0 };
        if TRIAL_S < thread - thread_before {
            return (process - process_before) / (thread - thread_before);
        }
    }
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
        // 8 x 8 x 8 is its own piece; of the other a piece of 256 rows takes 10 ms.
        assert!(refuse_endless(&slow, layout(8), 1).is_ok());
        let endless = Layout { m: 1 << 40, n: 1, k: 1, ..order(1, 1).layout };
        let reason = refuse_endless(&slow, endless, 2).unwrap_err().to_string();
        assert!(reason.contains("at 256x1x1: one product of this shape would take"), "{reason}");
    }

    #[test]
    fn a_trial_names_what_it_does() {
        let mut steps = Vec::new();
        let mut tried = |wrong_from| {
            try_once(&*loops(wrong_from, 0.0), 2, &mut |step| steps.push(step.to_owned())).unwrap()
        };
        let wrong = tried(1).into_iter().filter(|(_, flaw)| *flaw == Flaw::Wrong);
        assert_eq!(wrong.count(), 2);
        steps.truncate(2);
        let step = |n: usize| format!("it multiplies fp32 with thread count {n}");
        assert_eq!(steps, [step(1), step(2)]);
    }

    /// In a child process, since the threads of other tests would count here.
    #[test]
    #[cfg(target_os = "linux")]
    fn threads_beside_the_caller_s_are_noticed() {
        use crate::cpu::libraries::trial::in_child;
        use std::sync::atomic::{AtomicBool, Ordering};
        let check = |n_others: usize, expected: bool| {
            let found = in_child(&mut |_step| {
                let done = AtomicBool::new(false);
                let is_done = || done.load(Ordering::Relaxed);
                let used = std::thread::scope(|scope| {
                    for _ in 0..n_others {
                        scope.spawn(|| {
                            while !is_done() {
                                std::hint::spin_loop();
                            }
                        });
                    }
                    let used = processors_used(&mut || {
                        (0..10_000).for_each(|_| std::hint::spin_loop());
                        if 0 < n_others {
                            std::thread::yield_now(); // the others may share this processor
                        }
                    });
                    done.store(true, Ordering::Relaxed);
                    used
                });
                Ok((MAX_SHARE_OF_ONE < used).to_string())
            });
            assert_eq!(found, Ok(expected.to_string()), "{n_others} others");
        };
        check(0, false);
        check(2, true);
    }
}
