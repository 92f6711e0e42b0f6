//! Large bodies: file uploads and downloads, imports, exports, and their jobs.
//!
//! Uploads are not kept, and downloads are generated while they are sent.

use std::fmt::Write;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, Refused, body, echo, probe};
use crate::simulator::catalogue::{File, Job, USER};
use crate::simulator::random;
use crate::simulator::reply::{self, Reply};
use crate::simulator::world::World;

/// How often a job reports that it is running before it is done.
const RUNNING_POLLS: u32 = 2;

/// The size of an export's pieces, in bytes.
const PIECE: usize = 64 << 10;

/// `/rest/2.0/files`. A download has the uploaded file's name and length, but generated content:
/// the pattern of `/_bytes`.
pub(super) async fn files(call: Call<'_>, rest: &[&str]) -> Answer {
    let world = call.world;
    let file = |id: &str| {
        let file = world.catalogue().files.get_mut(id).cloned();
        file.ok_or(Refused::Missing("file"))
    };
    Ok(match (call.method(), rest) {
        ("POST", []) => {
            let files = read_form(call).await?.files;
            let told: Vec<Value> = files.into_iter().map(|file| keep(world, file)).collect();
            reply::json(StatusCode::CREATED, told)
        }
        ("GET", [id]) => download(&file(id)?),
        ("GET", [id, "info"]) => reply::json(StatusCode::OK, info(&file(id)?)),
        ("DELETE", [id]) => {
            file(id)?;
            world.catalogue().files.remove(id);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => echo::answer(call).await,
    })
}

/// `POST /rest/2.0/import/{json,csv,excel}-job`.
pub(super) async fn import(call: Call<'_>, kind: &str) -> Answer {
    let world = call.world;
    let Form { parts, bytes, .. } = read_form(call).await?;
    let message = format!("Received {bytes} bytes in {parts} parts.");
    Ok(started(world, &format!("Import {kind}"), message))
}

#[derive(Deserialize)]
struct Rows {
    rows: Option<u64>,
}

/// `POST /rest/2.0/outputModule/export/{json,csv,xml}`, streamed. With `-job` or `-file` after the
/// format it returns a job or a file instead, and that file has as many bytes as there are rows.
/// `rows=N` sets the number of rows.
pub(super) async fn export(call: Call<'_>, format: &str) -> Answer {
    let world = call.world;
    let asked: Rows = call.query()?;
    let rows = asked.rows.unwrap_or(world.settings.rows);
    let table = match format.split('-').next() {
        Some("json") => &JSON,
        Some("xml") => &XML,
        Some("csv" | "excel") => &CSV,
        _ => return Ok(echo::answer(call).await),
    };
    body::drain(call.body).await;
    if format.ends_with("-job") {
        let message = format!("Exports {rows} rows.");
        return Ok(started(world, &format!("Export {format}"), message));
    }
    if let Some(extension) = format.strip_suffix("-file") {
        let file = File {
            id: random::uuid(),
            name: format!("export.{extension}"),
            content_type: table.content_type.to_owned(),
            size: rows,
        };
        return Ok(reply::json(StatusCode::OK, keep(world, file)));
    }
    let body = reply::generated(table.pieces(rows), None, None);
    Ok(([(CONTENT_TYPE, table.content_type)], body).into_response())
}

/// `/rest/2.0/jobs`: a job is running for the first two polls, and then done.
pub(super) async fn jobs(call: Call<'_>, rest: &[&str]) -> Answer {
    let world = call.world;
    let now = world.now().millis();
    let with = |id: &str, act: fn(&mut Job)| {
        let mut catalogue = world.catalogue();
        let job = catalogue.jobs.get_mut(id).ok_or(Refused::Missing("job"))?;
        act(job);
        Ok::<_, Refused>(told(job, now))
    };
    Ok(match (call.method(), rest) {
        ("GET", []) => {
            let catalogue = world.catalogue();
            let jobs: Vec<Value> = catalogue
                .jobs
                .iter()
                .take(1000)
                .map(|job| told(job, now))
                .collect();
            let page = json!({ "total": jobs.len(), "offset": 0, "limit": 1000, "results": jobs });
            reply::json(StatusCode::OK, page)
        }
        ("GET", [id]) => {
            let told = with(id, |job| job.polls = job.polls.saturating_add(1))?;
            reply::json(StatusCode::OK, told)
        }
        ("POST", [id, "canceled"]) => {
            with(id, |job| job.cancelled = true)?;
            StatusCode::OK.into_response()
        }
        _ => echo::answer(call).await,
    })
}

/// Starts a job and returns it.
pub(super) fn started(world: &World, name: &str, message: String) -> Reply {
    let (id, began) = (random::uuid(), world.now().millis());
    let job = Job {
        id,
        name: name.to_owned(),
        message,
        began,
        polls: 0,
        cancelled: false,
    };
    let told = told(&job, began);
    world.catalogue().jobs.put(&job.id.clone(), job);
    reply::json(StatusCode::OK, told)
}

fn told(job: &Job, now: u64) -> Value {
    let (state, result, progress) = match job {
        Job {
            cancelled: true, ..
        } => ("CANCELED", "ABORTED", 0.0),
        Job {
            polls: 0..=RUNNING_POLLS,
            ..
        } => ("RUNNING", "NOT_SET", 50.0),
        _ => ("COMPLETED", "SUCCESS", 100.0),
    };
    json!({
        "id": job.id,
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
        "cancelable": state == "RUNNING",
        "startDate": job.began,
        "endDate": if state == "RUNNING" { 0 } else { now },
        "state": state,
        "result": result,
        "message": job.message,
    })
}

/// A `multipart/form-data` body (RFC 7578), of which only the sizes are kept.
#[derive(Default)]
struct Form {
    files: Vec<File>,
    parts: usize,
    /// The length of all parts.
    bytes: u64,
}

async fn read_form(call: Call<'_>) -> Result<Form, multer::Error> {
    let content_type = call.header("content-type").unwrap_or_default();
    let boundary = match multer::parse_boundary(content_type) {
        Ok(boundary) => boundary,
        Err(error) => {
            body::drain(call.body).await;
            return Err(error);
        }
    };
    let mut multipart = multer::Multipart::new(call.body.into_data_stream(), boundary);
    let mut form = Form::default();
    while let Some(mut part) = multipart.next_field().await? {
        let mut size = 0;
        while let Some(piece) = part.chunk().await? {
            size += piece.len() as u64;
        }
        form.parts += 1;
        form.bytes += size;
        if let Some(name) = part.file_name() {
            let content_type = part.content_type().map(|of| of.to_string());
            form.files.push(File {
                id: random::uuid(),
                name: name.to_owned(),
                content_type: content_type.unwrap_or("application/octet-stream".to_owned()),
                size,
            });
        }
    }
    Ok(form)
}

/// Keeps an uploaded file, and describes it.
fn keep(world: &World, file: File) -> Value {
    let told = info(&file);
    world.catalogue().files.put(&file.id.clone(), file);
    told
}

fn info(file: &File) -> Value {
    json!({
        "id": file.id,
        "name": file.name,
        "contentType": file.content_type,
        "size": file.size,
        "extension": file.name.rsplit_once('.').map(|(_, extension)| extension),
    })
}

fn download(file: &File) -> Reply {
    let body = reply::generated(probe::pieces(file.size, usize::MAX), None, None);
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, file.size.to_string()),
    ];
    let name = file.name.replace(['"', '\\'], "_");
    let disposition = format!("attachment; filename=\"{name}\"");
    reply::with_header(
        (headers, body).into_response(),
        CONTENT_DISPOSITION,
        &disposition,
    )
}

/// The format of a table.
struct Table {
    content_type: &'static str,
    head: &'static str,
    row: fn(&mut String, u64),
    between: &'static str,
    foot: fn(u64) -> String,
}

static JSON: Table = Table {
    content_type: "application/json",
    head: "{\"aaData\":[",
    row: |text, row| {
        // writing to a String cannot fail
        let _ = write!(
            text,
            "{{\"id\":\"{row}\",\"name\":\"Asset {row}\",\"status\":\"Candidate\"}}"
        );
    },
    between: ",\n",
    foot: |rows| format!("],\"iTotalRecords\":{rows},\"iTotalDisplayRecords\":{rows}}}\n"),
};

static CSV: Table = Table {
    content_type: "text/csv; charset=utf-8",
    head: "id,name,status\r\n",
    row: |text, row| {
        let _ = write!(text, "{row},Asset {row},Candidate\r\n");
    },
    between: "",
    foot: |_| String::new(),
};

static XML: Table = Table {
    content_type: "application/xml",
    head: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<view>\n",
    row: |text, row| {
        let _ = write!(
            text,
            "<asset id=\"{row}\" name=\"Asset {row}\" status=\"Candidate\"/>"
        );
    },
    between: "\n",
    foot: |_| "\n</view>\n".to_owned(),
};

impl Table {
    /// A table of so many rows, numbered from 1, piece by piece.
    fn pieces(&'static self, rows: u64) -> impl Iterator<Item = Bytes> + Send {
        let (mut written, mut ended) = (0, false);
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let mut text = String::with_capacity(PIECE + 256);
            if written == 0 {
                text.push_str(self.head);
            }
            while written < rows && text.len() < PIECE {
                if written > 0 {
                    text.push_str(self.between);
                }
                written += 1;
                (self.row)(&mut text, written);
            }
            if written == rows {
                ended = true;
                text.push_str(&(self.foot)(rows));
            }
            Some(Bytes::from(text))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &'static Table, rows: u64) -> String {
        let mut text = String::new();
        for piece in table.pieces(rows) {
            assert!(piece.len() < 2 * PIECE);
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        text
    }

    #[test]
    fn tables_are_whole_whatever_their_length() {
        for rows in [0, 1, 2, 5000] {
            let json: Value = serde_json::from_str(&written(&JSON, rows)).unwrap();
            assert_eq!(json["aaData"].as_array().unwrap().len() as u64, rows);
            assert_eq!(json["iTotalRecords"], rows);
            assert_eq!(written(&CSV, rows).lines().count() as u64, rows + 1);
            assert_eq!(written(&XML, rows).matches("<asset ").count() as u64, rows);
        }
    }
}
