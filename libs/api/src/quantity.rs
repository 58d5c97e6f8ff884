//! Resource quantities (`100m`, `1Gi`, `2e3`): exact parsing, comparison, arithmetic and canonical text.
