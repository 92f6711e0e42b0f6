//! Looks for bytes that `request_head::check` objects to.

#![no_main]

use collibra_auth_proxy_fuzz::request_head;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| request_head::check(bytes));
