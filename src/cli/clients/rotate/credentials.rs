//! A client's credentials during a rotation.

use anyhow::bail;
use serde::Deserialize;

use crate::client_id::ClientId;
use crate::secret::Secret;

/// A client's id and secret, and the JSON that they came in.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) id: ClientId,
    pub(super) secret: Secret,
    /// The content of the file.
    pub(super) json: Secret,
}

impl Credentials {
    /// Parses credentials in the format of `credentials_file`.
    ///
    /// # Errors
    /// If it is not valid. Never quotes it.
    pub(super) fn parse(json: Secret) -> anyhow::Result<Credentials> {
        #[derive(Deserialize)]
        struct IdAndSecret {
            client_id: String,
            client_secret: String,
        }
        let Ok(both) = serde_json::from_str::<IdAndSecret>(json.expose()) else {
            bail!("it is not JSON with client_id and client_secret");
        };
        let secret = Secret::from(both.client_secret);
        Ok(Credentials {
            id: ClientId::parse(&both.client_id)?,
            secret: Secret::parse(secret.expose())?,
            json,
        })
    }

    /// Combines an id and a secret from two files.
    ///
    /// # Errors
    /// If the id is not valid.
    pub(super) fn of(id: &str, secret: Secret) -> anyhow::Result<Credentials> {
        let id = ClientId::parse(id)?;
        let both =
            serde_json::json!({ "client_id": id.as_str(), "client_secret": secret.expose() });
        let json = Secret::from(format!("{both}\n"));
        Ok(Credentials { id, secret, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_printed() {
        let shown = format!(
            "{:?}",
            Credentials::of("old", Secret::from("cAnArY".to_owned()))
        );
        assert!(!shown.contains("cAnArY"), "{shown}");
        let wrong = Secret::from(r#"{"client_secret":"cAnArY""#.to_owned());
        let error = format!("{:#}", Credentials::parse(wrong).unwrap_err());
        assert!(!error.contains("cAnArY"), "{error}");
    }
}
