//! Two counts side by side.

use super::{CountQuery, Counting, name_model, opened};
use crate::error::Error;
use crate::report::{CountReport, Report, VersusReport, side_by_side};

/// Counts both, and puts their rows side by side.
pub(super) fn versus(left: &CountQuery, right: &CountQuery) -> Result<Report, Error> {
    let (left, right) = (counted(left)?, counted(right)?);
    let rows = side_by_side(&left, &right);
    Ok(Report::Versus(Box::new(VersusReport { left, right, rows })))
}

/// A report with numbers.
fn counted(query: &CountQuery) -> Result<CountReport, Error> {
    let opened = opened(query)?;
    let report = Counting::new(&opened, query).map_err(|error| name_model(error, query))?.report;
    match report.counted {
        Some(_) => Ok(report),
        None => Err(name_model(report.without_values("a comparison"), query)),
    }
}
