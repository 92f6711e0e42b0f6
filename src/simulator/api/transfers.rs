//! Large bodies: file uploads and downloads, imports and exports.
//!
//! Uploads are not kept, and downloads are generated while they are sent.

use axum::response::IntoResponse;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, probe, unusable};
use crate::simulator::catalogue::Kind;
use crate::simulator::reply::{self, Reply};
use crate::simulator::{body, clock};

/// The rows of one piece of an export.
const PIECE: u64 = 1000;

/// `POST /rest/2.0/files`.
pub(super) async fn upload(call: Call<'_>) -> Answer {
    let world = call.world;
    let parts = read_form(call).await.map_err(unusable)?;
    let catalogue = &mut world.lock().catalogue;
    let files = parts.into_iter().filter(|part| part["name"].is_string());
    let files: Value = files.map(|file| catalogue.put(Kind::File, file)).collect();
    Ok(reply::json(StatusCode::CREATED, files))
}

/// A file without its content, or any part of a form, which then has no name.
fn file(name: Option<&str>, content_type: &str, size: u64) -> Value {
    json!({
        "name": name,
        "contentType": content_type,
        "size": size,
        "extension": name.and_then(|name| Some(name.rsplit_once('.')?.1)),
    })
}

/// `GET /rest/2.0/files/{id}`: a body with the file's name and length, and with the pattern of
/// `/_bytes` as its content.
pub(super) fn download(file: &Value) -> Reply {
    let size = file["size"].as_u64().unwrap_or_default();
    let name = file["name"].as_str().unwrap_or_default();
    let name = name.replace(['"', '\\'], "_");
    let body = reply::generated(probe::pieces(size, usize::MAX), None, None);
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, size.to_string()),
    ];
    let disposition = format!("attachment; filename=\"{name}\"");
    let reply = (headers, body).into_response();
    reply::with_header(reply, CONTENT_DISPOSITION, &disposition)
}

/// `POST /rest/2.0/import/{json,csv,excel}-job`.
pub(super) async fn import(call: Call<'_>, kind: &str) -> Answer {
    let world = call.world;
    let parts = read_form(call).await.map_err(unusable)?;
    let sizes = parts.iter().filter_map(|part| part["size"].as_u64());
    let (bytes, number) = (sizes.sum::<u64>(), parts.len());
    let message = format!("Received {bytes} bytes in {number} parts.");
    let catalogue = &mut world.lock().catalogue;
    let job = catalogue.start(&format!("Import {kind}"), &message, clock::read());
    Ok(reply::json(StatusCode::OK, job))
}

/// Reads a `multipart/form-data` body (RFC 7578), and describes each part as a [`file`].
async fn read_form(call: Call<'_>) -> Result<Vec<Value>, multer::Error> {
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
        let mut size = 0;
        while let Some(piece) = field.chunk().await? {
            size += piece.len() as u64;
        }
        let content_type = field.content_type().map(AsRef::as_ref);
        let content_type = content_type.unwrap_or("application/octet-stream");
        parts.push(file(field.file_name(), content_type, size));
    }
    Ok(parts)
}

#[derive(Deserialize)]
struct Rows {
    rows: Option<u64>,
}

/// `POST /rest/2.0/outputModule/export/{json,csv,xml,excel}`, streamed; `excel` is CSV. With `-job`
/// or `-file` after the format it returns a job or a file instead, and that file has as many bytes
/// as there are rows. `rows=N` sets the number of rows.
pub(super) async fn export(call: Call<'_>, format: &str) -> Answer {
    let Rows { rows } = call.query()?;
    let rows = rows.unwrap_or(call.world.config.rows);
    let (name, way) = format.split_once('-').unwrap_or((format, ""));
    let table = TABLES.iter().find(|table| table.names.contains(&name));
    let Some(table) = table.filter(|_| ["", "job", "file"].contains(&way)) else {
        return Ok(probe::echo(call).await);
    };
    body::drain(call.body).await;
    let catalogue = &mut call.world.lock().catalogue;
    let told = match way {
        "" => {
            let body = reply::generated(table.pieces(rows), None, None);
            return Ok(([(CONTENT_TYPE, table.content_type)], body).into_response());
        }
        "file" => {
            let name = format!("export.{name}");
            catalogue.put(Kind::File, file(Some(&name), table.content_type, rows))
        }
        _ => {
            let (name, message) = (format!("Export {format}"), format!("Exports {rows} rows."));
            catalogue.start(&name, &message, clock::read())
        }
    };
    Ok(reply::json(StatusCode::OK, told))
}

/// The format of a table. `#` stands for a row's number, and for the number of all rows at the end.
struct Table {
    names: &'static [&'static str],
    content_type: &'static str,
    head: &'static str,
    row: &'static str,
    between: &'static str,
    foot: &'static str,
}

static TABLES: [Table; 3] = [
    Table {
        names: &["json"],
        content_type: "application/json",
        head: "{\"aaData\":[",
        row: r##"{"id":"#","name":"Asset #","status":"Candidate"}"##,
        between: ",\n",
        foot: "],\"iTotalRecords\":#,\"iTotalDisplayRecords\":#}\n",
    },
    Table {
        names: &["csv", "excel"],
        content_type: "text/csv; charset=utf-8",
        head: "id,name,status\r\n",
        row: "#,Asset #,Candidate\r\n",
        between: "",
        foot: "",
    },
    Table {
        names: &["xml"],
        content_type: "application/xml",
        head: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<view>\n",
        row: r##"<asset id="#" name="Asset #" status="Candidate"/>"##,
        between: "\n",
        foot: "\n</view>\n",
    },
];

impl Table {
    /// A table of so many rows, numbered from 1, piece by piece.
    fn pieces(&'static self, rows: u64) -> impl Iterator<Item = Bytes> {
        let row = |nth: u64| {
            let between = if nth == 1 { "" } else { self.between };
            between.to_owned() + &self.row.replace('#', &nth.to_string())
        };
        let pieces = (0..rows.div_ceil(PIECE)).map(move |piece| {
            let nth = piece * PIECE + 1..=rows.min((piece + 1) * PIECE);
            nth.map(row).collect::<String>()
        });
        let foot = self.foot.replace('#', &rows.to_string());
        let all = std::iter::once(self.head.to_owned()).chain(pieces);
        all.chain([foot]).map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_whole_whatever_their_length() {
        for rows in [0, 1, 2, PIECE, 5001] {
            let [json, csv, xml] = TABLES.each_ref().map(|table| {
                let text: Vec<u8> = table.pieces(rows).flatten().collect();
                String::from_utf8(text).unwrap()
            });
            let json: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["aaData"].as_array().unwrap().len() as u64, rows);
            assert_eq!(json["iTotalRecords"], rows);
            assert_eq!(csv.lines().count() as u64, rows + 1);
            let last = csv.lines().last().unwrap();
            assert!(rows == 0 || last == format!("{rows},Asset {rows},Candidate"));
            assert_eq!(xml.matches("<asset ").count() as u64, rows);
            assert!(xml.ends_with("\n</view>\n"), "{rows}");
        }
    }
}
