//! Label and field selectors: parse once, match many times.
//!
//! In: the text of a query, or a `metav1.LabelSelector`. Out: a selector, or Kubernetes' text of what is wrong.
//! Matching does not allocate.

mod fields;
mod labels;
mod parse;

pub use fields::FieldSelector;
pub use labels::{LabelSelector, Operator, Requirement};
