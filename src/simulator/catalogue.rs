//! The data behind the API: assets, domains, communities, files and jobs.
//!
//! It starts with a few of each. Beyond a limit the oldest created entries are dropped, so that a
//! long test does not fill the memory.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::clock::Reading;
use super::random;

/// The most assets that a simulator starts with.
const SEEDED: u64 = 10_000;
/// The most entries of one kind.
const KEPT: usize = 50_000;

/// The user shown as author of everything.
pub(super) const USER: &str = "00000000-0000-0000-0000-000000900002";

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/rest/2.0/assets`.
    Asset,
    /// `/rest/2.0/domains`.
    Domain,
    /// `/rest/2.0/communities`.
    Community,
}

impl Kind {
    /// The name in `resourceType`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Asset => "Asset",
            Self::Domain => "Domain",
            Self::Community => "Community",
        }
    }
}

/// A collection of entries by id, in the order of creation.
pub(super) struct Shelf<T> {
    entries: BTreeMap<u64, (String, T)>,
    places: HashMap<String, u64>,
    next: u64,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
        }
    }
}

impl<T> Shelf<T> {
    /// Appends an entry, or replaces the one with the same id.
    pub(super) fn put(&mut self, id: &str, entry: T) {
        let place = self.places.get(id).copied().unwrap_or(self.next);
        self.next += 1;
        self.places.insert(id.to_owned(), place);
        self.entries.insert(place, (id.to_owned(), entry));
        if self.entries.len() > KEPT
            && let Some((_, (oldest, _))) = self.entries.pop_first()
        {
            self.places.remove(&oldest);
        }
    }

    /// The entry with this id.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        Some(&mut self.entries.get_mut(self.places.get(id)?)?.1)
    }

    /// Removes the entry with this id; `false` if there is none.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        self.places
            .remove(id)
            .is_some_and(|place| self.entries.remove(&place).is_some())
    }

    /// All entries, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.values().map(|(_, entry)| entry)
    }
}

/// An uploaded file, without its content.
#[derive(Clone)]
pub(super) struct File {
    /// The id.
    pub(super) id: String,
    /// The name.
    pub(super) name: String,
    /// The media type.
    pub(super) content_type: String,
    /// The length in bytes.
    pub(super) size: u64,
}

/// An import, export or removal job.
#[derive(Clone)]
pub(super) struct Job {
    /// The id.
    pub(super) id: String,
    /// The job's type.
    pub(super) name: String,
    /// Its result message.
    pub(super) message: String,
    /// When it started, in milliseconds since the Unix epoch.
    pub(super) began: u64,
    /// How often it was polled.
    pub(super) polls: u32,
    /// Whether it was cancelled.
    pub(super) cancelled: bool,
}

/// The data behind the API.
#[derive(Default)]
pub(super) struct Catalogue {
    assets: Shelf<Value>,
    domains: Shelf<Value>,
    communities: Shelf<Value>,
    /// Uploaded files.
    pub(super) files: Shelf<File>,
    /// Started jobs.
    pub(super) jobs: Shelf<Job>,
}

impl Catalogue {
    /// One community, two domains, and one asset per row.
    pub(super) fn seeded(rows: u64, now: Reading) -> Self {
        let mut catalogue = Self::default();
        let mut add = |kind, name: String| {
            let fields = Map::from_iter([("name".to_owned(), Value::from(name))]);
            catalogue.create(kind, fields, now);
        };
        add(Kind::Community, "Data Governance Council".to_owned());
        add(Kind::Domain, "Business Glossary".to_owned());
        add(Kind::Domain, "Physical Data Dictionary".to_owned());
        (1..=rows.min(SEEDED)).for_each(|at| add(Kind::Asset, format!("Asset {at}")));
        catalogue
    }

    /// The resources of one kind.
    pub(super) fn shelf(&mut self, kind: Kind) -> &mut Shelf<Value> {
        match kind {
            Kind::Asset => &mut self.assets,
            Kind::Domain => &mut self.domains,
            Kind::Community => &mut self.communities,
        }
    }

    /// Creates a resource from a client's request, and adds all other attributes.
    pub(super) fn create(
        &mut self,
        kind: Kind,
        mut sent: Map<String, Value>,
        now: Reading,
    ) -> Value {
        let id = match sent.get("id").and_then(Value::as_str) {
            Some(id) => id.to_owned(),
            None => random::uuid(),
        };
        let mut made = json!({
            "id": id,
            "createdBy": USER,
            "createdOn": now.millis(),
            "lastModifiedBy": USER,
            "lastModifiedOn": now.millis(),
            "system": false,
            "resourceType": kind.name(),
        });
        let reference = |sent: &mut Map<String, Value>, field: &str, of: &str, name: &str| {
            let id = sent.remove(field).unwrap_or_else(|| Value::from(USER));
            json!({ "id": id, "resourceType": of, "name": name })
        };
        match kind {
            Kind::Asset => {
                made["displayName"] = sent.get("name").cloned().unwrap_or_default();
                made["articulationScore"] = Value::from(0.0);
                made["excludedFromAutoHyperlinking"] = Value::from(false);
                made["domain"] = reference(&mut sent, "domainId", "Domain", "Business Glossary");
                made["type"] = reference(&mut sent, "typeId", "AssetType", "Business Term");
                made["status"] = reference(&mut sent, "statusId", "Status", "Candidate");
                made["avgRating"] = Value::from(0.0);
                made["ratingsCount"] = Value::from(0);
            }
            Kind::Domain => {
                made["excludedFromAutoHyperlinking"] = Value::from(false);
                made["type"] = reference(&mut sent, "typeId", "DomainType", "Glossary");
                made["community"] = reference(
                    &mut sent,
                    "communityId",
                    "Community",
                    "Data Governance Council",
                );
            }
            Kind::Community => {
                if sent.contains_key("parentId") {
                    made["parent"] = reference(&mut sent, "parentId", "Community", "Parent");
                }
            }
        }
        if let Some(made) = made.as_object_mut() {
            made.extend(sent);
        }
        self.shelf(kind).put(&id, made.clone());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_keeps_its_order_and_forgets_the_oldest() {
        let mut shelf = Shelf::default();
        for at in 0..=KEPT {
            shelf.put(&at.to_string(), at);
        }
        shelf.put("2", 7);
        assert_eq!(shelf.iter().take(3).collect::<Vec<_>>(), [&1, &7, &3]);
        assert!(shelf.get_mut("0").is_none());
        assert!(shelf.remove("1"));
        assert!(!shelf.remove("1"));
    }
}
