//! Tests of the machine's roofline, its page, its tables and the working of its figures.

use super::super::svg::tests::{assert_balanced, attribute, report};
use super::machine_svg;
use crate::machine::tests::round;
use crate::machine::{ComputeRate, MemoryLevel, Profile};
use crate::report::{Paint, Report, figures, html, json, measure_html, roofline, text};
use crate::units::BytesPerSec;

/// Text elements: x, y, anchor, content.
fn texts(svg: &str) -> Vec<(f64, f64, String, String)> {
    let lines = svg.lines().filter(|line| line.starts_with("<text"));
    lines
        .map(|line| {
            let number = |name| attribute(line, name).unwrap().parse::<f64>().unwrap();
            let anchor = attribute(line, "text-anchor").unwrap().to_owned();
            let content = line.split_once('>').unwrap().1.trim_end_matches("</text>");
            (number("x"), number("y"), anchor, content.to_owned())
        })
        .collect()
}

/// No two texts touch, taken as wide as a wide font makes them and 12 units high.
fn assert_apart(svg: &str) {
    let boxes: Vec<(f64, f64, f64, f64, String)> = texts(svg)
        .into_iter()
        .map(|(x, y, anchor, content)| {
            let width = 7.2 * content.chars().count() as f64;
            let left = match anchor.as_str() {
                "start" => x,
                "middle" => x - width / 2.0,
                _ => x - width,
            };
            (left, left + width, y - 11.0, y + 1.0, content)
        })
        .collect();
    for (box_idx, one) in boxes.iter().enumerate() {
        for other in &boxes[box_idx + 1..] {
            let apart =
                one.1 <= other.0 || other.1 <= one.0 || one.3 <= other.2 || other.3 <= one.2;
            assert!(apart, "{one:?} touches {other:?}");
        }
    }
}

/// Many formats with nearly the same peak, and levels with nearly the same bandwidth.
fn crowded() -> Profile {
    let mut profile = round();
    for (format, rate) in [("fp64", 257e9), ("bf16", 258e9), ("fp16", 256e9), ("int16", 255e9)] {
        let peak = profile.compute[1].clone();
        let flops_per_s = crate::machine::tests::sampled(rate);
        profile.compute.push(ComputeRate { format: format.to_owned(), flops_per_s, ..peak });
    }
    profile.memory[0].bytes_per_s.median = 206e9;
    profile.memory[1].bytes_per_s.median = 203e9;
    profile
}

#[test]
fn every_text_of_a_machine() {
    let found: Vec<String> =
        texts(&machine_svg(&round(), None)).into_iter().map(|text| text.3).collect();
    insta::assert_snapshot!(found.join("\n"), @"
    0.1
    1
    10
    100
    10 Gop/s
    100 Gop/s
    1 Top/s
    operations per byte of traffic
    L1
    L2
    L3
    DRAM
    int8 1.024 Top/s
    fp32 256 GFLOP/s
    L1 read 480 GB/s
    L2 read 240 GB/s
    L3 read 200 GB/s
    main memory (DRAM) read 64 GB/s
    fp32 products
    int8 products
    A roof: the instruction peak of a format, all threads; a slope: a level of memory, read.
    A diamond: a matrix product, the fastest library; its traffic is each operand once.
    ");
}

#[test]
fn no_labels_touch() {
    let everything = report();
    for profile in [round(), crowded()] {
        for with in [None, Some(&everything)] {
            let svg = machine_svg(&profile, with);
            assert_balanced(&svg, &[]);
            assert_apart(&svg);
        }
    }
}

#[test]
fn a_model_stands_under_the_machine() {
    let plain = machine_svg(&round(), None);
    let with = machine_svg(&round(), Some(&report()));
    assert!(!plain.contains("class=\"mark") && with.contains("class=\"mark kind-convolution"));
    assert_eq!(plain.matches("class=\"gemm format-0\"").count(), 3, "two products and the legend");
    assert!(html(&report()).contains("Roofline of the machine"));
}

#[test]
fn without_anything_measured() {
    let mut profile = round();
    profile.compute.clear();
    let svg = machine_svg(&profile, None);
    assert_balanced(&svg, &[]);
    assert!(svg.contains("no instruction peak"));
    profile.memory.clear();
    profile.latency.clear();
    profile.probes.clear();
    profile.notes.clear();
    profile.machine.clock_hz = None;
    assert_balanced(&measure_html(&profile), &["meta"]);
}

#[test]
fn hostile_names_are_escaped() {
    let mut profile = round();
    let hostile = "</title><script>alert(\"&'\")</script>\u{0}{{ 7 * 191 }}".to_owned();
    profile.machine.name.clone_from(&hostile);
    profile.compute[0].format.clone_from(&hostile);
    profile.compute[0].instruction = Some(hostile.clone());
    profile.machine.libraries[1].version.clone_from(&hostile);
    profile.probes[0].meaning.clone_from(&hostile);
    profile.notes = vec![hostile];
    let page = measure_html(&profile);
    assert_balanced(&page, &["meta"]);
    assert!(!page.contains("<script") && !page.contains("1337") && !page.contains('\u{0}'));
}

#[test]
fn the_page_of_a_machine_holds_its_figures() {
    let page = measure_html(&round());
    assert_balanced(&page, &["meta"]);
    assert!(!page.contains("http:") || page.matches("http:").count() == 1, "the SVG's namespace");
    for figure in ["<h1>round</h1>", "256 GFLOP/s", "1.024 Top/s", "64 GB/s", "4 GHz", "87.5 %"] {
        assert!(page.contains(figure), "{figure}");
    }
}

#[test]
fn the_tables_of_a_machine() {
    let page = text(&Report::Measure(Box::new(round())), Paint::Plain);
    insta::assert_snapshot!(page, @"
    Machine round
      processor             Round CPU                2 logical CPUs, avx512f
      system                linux x86_64
      clock, measured       4 GHz                    the system says 3 GHz
      memory                16.00 GiB                one NUMA node
      measured              2026-11-24T00:00:00Z     flopwise 0.1.0

    Caches
      level  the system says   measured  shared by CPUs
      L1           32.00 KiB  32.00 KiB               1
      L2           1.000 MiB  1.000 MiB               1
      (measured: the largest array that is still as fast)

    Libraries that multiply matrices
      library   version            file
      flopwise  0.1.0              built in
      openblas  0.3.21 Cooperlake  /usr/lib/libopenblas.so.0

    Instruction peak
      format  instruction  threads  chains         rate   95 % interval  op/cycle  clean
      fp32    vfma zmm           1      12  128 GFLOP/s  125.4 to 130.6        32   9/10
      fp32    vfma zmm           2      12  256 GFLOP/s  250.9 to 261.1        32   9/10
      int8    vfma zmm           1      12    512 Gop/s  501.8 to 522.2       128   9/10
      int8    vfma zmm           2      12  1.024 Top/s  1.004 to 1.044       128   9/10
      (a multiply-add is two operations; clean: slices kept/taken)
      (op/cycle: of one thread, by the clock measured beside it)

    Multiply-adds and additions in turn
      format  instruction  threads  chains         rate   95 % interval  op/cycle  clean
      fp32    flopwise           1       -  160 GFLOP/s  156.8 to 163.2        40   9/10
      (more than the peak where a core has units for both; percentages are of the peak)

    Matrix products
      format  m x n x k       library   threads         rate   95 % interval  of peak  of roof  data
      fp32    512x512x512     flopwise        2  192 GFLOP/s  188.2 to 195.8   75.0 %   75.0 %   hot
      fp32    1024x1024x1024  flopwise        2  128 GFLOP/s  125.4 to 130.6   50.0 %   50.0 %   hot
      fp32    1024x1024x1024  openblas        2  224 GFLOP/s  219.5 to 228.5   87.5 %   87.5 %   hot
      int8    1024x1024x1024  flopwise        2    512 Gop/s  501.8 to 522.2   50.0 %   50.0 %   hot
      (roof: min(peak, intensity x memory read) at the shape, each operand moved once)
      (hot: where the product before left them, cold: in main memory; +N: elements between rows)
      (cpu: by the time for which the slowest thread held its processor)

    Memory
      level  access   threads      rate   95 % interval  B/cycle  over the run     arrays  clean
      L1     read           2  480 GB/s  470.4 to 489.6     60.0             -  1.000 MiB   9/10
      L2     read           2  240 GB/s  235.2 to 244.8     30.0             -  1.000 MiB   9/10
      L3     read           2  200 GB/s      196 to 204     25.0             -  1.000 MiB   9/10
      DRAM   read           1   32 GB/s  31.36 to 32.64        -             -  1.000 MiB   9/10
      DRAM   read           2   64 GB/s  62.72 to 65.28        -      50 to 66  1.000 MiB   9/10
      DRAM   copy           2   48 GB/s  47.04 to 48.96        -             -  1.000 MiB   9/10
      DRAM   copy NT        2   72 GB/s  70.56 to 73.44        -             -  1.000 MiB   9/10
      (bytes asked for by the program; NT: stores past the caches)
      (B/cycle: of one thread; over the run: lowest and highest of repeats)

    Latency
      level  a load  cycles  wanders over
      L1       1 ns     4.0     16.00 KiB
      (the address of each load is the result of the one before)

    Ridge points
      format             L1            L2           L3      DRAM
      fp32    0.5333 FLOP/B  1.067 FLOP/B  1.28 FLOP/B  4 FLOP/B
      int8       2.133 op/B    4.267 op/B    5.12 op/B   16 op/B
      (peak over read bandwidth, all threads; with fewer operations per byte a kernel waits)

    Probes
      what                             meaning                      found
      fp32 multiply-add of subnormals  as fast as ordinary numbers    1 x

    Notes
      - a busy neighbour
    ");
}

#[test]
fn a_figure_is_explained() {
    let check = |wanted: &str| {
        text(&Report::Figures(Box::new(figures(&round(), wanted).unwrap())), Paint::Plain)
    };
    insta::assert_snapshot!(check("fp32 peak 2"), @"
    fp32 peak, 2 threads, vfma zmm on round: 256 GFLOP/s
      median of work / time over 9 clean slices of 10: 256 GFLOP/s; its 95 % interval: 250.9 to 261.1
      operations a cycle = rate / clock beside it / threads = 32.10, the integer 32
      clock x operations a cycle x threads = 4 GHz x 32 x 2 = 256 GFLOP/s: the figure is 100.0 % of it
      12 chains of vfma zmm, each waiting for itself only; a multiply-add is two operations
    ");
    insta::assert_snapshot!(check("gemm 512x512x512"), @"
    fp32 GEMM 512x512x512, 2 threads, flopwise on round: 192 GFLOP/s
      median of work / time over 9 clean slices of 10: 192 GFLOP/s; its 95 % interval: 188.2 to 195.8
      work = 2 m n k = 2 x 512 x 512 x 512 = 268,435,456 operations; time = work / rate = 1.398 ms
      intensity = work / ((m k + k n) x 4 B + m n x 4 B) = 85.33 FLOP/B
      roofline = min(peak, intensity x memory read) = min(256 GFLOP/s, 85.33 FLOP/B x 64 GB/s) = 256 GFLOP/s
      rate / instruction peak on as many threads = 75.0 %
      rate / roofline at this shape = 75.0 %
    ");
    insta::assert_snapshot!(check("l1 read"), @"
    L1 read, 2 threads on round: 480 GB/s
      median of work / time over 9 clean slices of 10: 480 GB/s; its 95 % interval: 470.4 to 489.6
      work: each byte loaded once, in arrays of 1.000 MiB a thread
      clock x bytes a cycle x threads = 4 GHz x 60.00 x 2 = 480 GB/s
    ");
    insta::assert_snapshot!(check("latency"), @"
    L1 latency on round: 1 ns
      median of work / time over 9 clean slices of 10: 1 ns; its 95 % interval: 0.98 to 1.02
      each load's address is the result of the one before; they wander over 16.00 KiB
      time x clock beside it = 4.0 cycles
    ");
    insta::assert_snapshot!(check("ridge int8 dram"), @"
    ridge point, int8, DRAM on round: 16 op/B
      peak / read bandwidth = 1.024 Top/s / 64 GB/s = 16 op/B
    ");
    assert_eq!(figures(&round(), "").unwrap().figures.len(), 9 + 7 + 1 + 8);
    let error = figures(&round(), "fp8 peak").unwrap_err().to_string();
    assert!(error.contains("no figure `fp8 peak`"), "{error}");
}

/// 2 512^3 / (3 512^2 4 B) = 85.33 FLOP/B; 2 1024^3 / (1024^2 (2 + 4) B) = 341.3 op/B.
#[test]
fn products_stand_at_their_intensity() {
    let found = roofline(&round());
    let gemms: Vec<String> = found
        .gemms
        .iter()
        .map(|gemm| {
            format!("{} {} {:.2} {}", gemm.format, gemm.backend, gemm.ops_per_byte, gemm.ops_per_s)
        })
        .collect();
    let expected = [
        "fp32 flopwise 85.33 192000000000",
        "fp32 openblas 170.67 224000000000",
        "int8 flopwise 341.33 512000000000",
    ];
    assert_eq!(gemms, expected);
    assert_eq!(found.roofs.len(), 2);
    assert_eq!(found.slopes.len(), 4);
    assert_eq!(found.slopes[3].level, MemoryLevel::Dram);
    assert_eq!(BytesPerSec(found.slopes[3].bytes_per_s).to_string(), "64 GB/s");
    assert_eq!(found.ridges.len(), 8);
}

#[test]
fn what_measure_prints_is_a_profile_with_its_roofline() {
    let printed = json(&Report::Measure(Box::new(round())));
    assert_eq!(Profile::from_json(&printed).unwrap(), round());
    let parsed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(parsed["roofline"]["ridges"][3]["ops_per_byte"], 4.0);
}

#[test]
fn every_field_of_a_profile_is_described() {
    let described = include_str!("../../../../docs/json.md");
    let section =
        described.split("\n## ").find(|section| section.starts_with("`measure`")).unwrap();
    let printed = json(&Report::Measure(Box::new(round())));
    let fields =
        printed.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\":"));
    for (field, _) in fields {
        assert!(section.contains(&format!("`{field}`")), "{field} is not in docs/json.md");
    }
}
