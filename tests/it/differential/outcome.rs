//! The outcome of a trial, and the differences between two of them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The responses to a caller, and the requests at the instance.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) answers: Vec<Message>,
    /// How the caller's connection or stream ended.
    pub(super) end: String,
    pub(super) seen: Vec<Message>,
}

/// A response, or a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    /// The status, or the method.
    pub(super) is: String,
    pub(super) target: String,
    /// Names in lower case, in any order.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether the body was complete.
    pub(super) whole: bool,
    pub(super) trailers: Vec<(String, String)>,
}

/// Fields with a new value in each message.
const FLEETING: [&str; 2] = ["date", "x-request-id"];

/// Longer bodies are shown as length and hash.
const SHOWN: usize = 400;

impl Outcome {
    /// The differences of `new` from this, one per line.
    pub(super) fn differences(&self, new: &Outcome) -> Vec<String> {
        let summary = |outcome: &Outcome| {
            let answers = outcome.answers.iter().map(Message::summary);
            let answers: Vec<String> = answers.collect();
            let (answers, seen) = (answers.join(" & "), outcome.seen.len());
            format!("{answers}, {}, {seen} seen", outcome.end)
        };
        let (old_summary, new_summary) = (summary(self), summary(new));
        if old_summary != new_summary {
            // all other differences follow from this one
            return vec![format!("summary: {old_summary} -> {new_summary}")];
        }
        let mut found = Vec::new();
        for (what, old, new) in [
            ("answer", &self.answers, &new.answers),
            ("request", &self.seen, &new.seen),
        ] {
            for (old, new) in old.iter().zip(new) {
                found.extend(
                    old.differences(new)
                        .into_iter()
                        .map(|it| format!("{what}: {it}")),
                );
            }
        }
        found
    }
}

impl Message {
    /// A value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    fn summary(&self) -> String {
        let reason = self
            .field("x-collibra-auth-proxy")
            .map(|it| format!(" {it}"));
        let cut = if self.whole { "" } else { " cut" };
        format!("{}{}{cut}", self.is, reason.unwrap_or_default())
    }

    fn differences(&self, new: &Message) -> Vec<String> {
        let mut found = Vec::new();
        for (what, old, new) in [
            ("method", &self.is, &new.is),
            ("target", &self.target, &new.target),
        ] {
            if old != new {
                found.push(format!("{what}: {old} -> {new}"));
            }
        }
        let other_body = self.body != new.body;
        for (what, old, new) in [
            ("field", &self.fields, &new.fields),
            ("trailer", &self.trailers, &new.trailers),
        ] {
            let set = |fields: &[(String, String)]| -> BTreeSet<String> {
                let lasting = fields.iter().filter(|(name, _)| {
                    // a different body has a different length
                    let follows = name == "content-length" && other_body;
                    !follows && !FLEETING.contains(&&**name)
                });
                lasting
                    .map(|(name, value)| format!("{name}: {}", shown(without_mark(name, value))))
                    .collect()
            };
            let (old_set, new_set) = (set(old), set(new));
            found.extend(
                old_set
                    .difference(&new_set)
                    .map(|it| format!("{what} less: {it}")),
            );
            found.extend(
                new_set
                    .difference(&old_set)
                    .map(|it| format!("{what} more: {it}")),
            );
            if old_set == new_set && old.len() != new.len() {
                found.push(format!("{what}: another number of the same"));
            }
        }
        if other_body {
            let (old, new) = (shown(&self.body), shown(&new.body));
            found.push(format!("body: {old} -> {new}"));
        }
        found
    }
}

/// The value without the mark of the proxy's process, which is at its end.
fn without_mark<'a>(name: &str, value: &'a str) -> &'a [u8] {
    match name {
        "x-collibra-auth-proxy-via" => &value.as_bytes()[..value.len().saturating_sub(32)],
        _ => value.as_bytes(),
    }
}

fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} bytes, {:016x}", bytes.len(), hasher.finish())
}

/// Replaces each side's own values (ports, marks, tokens) with names.
pub(super) fn without_its_own(text: &str, own: &[(String, &str)]) -> String {
    let mut text = text.to_owned();
    for (it, name) in own {
        text = text.replace(it, name);
    }
    text
}
