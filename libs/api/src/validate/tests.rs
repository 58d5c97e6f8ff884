//! One check, many rows: an object and the faults it must be told.
