//! Looks for bytes that `token_response::check` objects to.

#![no_main]

use collibra_auth_proxy_fuzz::token_response;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| token_response::check(bytes));
