//! Looks for bytes that `configuration::check` objects to.

#![no_main]

use collibra_auth_proxy_fuzz::configuration;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| configuration::check(bytes));
