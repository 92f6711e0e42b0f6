//! The real curl with its default behaviour: `Expect` before uploads, chunks, forms, HTTP/1.0,
//! compressed responses.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Origin, Proxy, file, pair};

/// Runs curl with `args` for `path` at the proxy; returns its output.
fn curl(proxy: &Proxy, args: &[&str], path: &str, input: Option<&Path>) -> String {
    let url = format!("http://{}{path}", proxy.address);
    let input = input.map_or(Stdio::null(), |path| fs::File::open(path).unwrap().into());
    let output = Command::new("curl")
        // no settings and no proxy of the user who runs this
        .args([
            "--disable",
            "--noproxy",
            "*",
            "--silent",
            "--show-error",
            "--fail",
        ])
        .args(["--max-time", "60"])
        .args(args)
        .arg(url)
        .stdin(input)
        .output()
        .expect("curl cannot be run: it belongs to what tests/setup installs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {args:?} {path}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Three mebibytes, more than curl sends without `Expect`.
fn three_mebibytes() -> (tempfile::TempDir, String) {
    let (folder, path) = file("upload.bin", &b"0123456789abcdef".repeat(3 << 16));
    (folder, path.to_str().unwrap().to_owned())
}

#[test]
fn an_upload_is_asked_for_and_arrives() {
    let (simulator, proxy) = pair();
    let (_folder, path) = three_mebibytes();
    let asked = curl(
        &proxy,
        &["--verbose", "-T", &path, "-X", "POST", "--stderr", "-"],
        "/_bytes",
        None,
    );
    assert!(
        asked.contains("Expect: 100-continue") && asked.contains("100 Continue"),
        "{asked}"
    );
    assert!(asked.contains(r#"{"received":3145728}"#), "{asked}");
    let whole = curl(
        &proxy,
        &["--data-binary", &format!("@{path}")],
        "/_bytes",
        None,
    );
    assert_eq!(json(&whole)["received"], 3 << 20);
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn an_upload_of_unknown_length_arrives() {
    let (_simulator, proxy) = pair();
    let (_folder, path) = three_mebibytes();
    let told = curl(
        &proxy,
        &["-T", "-", "-X", "POST"],
        "/_bytes",
        Some(Path::new(&path)),
    );
    assert_eq!(json(&told)["received"], 3 << 20);
}

#[test]
fn an_import_starts_its_job_and_the_job_ends() {
    let (_simulator, proxy) = pair();
    let (_folder, path) = three_mebibytes();
    let form = format!("file=@{path};type=application/json");
    let args = ["-F", form.as_str(), "-F", "sendNotification=false"];
    let job = json(&curl(&proxy, &args, "/rest/2.0/import/json-job", None));
    let message = job["message"].as_str().unwrap();
    assert!(message.ends_with("in 2 parts."), "{message}");
    let job = format!("/rest/2.0/jobs/{}", job["id"].as_str().unwrap());
    let states: Vec<Value> = (0..4)
        .map(|_| json(&curl(&proxy, &[], &job, None))["state"].clone())
        .collect();
    assert_eq!(states[0], "RUNNING");
    assert_eq!(states[3], "COMPLETED");
}

#[test]
fn a_download_is_the_same_to_the_byte() {
    let (_simulator, proxy) = pair();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("download.bin");
    for (way, query) in [
        ("--http1.1", ""),
        ("--http1.1", "?chunked=1"),
        ("--http1.0", ""),
        ("--http1.0", "?chunked=1"),
    ] {
        let args = [way, "-o", path.to_str().unwrap()];
        curl(&proxy, &args, &format!("/_bytes/5000000{query}"), None);
        let expected: Vec<u8> = b"0123456789abcdef".repeat(312_500);
        assert!(fs::read(&path).unwrap() == expected, "{way} {query}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_compressed_answer_is_passed_as_it_is_and_unpacked_by_curl() {
    // `printf 'hello, compressed\n' | gzip -n`, in one stored block
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let text = b"hello, compressed\n";
    let length = u16::try_from(text.len()).unwrap();
    gzip.push(1);
    gzip.extend(length.to_le_bytes());
    gzip.extend((!length).to_le_bytes());
    gzip.extend(text);
    gzip.extend(crc32(text).to_le_bytes());
    gzip.extend(u32::from(length).to_le_bytes());
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        gzip.len()
    );
    let origin = Origin::answering([head.as_bytes(), &gzip].concat());
    let proxy = Proxy::to(&origin.url()).start();
    let told = curl(&proxy, &["--compressed"], "/x", None);
    assert_eq!(told.as_bytes(), text);
    let request = origin.requests().pop().unwrap();
    assert!(request.header("accept-encoding").unwrap().contains("gzip"));
}

#[test]
fn an_error_of_the_proxys_own_fails_curl_with_its_status() {
    let (_simulator, proxy) = pair();
    let args = [
        "--no-fail",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{content_type}",
    ];
    let told = curl(&proxy, &args, "/rest/auth/v1/clients", None);
    assert_eq!(told, "403 application/json");
    let args = [
        "--no-fail",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "Origin: https://evil.example",
    ];
    assert_eq!(curl(&proxy, &args, "/x", None), "403");
}

/// The CRC-32 of gzip (RFC 1952, section 8).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
