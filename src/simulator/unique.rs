//! Generates values in a server's format: access tokens, ids, client secrets.
//!
//! They are unique within one run and differ between runs. They protect only simulated data, so the
//! standard library's randomly keyed hasher is a sufficient source.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A source of unique values, with a new key at each start.
#[derive(Default)]
pub(super) struct Unique {
    key: RandomState,
    drawn: AtomicU64,
}

impl Unique {
    /// An access token: 96 characters of Base64.
    pub(super) fn token(&self) -> String {
        STANDARD.encode(self.bytes::<72>())
    }

    /// A client secret: 48 characters of Base64, so `+` and `/` occur and need encoding.
    pub(super) fn secret(&self) -> String {
        STANDARD.encode(self.bytes::<36>())
    }

    /// An id in the form of a version 4 UUID.
    pub(super) fn uuid(&self) -> String {
        let [mut high, mut low] = [0_u64; 2];
        let bytes = self.bytes::<16>();
        for (at, byte) in bytes.into_iter().enumerate() {
            let half = if at < 8 { &mut high } else { &mut low };
            *half = (*half << 8) | u64::from(byte);
        }
        high = (high & !0xf000) | 0x4000;
        low = (low & !(0b11 << 62)) | (0b10 << 62);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    fn bytes<const N: usize>(&self) -> [u8; N] {
        let draw = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; N];
        for (at, piece) in bytes.chunks_mut(8).enumerate() {
            let word = self.key.hash_one((draw, at)).to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Unique;

    #[test]
    fn values_are_unique_within_a_run_and_between_runs() {
        let runs = [Unique::default(), Unique::default()];
        let tokens: HashSet<String> = runs
            .iter()
            .flat_map(|run| (0..1000).map(|_| run.token()))
            .collect();
        assert_eq!(tokens.len(), 2000);
        assert!(tokens.iter().all(|token| token.len() >= 64));
    }

    #[test]
    fn identifiers_have_the_form_of_a_uuid() {
        let id = Unique::default().uuid();
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
    }
}
