//! Worker threads, one pinned to each logical processor: start together, time themselves, and say
//! whether they were preempted.
//!
//! Not here: what they run; that is a [`Kernel`] built on the worker's own thread, so that memory
//! is first touched where it is used.

use super::os::{self, Whose};
use crate::bench::{Outcome, Slice, Unmeasurable};
use crate::clock::{ADDS_PER_PASS, add_chain};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// Threads that start further apart than this share of the slice did not run together.
const LATE_START: f64 = 0.05;
/// Spins before the processor is offered to others: two threads on one processor must not wait for
/// each other's whole time slice.
const SPINS_BEFORE_YIELD: u32 = 1 << 14;

/// A load, on one thread.
pub(super) trait Kernel {
    /// Puts memory into the state in which the work is to find it; not timed, just before `run`.
    fn make_ready(&mut self) {}
    /// Whether it works on threads of its own: a preemption of any of them then counts.
    fn has_own_threads(&self) -> bool {
        false
    }
    /// Does `amount` rounds of its work; this is what is timed.
    fn run(&mut self, amount: u64);
    /// What `amount` rounds are, in the load's unit.
    fn work(&self, amount: u64) -> f64;
    /// Whether the last run's result is right; not timed.
    fn is_correct(&mut self) -> bool;
}

/// Makes a kernel on the thread that will run it.
pub(super) type Build = Box<dyn FnOnce() -> Result<Box<dyn Kernel>, Unmeasurable> + Send>;

/// Which of a worker's kernels runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The dependent additions.
    Clock,
    /// The kernel that was built under this number.
    Load(usize),
}

/// The threads; they end when this is dropped.
pub(super) struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    jobs: Option<Sender<Job>>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    is_pinned: bool,
}

enum Job {
    /// Drops every kernel; not answered.
    Forget,
    Build {
        number: usize,
        build: Build,
    },
    Run {
        which: Which,
        amount: u64,
        start: Arc<StartLine>,
    },
}

enum Report {
    Pinned(bool),
    Built(Result<(), Unmeasurable>),
    Ran(Lap),
}

/// One worker's part of a slice.
struct Lap {
    start: Instant,
    end: Instant,
    work: f64,
    /// Time on the processor; `None` where the kernel's own threads do the work.
    processor_s: Option<f64>,
    preempted: bool,
    correct: bool,
}

impl Workers {
    /// One worker for each entry; `None` is a worker that is not pinned.
    pub(super) fn start(places: &[Option<usize>]) -> Workers {
        Workers { workers: places.iter().map(|&place| Worker::start(place)).collect() }
    }

    /// Whether every worker stays on its processor.
    pub(super) fn are_pinned(&self) -> bool {
        self.workers.iter().all(|worker| worker.is_pinned)
    }

    /// Drops all kernels.
    pub(super) fn forget(&self) {
        for worker in &self.workers {
            worker.send(Job::Forget);
        }
    }

    /// Builds one kernel on each of the first workers, side by side, under this number.
    pub(super) fn build(&self, number: usize, builds: Vec<Build>) -> Result<(), Unmeasurable> {
        let n_workers = builds.len();
        for (worker, build) in self.workers.iter().zip(builds) {
            worker.send(Job::Build { number, build });
        }
        let reports = self.workers[..n_workers].iter().map(|worker| match worker.receive() {
            Report::Built(result) => result,
            Report::Pinned(_) | Report::Ran(_) => unreachable!("a build is answered by `Built`"),
        });
        // Every answer is awaited, or the next job would read this one's.
        reports.collect::<Vec<_>>().into_iter().collect()
    }

    /// One slice on the first `n_threads` workers.
    pub(super) fn run(&self, which: Which, n_threads: usize, amount: u64) -> Slice {
        self.run_on(which, &(0..n_threads).collect::<Vec<usize>>(), amount)
    }

    /// One slice on these workers.
    pub(super) fn run_on(&self, which: Which, workers: &[usize], amount: u64) -> Slice {
        let called = Instant::now();
        let start = Arc::new(StartLine::new(workers.len()));
        let workers: Vec<&Worker> = workers.iter().map(|&idx| &self.workers[idx]).collect();
        for worker in &workers {
            worker.send(Job::Run { which, amount, start: Arc::clone(&start) });
        }
        let laps: Vec<Lap> = workers
            .iter()
            .map(|worker| match worker.receive() {
                Report::Ran(lap) => lap,
                Report::Pinned(_) | Report::Built(_) => unreachable!("a run is answered by `Ran`"),
            })
            .collect();
        slice(&laps, called)
    }
}

/// All work over the time from the first start to the last end.
fn slice(laps: &[Lap], called: Instant) -> Slice {
    let first_start = laps.iter().map(|lap| lap.start).min().expect("a slice has a thread");
    let last_start = laps.iter().map(|lap| lap.start).max().expect("a slice has a thread");
    let last_end = laps.iter().map(|lap| lap.end).max().expect("a slice has a thread");
    let seconds = last_end.duration_since(first_start).as_secs_f64();
    let lateness = last_start.duration_since(first_start).as_secs_f64();
    let disturbed = laps.iter().any(|lap| lap.preempted) || LATE_START * seconds < lateness;
    let outcome = match (laps.iter().all(|lap| lap.correct), disturbed) {
        (false, _) => Outcome::Wrong,
        (true, true) => Outcome::Disturbed,
        (true, false) => Outcome::Clean,
    };
    let work = laps.iter().map(|lap| lap.work).sum();
    let held: Option<Vec<f64>> = laps.iter().map(|lap| lap.processor_s).collect();
    let processor_s = held.map(|held| held.into_iter().fold(0.0, f64::max));
    // A clock of coarse steps may show no time at all; a rate must stay finite.
    let seconds = seconds.max(1e-9);
    Slice { seconds, work, spent_s: called.elapsed().as_secs_f64(), processor_s, outcome }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.jobs = None; // the thread's loop ends with its channel
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // A panic on the worker was already seen as a missing report.
                let _ = thread.join();
            }
        }
    }
}

impl Worker {
    fn start(place: Option<usize>) -> Worker {
        let (jobs, received_jobs) = channel();
        let (sent_reports, reports) = channel();
        let thread = std::thread::spawn(move || {
            let is_pinned = place.is_some_and(os::pin_to);
            if sent_reports.send(Report::Pinned(is_pinned)).is_ok() {
                work_until_closed(&received_jobs, &sent_reports);
            }
        });
        let mut worker =
            Worker { jobs: Some(jobs), reports, thread: Some(thread), is_pinned: false };
        worker.is_pinned = match worker.receive() {
            Report::Pinned(is_pinned) => is_pinned,
            Report::Built(_) | Report::Ran(_) => unreachable!("the first report is `Pinned`"),
        };
        worker
    }

    fn send(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("the channel closes only on drop");
        jobs.send(job).expect("a worker ends only when its channel closes");
    }

    fn receive(&self) -> Report {
        self.reports.recv().expect("a worker answers each job")
    }
}

/// A worker's life.
fn work_until_closed(jobs: &Receiver<Job>, reports: &Sender<Report>) {
    let mut loads: HashMap<usize, Box<dyn Kernel>> = HashMap::new();
    let mut adds = AddChain { sum: 0, expected: 0 };
    for job in jobs {
        let report = match job {
            Job::Forget => {
                loads.clear();
                continue;
            }
            Job::Build { number, build } => {
                drop(loads.remove(&number)); // its memory is free before the next takes any
                Report::Built(build().map(|kernel| drop(loads.insert(number, kernel))))
            }
            Job::Run { which, amount, start } => {
                let kernel: &mut dyn Kernel = match which {
                    Which::Clock => &mut adds,
                    Which::Load(number) => {
                        &mut **loads.get_mut(&number).expect("a load is built before it runs")
                    }
                };
                Report::Ran(lap(kernel, amount, &start))
            }
        };
        if reports.send(report).is_err() {
            return; // nobody waits any more
        }
    }
}

fn lap(kernel: &mut dyn Kernel, amount: u64, start: &StartLine) -> Lap {
    // Wide registers and high clocks come up some microseconds after they are first used.
    kernel.run(amount / 16);
    kernel.make_ready();
    start.wait();
    let whose = if kernel.has_own_threads() { Whose::Process } else { Whose::Thread };
    let preemptions_before = os::n_preemptions(whose);
    let held_before = os::processor_s(Whose::Thread);
    let start = Instant::now();
    kernel.run(amount);
    let end = Instant::now();
    let held = os::processor_s(Whose::Thread).zip(held_before);
    let held = held.filter(|_| whose == Whose::Thread);
    let processor_s = held.map(|(after, before)| after - before);
    let preempted = preemptions_before != os::n_preemptions(whose);
    let (work, correct) = (kernel.work(amount), kernel.is_correct());
    Lap { start, end, work, processor_s, preempted, correct }
}

/// Where threads wait for each other, spinning: a sleeping one would wake tens of microseconds late.
struct StartLine {
    n_threads: usize,
    n_arrived: AtomicUsize,
}

impl StartLine {
    fn new(n_threads: usize) -> StartLine {
        StartLine { n_threads, n_arrived: AtomicUsize::new(0) }
    }

    fn wait(&self) {
        self.n_arrived.fetch_add(1, Ordering::AcqRel);
        let mut n_spins = 0u32;
        while self.n_arrived.load(Ordering::Acquire) < self.n_threads {
            std::hint::spin_loop();
            n_spins += 1;
            if n_spins.is_multiple_of(SPINS_BEFORE_YIELD) {
                std::thread::yield_now();
            }
        }
    }
}

/// The clock as a kernel: work in cycles.
struct AddChain {
    sum: u64,
    expected: u64,
}

impl Kernel for AddChain {
    fn run(&mut self, amount: u64) {
        self.sum = add_chain(amount);
        self.expected = amount * ADDS_PER_PASS;
    }

    fn work(&self, amount: u64) -> f64 {
        (amount * ADDS_PER_PASS) as f64
    }

    fn is_correct(&mut self) -> bool {
        self.sum == self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Counts its rounds; wrong from the `wrong_from`th run on.
    struct Count {
        n_runs: u32,
        wrong_from: u32,
    }

    impl Kernel for Count {
        fn run(&mut self, _amount: u64) {
            self.n_runs += 1;
        }
        fn work(&self, amount: u64) -> f64 {
            3.0 * amount as f64
        }
        fn is_correct(&mut self) -> bool {
            self.n_runs < self.wrong_from
        }
    }

    fn count(wrong_from: u32) -> Build {
        Box::new(move || Ok(Box::new(Count { n_runs: 0, wrong_from })))
    }

    #[test]
    fn work_of_all_threads_is_added_up() {
        let workers = Workers::start(&[None, None, None]);
        workers.build(0, (0..3).map(|_| count(u32::MAX)).collect()).unwrap();
        let two = workers.run(Which::Load(0), 2, 5);
        assert!((two.work - 30.0).abs() < 1e-12);
        let clock = workers.run(Which::Clock, 3, 7);
        assert!((clock.work - (3 * 7 * ADDS_PER_PASS) as f64).abs() < 1e-12);
        assert!(0.0 < clock.seconds && clock.seconds <= clock.spent_s);
    }

    #[test]
    fn a_wrong_result_is_never_a_rate() {
        let workers = Workers::start(&[None, None]);
        workers.build(0, vec![count(u32::MAX), count(0)]).unwrap();
        assert_eq!(workers.run(Which::Load(0), 2, 1).outcome, Outcome::Wrong);
    }

    #[test]
    fn a_failed_build_is_told_and_the_next_one_works() {
        let workers = Workers::start(&[None, None]);
        let fail: Build = Box::new(|| Err(Unmeasurable("no memory".to_owned())));
        let error = workers.build(0, vec![count(9), fail]).unwrap_err();
        assert_eq!(error.to_string(), "no memory");
        workers.build(0, vec![count(9), count(9)]).unwrap();
    }

    #[test]
    fn kernels_of_several_numbers_run_in_turn_until_all_are_forgotten() {
        let workers = Workers::start(&[None, None]);
        workers.build(0, vec![count(u32::MAX), count(u32::MAX)]).unwrap();
        workers.build(1, vec![count(0)]).unwrap();
        for _ in 0..2 {
            assert_ne!(workers.run(Which::Load(0), 2, 1).outcome, Outcome::Wrong);
            assert_eq!(workers.run(Which::Load(1), 1, 1).outcome, Outcome::Wrong);
        }
        workers.forget();
        workers.build(1, vec![count(u32::MAX)]).unwrap();
        assert_ne!(workers.run(Which::Load(1), 1, 1).outcome, Outcome::Wrong);
    }

    #[test]
    fn a_slice_lasts_from_first_start_to_last_end() {
        let zero = Instant::now();
        let lap = |start_us: u64, end_us: u64, preempted: bool| Lap {
            start: zero + Duration::from_micros(start_us),
            end: zero + Duration::from_micros(end_us),
            work: 10.0,
            processor_s: Some((end_us - start_us) as f64 * 1e-6),
            preempted,
            correct: true,
        };
        let together = slice(&[lap(0, 900, false), lap(10, 1000, false)], zero);
        assert!((together.processor_s.unwrap() - 0.00099).abs() < 1e-12);
        assert!((together.seconds - 0.001).abs() < 1e-12 && (together.work - 20.0).abs() < 1e-12);
        assert_eq!(together.outcome, Outcome::Clean);
        let late = slice(&[lap(0, 900, false), lap(100, 1000, false)], zero);
        assert_eq!(late.outcome, Outcome::Disturbed);
        let preempted = slice(&[lap(0, 900, false), lap(10, 1000, true)], zero);
        assert_eq!(preempted.outcome, Outcome::Disturbed);
    }
}
