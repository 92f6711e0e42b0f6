//! What must hold of the program whatever bytes it meets: a module for each target, whose `check`
//! panics if it does not.
//!
//! The fuzz targets call these with bytes of their own making; the program's own tests include this
//! file and call them with every file of the corpora.

pub mod configuration;
pub mod request_head;
pub mod sealed_record;
pub mod token_response;

use std::time::{Duration, SystemTime};

use collibra_auth_proxy::client_id::ClientId;
use collibra_auth_proxy::secret::Secret;

/// No token lives longer, and no time further ahead is believed.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A secret that is known when it is seen. It has letters of both cases, for some of what is shown
/// is turned to one of them.
const CANARY: &str = "K4n4ri-8C1f";

/// What stands for [`CANARY`] in an input, where it outlives more changes than the whole would.
const MARK: char = '$';

/// `input` with the canary in all places that are marked for it.
fn planted(input: &str) -> String {
    input.replace(MARK, CANARY)
}

/// Whether `input` has a part of the canary that nobody planted: a fuzzer learns to spell it, and
/// what it spells is no secret.
fn spells_canary(input: &[u8]) -> bool {
    let mut parts = input.windows(4);
    parts.any(|part| part.eq_ignore_ascii_case(b"n4ri"))
}

/// Whether `text` shows the canary, or most of it.
fn shows_canary(text: &str) -> bool {
    text.to_ascii_lowercase().contains("k4n4ri-8")
}

fn client_id() -> ClientId {
    let parsed = ClientId::parse("urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn");
    parsed.expect("it is printable ASCII")
}

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

/// Some moment of the year 2027.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000)
}
