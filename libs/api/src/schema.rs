//! Schemas of the built-in types: what a field is, whether Go writes its zero, how its list merges.
//!
//! Built once from the project's own data in `libs/api/data`.
