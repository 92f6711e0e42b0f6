//! The commands, one file each.

pub mod admin_client;
pub mod status;
mod status_table;
pub mod wait;
