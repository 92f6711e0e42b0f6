//! A response of the proxy's own: a status, headers and a JSON body. It is sent as the response to
//! a request, or as bytes where no request could be read.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use pingora::http::ResponseHeader;
use serde::Serialize;

use super::caller::{Caller, CallerError};
use super::inject::REQUEST_ID;
use crate::upstream::session::Chunk;

/// The header that marks a response as the proxy's own and gives the reason.
const HEADER: &str = "X-Collibra-Auth-Proxy";

/// A response of the proxy's own.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    fields: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Answer {
    /// Returns a response without a body; `reason` is the value of [`HEADER`].
    pub(super) fn empty(status: StatusCode, reason: &'static str) -> Answer {
        let fields = vec![
            (HEADER, reason.to_owned()),
            (CACHE_CONTROL.as_str(), "no-store".to_owned()),
        ];
        Answer {
            status,
            fields,
            body: Bytes::new(),
        }
    }

    /// Returns a response with `body` as JSON.
    pub(super) fn json(status: StatusCode, reason: &'static str, body: &impl Serialize) -> Answer {
        // serializing strings and numbers cannot fail
        let body = serde_json::to_vec(body).unwrap_or_default().into();
        let empty = Answer::empty(status, reason);
        Answer { body, ..empty }.with(CONTENT_TYPE.as_str(), "application/json".to_owned())
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: String) -> Answer {
        self.fields.push((name, value));
        self
    }

    /// Sends it as the response to the request `id`.
    ///
    /// # Errors
    /// If the caller is gone.
    pub(super) async fn send(
        self,
        caller: &mut Caller,
        id: Option<&HeaderValue>,
    ) -> Result<(), CallerError> {
        let mut head = ResponseHeader::build(self.status, Some(6))?;
        if self.status != StatusCode::NO_CONTENT {
            head.insert_header(CONTENT_LENGTH, self.body.len())?;
        }
        for (name, value) in self.fields {
            head.append_header(name, value)?;
        }
        if let Some(id) = id {
            head.insert_header(REQUEST_ID, id.clone())?;
        }
        let no_body = self.body.is_empty() || *caller.method() == Method::HEAD;
        caller.write_head(Box::new(head), no_body).await?;
        if !no_body {
            caller.write_body(Chunk::Owned(self.body), true).await?;
        }
        Ok(())
    }

    /// The whole response as bytes, for a connection on which no request could be read. It closes
    /// the connection.
    pub(super) fn raw(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = self.body.len();
        head.push_str(&format!("{CONTENT_LENGTH}: {length}\r\n"));
        head.push_str(&format!("{CONNECTION}: close\r\n\r\n"));
        [head.as_bytes(), &self.body].concat()
    }
}
