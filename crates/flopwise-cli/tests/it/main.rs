//! The integration tests, one binary: the built program from outside, and the tidiness of the
//! whole workspace.

mod bad_input;
mod commands;
mod run;
mod tidy;
