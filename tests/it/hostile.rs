//! Hostile requests, byte for byte: a table of requests, responses and what Collibra may see of
//! them, and thousands of mutations. Three invariants hold for any input. Two requests are never
//! understood where one was answered. No request arrives without exactly the one token. No byte of
//! one caller appears in another's response.
//!
//! To add a case, add a line to one of the tables in `hostile/`, and what it expects; `case.rs`
//! describes the syntax, and mutations use the case too. Another spelling of a denied path goes to
//! `SPELLINGS` in `paths.rs`, another reading to `WAYS` in `support/lenient.rs`, an invariant of
//! forwarded requests to `held_against` in `support/recorder.rs`.

mod allowed;
pub(crate) mod case;
mod chromium;
mod fields;
mod framing;
mod hop_by_hop;
mod hosts;
mod methods;
mod mutate;
pub(crate) mod mutations;
mod pages;
mod paths;
mod targets;

use case::Case;

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    let tables = [
        framing::CASES,
        targets::CASES,
        hosts::CASES,
        hop_by_hop::CASES,
        fields::CASES,
        methods::CASES,
    ];
    tables.concat()
}

#[test]
fn each_is_answered_as_the_table_says() {
    let cases = cases();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let rig = case::Rig::start();
    let wrong: Vec<String> = cases
        .iter()
        .enumerate()
        .filter_map(|(nth, case)| rig.differs(nth, case))
        .collect();
    rig.recorder.assert_no_faults();
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
