//! Looks for bytes that `sealed_record::check` objects to.

#![no_main]

use collibra_auth_proxy_fuzz::sealed_record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sealed_record::check(bytes));
