//! flopwise
