//! The admin address: to come.
