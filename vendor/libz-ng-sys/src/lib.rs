//! zlib's C interface as `flate2` expects it from `libz-ng-sys`, provided by stock zlib.
//!
//! The original compiles zlib-ng and needs CMake. This program compresses nothing, so the replacement
//! lets it build with a C compiler alone.

pub use libz_sys::*;
