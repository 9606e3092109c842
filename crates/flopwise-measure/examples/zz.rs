//! tmp
#![allow(clippy::print_stdout)]
use flopwise_measure::*;
fn main() {
    let mut cpu = Cpu::new();
    for _ in 0..2 {
    for load in [Load::Dram(Stream::Read), Load::Dram(Stream::Copy)] {
        for n_threads in [1, 2] {
            let setup = cpu.prepare(&Experiment { load, n_threads }).unwrap();
            let mut s: Vec<_> = (0..50).map(|_| cpu.load_slice()).collect();
            s.retain(|s| s.is_clean());
            s.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
            println!("{load:?} {n_threads} prep {:.3} slice {:.2} ms rate {:.1} best {:.1} n {}", setup.spent_s, s[s.len()/2].seconds*1e3, s[s.len()/2].rate()/1e9, s[s.len()-1].rate()/1e9, s.len());
        }
    }}
}
