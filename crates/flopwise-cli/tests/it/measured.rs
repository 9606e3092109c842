//! From the mock machine to the page: what `measure` prints, of round numbers.

use flopwise::machine::Profile;
use flopwise::report::{Paint, Report, measure_html, text};
use flopwise_measure::{Mock, MockRates, Plan, measure};

fn mock() -> Profile {
    let rates = MockRates { os_clock_hz: Some(3e9), ..MockRates::default() };
    let plan = Plan::quick("2026-11-24T00:00:00Z".to_owned());
    measure(&mut Mock::new(rates), &plan, &mut |_progress| ())
}

/// Cells of the row that begins with these words, on the page of `measure`.
fn row(page: &str, begins: &[&str]) -> Vec<String> {
    let rows = page.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let mut found = rows.filter(|row| row.starts_with(begins));
    let row = found.next().unwrap_or_else(|| panic!("no row {begins:?} in\n{page}"));
    row.into_iter().map(ToOwned::to_owned).collect()
}

#[test]
fn the_mock_machine_is_printed() {
    let page = text(&Report::Measure(Box::new(mock())), Paint::Plain);
    let check = |begins: &[&str], expected: &str| {
        let row = row(&page, begins).join(" ");
        assert!(row.contains(expected), "{row}");
    };
    assert!(page.starts_with("Machine mock\n"), "{page}");
    check(&["clock,", "measured"], "4 GHz the system says 3 GHz");
    // 4 GHz x 32 operations a cycle x 2 threads.
    check(&["fp32", "mock", "2"], "256 GFLOP/s 256 to 256 32");
    check(&["fp32", "512x512x512"], "224 GFLOP/s 224 to 224 87.5 %");
    check(&["DRAM", "read", "2"], "32 GB/s 32 to 32");
    // 256 GFLOP/s over 32 GB/s.
    check(&["fp32", "8"], "8 FLOP/B");
    let tables = page.split("Notes").next().unwrap();
    let widest = tables.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{page}");
}

#[test]
fn the_page_of_the_mock_machine_is_whole() {
    let page = measure_html(&mock());
    assert!(page.contains("<h1>mock</h1>") && page.trim_end().ends_with("</html>"));
    assert!(page.contains("Roofline of the machine") && !page.contains("<script"));
}
