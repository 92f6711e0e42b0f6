//! The files for a host.
