//! Decides by a request's head whether it may be forwarded. Every token may do everything at
//! Collibra, so an app's permissions are enforced here. Pure.
//!
//! [`head`] and [`target`] refuse a head that two servers may read differently. `reading` and
//! `method` are the readings of its path and method that remain, and `form` finds a method in its
//! body. [`rules`] apply to all of them: [`pattern`]s that are denied or allowed. [`limit`] counts
//! an app's requests.

pub(crate) mod form;
pub mod head;
pub mod limit;
pub(crate) mod method;
pub mod pattern;
pub(crate) mod reading;
pub mod rules;
pub mod target;
