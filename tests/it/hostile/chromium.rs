//! A real browser with a page of another site: nothing that the page tries reaches Collibra.
//! Skipped with a message if Chromium is not installed.

use std::path::Path;

use super::case::Rig;
use crate::support::browser::{self, chromium};
use crate::support::origin::After;
use crate::support::process::Process;
use crate::support::{Origin, until};

/// Everything that a page can do to another site without permission, each on its own path.
const PAGE: &str = r##"<!doctype html><meta charset="utf-8"><body><script>
const to = "http://TARGET", at = path => to + "/" + path + "-RUN";
const done = [];
const add = (name, attributes, parent = document.body) => {
  const element = document.createElement(name);
  for (const key in attributes) element[key] = attributes[key];
  element.onload = element.onerror = null;
  parent.append(element);
  return element;
};
const read = (path, options) => done.push(
  fetch(at(path), options).then(answer => answer.text(), () => "").catch(() => "")
    .then(text => text && path + " read " + text));
read("fetch", {});
read("fetch-no-cors", { mode: "no-cors" });
read("fetch-credentials", { credentials: "include" });
read("fetch-post", { method: "POST", mode: "no-cors", body: "x=1" });
read("fetch-json", { method: "POST", body: "{}", headers: { "content-type": "application/json" } });
read("fetch-delete", { method: "DELETE" });
read("fetch-header", { headers: { authorization: "Bearer x" } });
read("fetch-keepalive", { method: "POST", mode: "no-cors", keepalive: true, body: "x" });
done.push(new Promise(resolve => {
  const request = new XMLHttpRequest();
  request.onloadend = () => resolve(request.responseText);
  request.open("GET", at("xhr"));
  request.send();
}));
add("img", { src: at("img") });
add("script", { src: at("script") });
add("link", { rel: "stylesheet", href: at("style") });
add("iframe", { src: at("iframe") });
add("object", { data: at("object") });
add("video", { src: at("video") });
for (const kind of ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]) {
  const name = "frame-" + kind;
  add("iframe", { name });
  const form = add("form", { method: "post", enctype: kind, target: name,
    action: at("form-" + kind.split("/")[1]) });
  add("input", { name: "{\"a\":\"", value: "\"}" }, form);
  form.submit();
}
add("iframe", { sandbox: "allow-scripts allow-forms", srcdoc:
  `<form method=post action="${at("sandboxed")}"></form><script>document.forms[0].submit()<\/script>` });
navigator.sendBeacon(at("beacon"), "x");
try { new EventSource(at("events")); } catch (e) {}
done.push(new Promise(resolve => {
  const socket = new WebSocket(at("websocket").replace("http", "ws"));
  socket.onopen = () => resolve("websocket open");
  socket.onerror = () => resolve("");
}));
Promise.all(done).then(said => fetch("/done?" + encodeURIComponent(said.filter(x => x).join("; "))));
</script>"##;

const TRIED: [&str; 22] = [
    "fetch",
    "fetch-no-cors",
    "fetch-credentials",
    "fetch-post",
    "fetch-json",
    "fetch-delete",
    "fetch-header",
    "fetch-keepalive",
    "xhr",
    "img",
    "script",
    "style",
    "iframe",
    "object",
    "video",
    "form-x-www-form-urlencoded",
    "form-plain",
    "form-form-data",
    "sandboxed",
    "beacon",
    "events",
    "websocket",
];

/// A browser that opens `url`, with `evil.test` resolved to this machine.
fn browse(program: &Path, home: &tempfile::TempDir, url: &str) -> Process {
    let mut command = browser::command(program, home);
    command.arg("--host-resolver-rules=MAP evil.test 127.0.0.1");
    Process::spawn(command.arg(url))
}

#[test]
fn a_page_in_a_real_browser_reaches_nothing() {
    let Some(program) = chromium() else {
        println!("left out: there is no Chromium here (tests/setup installs it)");
        return;
    };
    let rig = Rig::start();
    let port = rig.proxy.address.port();
    let pages = Origin::start(move |request, stream| {
        let (name, target) = match request.target() {
            // the page is from another site, or another port of this machine
            "/cross-site" => ("cross-site", format!("127.0.0.1:{port}")),
            "/same-site" => ("same-site", format!("127.0.0.1:{port}")),
            // its own name was rebound to this machine after it was loaded
            "/rebound" => ("rebound", format!("evil.test:{port}")),
            _ => ("none", String::new()),
        };
        let page = PAGE.replace("TARGET", &target).replace("RUN", name);
        let length = page.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
        )?;
        Ok(After::Keep)
    });
    let own = pages.address.port();
    for (host, page, reason) in [
        ("evil.test", "cross-site", "cross-site"),
        ("127.0.0.1", "same-site", "cross-site"),
        ("evil.test", "rebound", "host"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let url = format!("http://{host}:{own}/{page}");
        let before = pages.requests().len();
        let _browser = browse(&program, &home, &url);
        let read = until("what the page could read", || {
            let requests = pages.requests().split_off(before);
            requests.iter().find_map(|request| {
                let read = request.target().strip_prefix("/done?")?;
                Some(read.to_owned())
            })
        });
        assert_eq!(read, "", "{page}");
        // each attempt reached the proxy, and went no further
        for tried in TRIED {
            let path = format!("\"/{tried}-{page}\"");
            let line = rig
                .proxy
                .process
                .err
                .wait_for(&path, |line| line.contains(&path).then(|| line.to_owned()));
            assert!(
                line.contains(&format!("\"refused\":\"{reason}\"")),
                "{line}"
            );
        }
        assert_eq!(rig.recorder.count(), 0, "{page}");
    }

    // the user's own visit works, and so does the page that it shows
    let home = tempfile::tempdir().unwrap();
    let _browser = browse(&program, &home, &format!("http://127.0.0.1:{port}/typed"));
    until("the user's own visit", || {
        let requests = rig.recorder.requests();
        requests.iter().find(|it| it.target == "/typed").map(|_| ())
    });
    rig.recorder.assert_no_faults();
}
