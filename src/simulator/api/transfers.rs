//! Large bodies: uploads, imports and their jobs, and an export.
//!
//! Uploads are not kept, and an export is generated while it is sent.

use axum::response::IntoResponse;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::{Answer, Call, USER, missing, unusable};
use crate::simulator::reply::{self, Reply};
use crate::simulator::{body, clock, random};

/// How often a job reports that it is running before it is done.
const RUNNING_POLLS: u32 = 2;

/// The rows of one piece of an export.
const PIECE: u64 = 1000;

/// An import job.
pub(in crate::simulator) struct Job {
    /// `Import json-job` and the like.
    name: String,
    /// Its result message.
    message: String,
    /// When it started, in milliseconds since the Unix epoch.
    began: u64,
    /// How often it was polled.
    polls: u32,
}

/// `POST /rest/2.0/files`.
pub(super) async fn upload(call: Call<'_>) -> Answer {
    let parts = read_form(call).await.map_err(unusable)?;
    let files = parts.into_iter().filter_map(|part| {
        let name = part.file_name?;
        Some(json!({
            "id": random::uuid(),
            "contentType": part.content_type,
            "size": part.size,
            "extension": name.rsplit_once('.').map(|(_, extension)| extension),
            "name": name,
        }))
    });
    Ok(reply::json(StatusCode::CREATED, files.collect::<Value>()))
}

/// `POST /rest/2.0/import/{json,csv,excel}-job`.
pub(super) async fn import(call: Call<'_>, kind: &str) -> Answer {
    let world = call.world;
    let parts = read_form(call).await.map_err(unusable)?;
    let (bytes, number) = (parts.iter().map(|part| part.size).sum::<u64>(), parts.len());
    let job = Job {
        name: format!("Import {kind}"),
        message: format!("Received {bytes} bytes in {number} parts."),
        began: clock::read().millis(),
        polls: 0,
    };
    let id = random::uuid();
    let told = told(&id, &job);
    world.lock().jobs.insert(id, job);
    Ok(reply::json(StatusCode::OK, told))
}

/// `GET /rest/2.0/jobs/{id}`: a job is running for the first two polls, and then done.
pub(super) fn job(call: &Call<'_>, id: &str) -> Answer {
    let jobs = &mut call.world.lock().jobs;
    let job = jobs.get_mut(id).ok_or_else(|| missing("job"))?;
    job.polls = job.polls.saturating_add(1);
    Ok(reply::json(StatusCode::OK, told(id, job)))
}

fn told(id: &str, job: &Job) -> Value {
    let now = clock::read().millis();
    let is_running = job.polls <= RUNNING_POLLS;
    let (state, result, progress) = match is_running {
        true => ("RUNNING", "NOT_SET", 50.0),
        false => ("COMPLETED", "SUCCESS", 100.0),
    };
    json!({
        "id": id,
        "createdBy": USER,
        "createdOn": job.began,
        "lastModifiedBy": USER,
        "lastModifiedOn": now,
        "system": false,
        "resourceType": "Job",
        "name": job.name,
        "type": job.name.to_uppercase().replace([' ', '-'], "_"),
        "userId": USER,
        "visibility": 2,
        "progressPercentage": progress,
        "cancelable": false,
        "startDate": job.began,
        "endDate": if is_running { 0 } else { now },
        "state": state,
        "result": result,
        "message": job.message,
    })
}

/// A part of a form, without its content.
struct Part {
    file_name: Option<String>,
    content_type: String,
    size: u64,
}

/// Reads a `multipart/form-data` body (RFC 7578).
async fn read_form(call: Call<'_>) -> Result<Vec<Part>, multer::Error> {
    let content_type = call.header("content-type").unwrap_or_default();
    let boundary = match multer::parse_boundary(content_type) {
        Ok(boundary) => boundary,
        Err(error) => {
            body::drain(call.body).await;
            return Err(error);
        }
    };
    let mut multipart = multer::Multipart::new(call.body.into_data_stream(), boundary);
    let mut parts = Vec::new();
    while let Some(mut field) = multipart.next_field().await? {
        let content_type = field
            .content_type()
            .map_or("application/octet-stream", AsRef::as_ref);
        let mut part = Part {
            file_name: field.file_name().map(str::to_owned),
            content_type: content_type.to_owned(),
            size: 0,
        };
        while let Some(piece) = field.chunk().await? {
            part.size += piece.len() as u64;
        }
        parts.push(part);
    }
    Ok(parts)
}

/// `POST /rest/2.0/outputModule/export/csv`, streamed.
pub(super) async fn export(call: Call<'_>) -> Reply {
    body::drain(call.body).await;
    let body = reply::generated(table(call.world.config.rows), None, None);
    ([(CONTENT_TYPE, "text/csv; charset=utf-8")], body).into_response()
}

/// A table of so many rows, numbered from 1, piece by piece.
fn table(rows: u64) -> impl Iterator<Item = Bytes> {
    let pieces = (0..rows.div_ceil(PIECE)).map(move |piece| {
        let nth = piece * PIECE + 1..=rows.min((piece + 1) * PIECE);
        let rows = nth.map(|nth| format!("{nth},Asset {nth},Candidate\r\n"));
        Bytes::from(rows.collect::<String>())
    });
    std::iter::once(Bytes::from_static(b"id,name,status\r\n")).chain(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_whole_whatever_their_length() {
        for rows in [0, 1, 2, PIECE, 5001] {
            let text: Vec<u8> = table(rows).flatten().collect();
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.lines().count() as u64, rows + 1);
            let last = text.lines().last().unwrap();
            assert!(rows == 0 || last == format!("{rows},Asset {rows},Candidate"));
        }
    }
}
