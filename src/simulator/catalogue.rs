//! The data behind the API: lists of JSON objects, each with an `id`.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Value, json};

use self::Kind::{Asset, Community, Domain, File, Job};
use super::clock::Reading;
use super::random;

/// The most assets that a simulator starts with.
const SEEDED: u64 = 10_000;

/// The most entries of one kind. Beyond it the oldest are dropped, so that a long test does not
/// fill the memory.
const KEPT: usize = 50_000;

/// The progress that a job makes per poll, in percent: it is done at the third.
const PROGRESS: f64 = 34.0;

/// The user shown as author of everything.
pub(super) const USER: &str = "00000000-0000-0000-0000-000000900002";

/// A kind of entry. Its name is the `resourceType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Kind {
    /// `/rest/2.0/assets`.
    Asset,
    /// `/rest/2.0/domains`.
    Domain,
    /// `/rest/2.0/communities`.
    Community,
    /// `/rest/2.0/files`: an uploaded file, without its content.
    File,
    /// `/rest/2.0/jobs`.
    Job,
}

/// The attributes that refer to something else: kind, attribute, type and name. A request names
/// only the identifier, as `domainId`.
const REFERENCES: [(Kind, &str, &str, &str); 6] = [
    (Asset, "domain", "Domain", "Business Glossary"),
    (Asset, "type", "AssetType", "Business Term"),
    (Asset, "status", "Status", "Candidate"),
    (Domain, "type", "DomainType", "Glossary"),
    (Domain, "community", "Community", "Data Governance Council"),
    (Community, "parent", "Community", "Parent"),
];

/// The entries of each kind, oldest first.
#[derive(Default)]
pub(super) struct Catalogue([VecDeque<Value>; 5]);

impl Catalogue {
    /// One community, two domains, and one asset per row.
    pub(super) fn seeded(rows: u64, now: Reading) -> Self {
        let mut catalogue = Self::default();
        let mut add = |kind, name: &str| catalogue.create(kind, json!({ "name": name }), now);
        add(Community, "Data Governance Council");
        add(Domain, "Business Glossary");
        add(Domain, "Physical Data Dictionary");
        for nth in 1..=rows.min(SEEDED) {
            add(Asset, &format!("Asset {nth}"));
        }
        catalogue
    }

    /// All entries of a kind, oldest first.
    pub(super) fn all(&self, kind: Kind) -> &VecDeque<Value> {
        &self.0[kind as usize]
    }

    /// The entry with this id.
    pub(super) fn get_mut(&mut self, kind: Kind, id: &str) -> Option<&mut Value> {
        let mut entries = self.0[kind as usize].iter_mut();
        entries.find(|entry| entry["id"] == id)
    }

    /// Removes the entry with this id.
    pub(super) fn remove(&mut self, kind: Kind, id: &str) -> Option<Value> {
        let entries = &mut self.0[kind as usize];
        let at = entries.iter().position(|entry| entry["id"] == id)?;
        entries.remove(at)
    }

    /// Appends an entry with a new id, or with its own, in place of an earlier one. Returns a copy.
    pub(super) fn put(&mut self, kind: Kind, mut entry: Value) -> Value {
        match entry["id"].as_str() {
            Some(id) => drop(self.remove(kind, id)),
            None => entry["id"] = Value::from(random::uuid()),
        }
        let entries = &mut self.0[kind as usize];
        entries.push_back(entry.clone());
        if entries.len() > KEPT {
            entries.pop_front();
        }
        entry
    }

    /// Creates an entry from the attributes that a client sent, and adds all others.
    pub(super) fn create(&mut self, kind: Kind, mut sent: Value, now: Reading) -> Value {
        let mut made = json!({
            "createdBy": USER,
            "createdOn": now.millis(),
            "lastModifiedBy": USER,
            "lastModifiedOn": now.millis(),
            "system": false,
            "resourceType": kind,
        });
        for (_, attribute, of, name) in REFERENCES.iter().filter(|(of, ..)| *of == kind) {
            let fields = sent.as_object_mut();
            let id = fields.and_then(|fields| fields.remove(&format!("{attribute}Id")));
            if id.is_some() || *attribute != "parent" {
                let id = id.unwrap_or_else(|| Value::from(USER));
                made[attribute] = json!({ "id": id, "resourceType": of, "name": name });
            }
        }
        let more = match kind {
            Asset => json!({
                "displayName": sent["name"],
                "articulationScore": 0.0,
                "excludedFromAutoHyperlinking": false,
                "avgRating": 0.0,
                "ratingsCount": 0,
            }),
            Domain => json!({ "excludedFromAutoHyperlinking": false }),
            Job => json!({
                "userId": USER,
                "visibility": 2,
                "progressPercentage": 0.0,
                "cancelable": true,
                "startDate": now.millis(),
                "endDate": 0,
                "state": "RUNNING",
                "result": "NOT_SET",
            }),
            Community | File => json!({}),
        };
        merge(&mut made, more);
        merge(&mut made, sent);
        self.put(kind, made)
    }

    /// Starts a job, and returns it.
    pub(super) fn start(&mut self, name: &str, message: &str, now: Reading) -> Value {
        let kind = name.to_uppercase().replace([' ', '-'], "_");
        let job = json!({ "name": name, "type": kind, "message": message });
        self.create(Job, job, now)
    }
}

/// Lets a running job make progress.
pub(super) fn advance(job: &mut Value, now: Reading) {
    let progress = job["progressPercentage"].as_f64().unwrap_or_default() + PROGRESS;
    if progress >= 100.0 {
        end(job, ("COMPLETED", "SUCCESS", 100.0), now);
    } else if job["state"] == "RUNNING" {
        job["progressPercentage"] = Value::from(progress);
    }
}

/// Ends a running job: with a state, a result and the progress in percent.
pub(super) fn end(job: &mut Value, (state, result, progress): (&str, &str, f64), now: Reading) {
    if job["state"] == "RUNNING" {
        let ended = json!({
            "state": state,
            "result": result,
            "progressPercentage": progress,
            "cancelable": false,
            "endDate": now.millis(),
            "lastModifiedOn": now.millis(),
        });
        merge(job, ended);
    }
}

/// Copies the fields of one object into another.
pub(super) fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_order_and_the_oldest_are_dropped() {
        let mut catalogue = Catalogue::default();
        for id in 0..KEPT {
            // without `put`, which would look for each id among all others
            catalogue.0[File as usize].push_back(json!({ "id": id.to_string() }));
        }
        catalogue.put(File, json!({ "id": "1", "size": 7 }));
        catalogue.put(File, json!({}));
        let files = catalogue.all(File);
        assert_eq!(files.len(), KEPT);
        assert_eq!(
            (&files[0]["id"], &files[KEPT - 2]),
            (&json!("2"), &json!({ "id": "1", "size": 7 }))
        );
        assert!(catalogue.get_mut(File, "0").is_none());
        assert!(catalogue.get_mut(Job, "2").is_none());
        assert!(catalogue.remove(File, "2").is_some());
        assert!(catalogue.remove(File, "2").is_none());
    }

    #[test]
    fn a_job_that_ended_stays_as_it_is() {
        let now = super::super::clock::read();
        let mut catalogue = Catalogue::default();
        let mut job = catalogue.start("Import csv-job", "", now);
        assert_eq!(job["type"], "IMPORT_CSV_JOB");
        end(&mut job, ("CANCELED", "ABORTED", 0.0), now);
        for _ in 0..4 {
            advance(&mut job, now);
        }
        assert_eq!(
            (&job["state"], &job["progressPercentage"]),
            (&json!("CANCELED"), &json!(0.0))
        );
    }
}
