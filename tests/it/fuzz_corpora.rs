//! The fuzz targets' invariants, checked for every file of their corpora without a fuzzer: what
//! fuzzing found once stays fixed.

use std::fs;
use std::path::Path;

#[expect(
    unreachable_pub,
    reason = "it is a library of its own, of which this is a copy"
)]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn token_responses() {
    hold("token_response", fuzz::token_response::check);
}

#[test]
fn sealed_records() {
    hold("sealed_record", fuzz::sealed_record::check);
}

#[test]
fn request_heads() {
    hold("request_head", fuzz::request_head::check);
}

#[test]
fn configurations() {
    hold("configuration", fuzz::configuration::check);
}

/// Calls `check` with each file in the corpus of `target`; a failure's output names the file.
fn hold(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut held = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        println!("{}", path.display());
        check(&bytes);
        held += 1;
    }
    assert!(held >= 10, "{held} files in {}", corpus.display());
}
