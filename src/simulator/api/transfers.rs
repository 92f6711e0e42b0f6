//! Large bodies: file uploads and downloads, imports, exports, and their jobs.
//!
//! Uploads are not kept, and downloads are generated while they are sent.

use std::fmt::Write;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_DISPOSITION;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Call, body, echo, missing, probe, unusable};
use crate::simulator::catalogue::{File, Job, USER};
use crate::simulator::multipart::{Malformed, Part, Reader};
use crate::simulator::reply::{self, Payload, Producer, Reply};
use crate::simulator::world::World;

/// How often a job reports that it is running before it is done.
const RUNNING_POLLS: u32 = 2;

/// The size of an export's pieces, in bytes.
const PIECE: usize = 64 << 10;

/// `/rest/2.0/files`. A download has the uploaded file's name and length, but generated content:
/// the pattern of `/_bytes`.
pub(super) async fn files(call: Call<'_>, rest: &[&str]) -> Reply {
    let world = call.world;
    let file = |id: &str| world.catalogue().files.get_mut(id).cloned();
    match (call.method(), rest) {
        ("POST", []) => {
            let content_type = call.header("content-type").unwrap_or_default().to_owned();
            match read_parts(&content_type, call.body).await {
                Ok((parts, _)) => reply::json(StatusCode::CREATED, &keep_files(world, parts)),
                Err(error) => unusable(&error),
            }
        }
        ("GET", [id]) => file(id).map_or_else(|| missing("file"), |file| download(&file)),
        ("GET", [id, "info"]) => file(id).map_or_else(
            || missing("file"),
            |f| reply::json(StatusCode::OK, &info(&f)),
        ),
        ("DELETE", [id]) => match world.catalogue().files.remove(id) {
            true => reply::empty(StatusCode::NO_CONTENT),
            false => missing("file"),
        },
        _ => echo::answer(call).await,
    }
}

/// `POST /rest/2.0/import/{json,csv,excel}-job`.
pub(super) async fn import(call: Call<'_>, kind: &str) -> Reply {
    let content_type = call.header("content-type").unwrap_or_default().to_owned();
    match read_parts(&content_type, call.body).await {
        Ok((parts, bytes)) => {
            let message = format!("Received {bytes} bytes in {} parts.", parts.len());
            started(call.world, &format!("Import {kind}"), message)
        }
        Err(error) => unusable(&error),
    }
}

/// `POST /rest/2.0/outputModule/export/{json,csv,xml}`, streamed. With `-job` or `-file` after the
/// format it returns a job or a file instead, and that file has as many bytes as there are rows.
/// `rows=N` sets the number of rows.
pub(super) async fn export(call: Call<'_>, format: &str) -> Reply {
    let world = call.world;
    let rows = match call.query("rows").map(|rows| rows.parse()).transpose() {
        Ok(rows) => rows.unwrap_or(world.settings.rows),
        Err(error) => return unusable(&error),
    };
    let table = match format.split('-').next() {
        Some("json") => &JSON,
        Some("xml") => &XML,
        Some("csv" | "excel") => &CSV,
        _ => return echo::answer(call).await,
    };
    body::count(call.body).await;
    if format.ends_with("-job") {
        return started(
            world,
            &format!("Export {format}"),
            format!("Exports {rows} rows."),
        );
    }
    if format.ends_with("-file") {
        let part = Part {
            file_name: Some(format!("export.{}", format.trim_end_matches("-file"))),
            content_type: Some(table.content_type.to_owned()),
            size: rows,
            ..Part::default()
        };
        return reply::json(StatusCode::OK, &keep_files(world, vec![part])[0]);
    }
    let body = Payload::chunked(table.producer(rows));
    reply::of_type(StatusCode::OK, table.content_type, body)
}

/// `/rest/2.0/jobs`: a job is running for the first two polls, and then done.
pub(super) async fn jobs(call: Call<'_>, rest: &[&str]) -> Reply {
    let now = call.world.now().millis();
    match (call.method(), rest) {
        ("GET", []) => {
            let catalogue = call.world.catalogue();
            let jobs: Vec<Value> = catalogue
                .jobs
                .iter()
                .take(1000)
                .map(|job| told(job, now))
                .collect();
            let page = json!({ "total": jobs.len(), "offset": 0, "limit": 1000, "results": jobs });
            reply::json(StatusCode::OK, &page)
        }
        ("GET", [id]) => match call.world.catalogue().jobs.get_mut(id) {
            Some(job) => {
                job.polls = job.polls.saturating_add(1);
                reply::json(StatusCode::OK, &told(job, now))
            }
            None => missing("job"),
        },
        ("POST", [id, "canceled"]) => match call.world.catalogue().jobs.get_mut(id) {
            Some(job) => {
                job.cancelled = true;
                reply::empty(StatusCode::OK)
            }
            None => missing("job"),
        },
        _ => echo::answer(call).await,
    }
}

/// Starts a job and returns it.
pub(super) fn started(world: &World, name: &str, message: String) -> Reply {
    let (id, began) = (world.unique.uuid(), world.now().millis());
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
    reply::json(StatusCode::OK, &told)
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

/// Parses a multipart body without keeping it; returns its parts and total length.
async fn read_parts(content_type: &str, body: Incoming) -> Result<(Vec<Part>, u64), Malformed> {
    let Some(mut reader) = Reader::for_content_type(content_type) else {
        body::count(body).await;
        return Err(Malformed);
    };
    let (mut bytes, mut read) = (0, Ok(()));
    let whole = body::each_piece(body, |piece| {
        bytes += piece.len() as u64;
        if read.is_ok() {
            read = reader.take(&piece);
        }
    })
    .await;
    read?;
    if whole {
        Ok((reader.finish()?, bytes))
    } else {
        Err(Malformed)
    }
}

fn keep_files(world: &World, parts: Vec<Part>) -> Value {
    let mut told = Vec::new();
    for part in parts {
        let Some(name) = part.file_name else { continue };
        let content_type = part
            .content_type
            .unwrap_or("application/octet-stream".to_owned());
        let file = File {
            id: world.unique.uuid(),
            name,
            content_type,
            size: part.size,
        };
        told.push(info(&file));
        world.catalogue().files.put(&file.id.clone(), file);
    }
    Value::Array(told)
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
    let body = Payload::sized(file.size, probe::producer(file.size, usize::MAX));
    let reply = reply::of_type(StatusCode::OK, "application/octet-stream", body);
    let name = file.name.replace(['"', '\\'], "_");
    reply::with_header(
        reply,
        CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{name}\""),
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
    /// Generates a table of so many rows, numbered from 1, piece by piece.
    fn producer(&'static self, rows: u64) -> Producer {
        let (mut written, mut ended) = (0, false);
        Box::new(move || {
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
        let mut next = table.producer(rows);
        let mut text = String::new();
        while let Some(piece) = next() {
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
