//! The data path.
pub mod config;
