//! The values of `[policy]`: patterns over methods and paths, and the treatment of session logins.

use serde_json::Value as Json;
use toml::de::DeValue;

use super::context::LoadContext;
use super::value::{Value, Wrong, items, named, texts, word};
use crate::policy::pattern::Pattern;
use crate::policy::rules::Sessions;

impl Value for Vec<Pattern> {
    fn read(value: &DeValue<'_>) -> Result<Vec<Pattern>, Vec<Wrong>> {
        items(value, |text| {
            let pattern = text.parse::<Pattern>();
            pattern.map_err(|error| (format!("is no pattern: {error}"), error.remedy()))
        })
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        texts(self)
    }
}

const SESSIONS: [(&str, Sessions); 3] = [
    ("local", Sessions::Local),
    ("deny", Sessions::Deny),
    ("pass", Sessions::Pass),
];

impl Value for Sessions {
    fn read(value: &DeValue<'_>) -> Result<Sessions, Vec<Wrong>> {
        let problem = "there is no such way to treat session logins";
        let remedy = "write \"local\" (answered here), \"deny\" or \"pass\"";
        word(value, &SESSIONS, problem, remedy)
    }

    fn show(&self, _: &LoadContext<'_>) -> Json {
        named(self, &SESSIONS)
    }
}
