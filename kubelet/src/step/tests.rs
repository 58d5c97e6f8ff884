//! Table tests of the step.
