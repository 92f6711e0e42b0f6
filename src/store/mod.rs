//! Where tokens are kept.

pub mod key;
pub mod memory;
pub mod record;
