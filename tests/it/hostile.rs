//! Hostile requests, to the byte: a table of what is sent, what is answered and what Collibra may
//! have seen of it; and thousands of mutations of that table. Whatever is sent, three things hold:
//! never are two requests understood where one was answered, none arrives without exactly the one
//! token, and no byte of one caller comes in the answer to another.
//!
//! To add a case: a line in one of the tables in `hostile/`, and how it reads there.

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

/// Every case there is.
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
