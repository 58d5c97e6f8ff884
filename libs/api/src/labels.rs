//! The syntax of names, label keys and values, and its error texts (apimachinery `util/validation`).
