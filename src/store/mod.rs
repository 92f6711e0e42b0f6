//! Where tokens are kept.
pub mod memory;
