//! zlib's C interface as `flate2` expects it of `libz-ng-sys`, provided by stock zlib.
//!
//! The original compiles zlib-ng and needs CMake on the machine. Nothing here compresses, so the
//! dependency is met without it and the program builds with a C compiler alone.

pub use libz_sys::*;
