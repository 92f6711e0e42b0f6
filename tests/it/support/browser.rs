//! A headless Chromium, driven by its DevTools protocol: <https://chromedevtools.github.io/devtools-protocol/>.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::process::Process;
use super::{PATIENCE, until};

/// A browser with one page open.
pub(crate) struct Browser {
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    last_id: u64,
    /// What the page's console has shown and what it has asked for, as events of the protocol.
    events: Vec<Value>,
    _process: Process,
    _home: tempfile::TempDir,
}

/// Where Chromium is, if it is installed.
pub(crate) fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).flat_map(|folder| names.map(|n| folder.join(n)));
    places.find(|place| place.is_file())
}

/// Chromium without a window, which keeps what it keeps in `home` and calls nobody by itself.
pub(crate) fn command(program: &Path, home: &tempfile::TempDir) -> Command {
    let mut command = Command::new(program);
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--no-proxy-server",
        ])
        .arg(format!("--user-data-dir={}", home.path().display()));
    // figures and times are written as the browser's language has them
    command.env("HOME", home.path()).env("LANGUAGE", "en_US");
    command
}

/// Events worth keeping; of others there are thousands.
const KEPT: [&str; 4] = [
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
    "Log.entryAdded",
    "Network.requestWillBeSent",
];

impl Browser {
    /// Starts the `program` with an empty page.
    pub(crate) fn start(program: &Path) -> Browser {
        let home = tempfile::tempdir().unwrap();
        let mut command = command(program, &home);
        command.args(["--remote-debugging-port=0", "--hide-scrollbars"]);
        let process = Process::spawn(&mut command);
        let url = process.err.wait_for("DevTools", |line| {
            line.strip_prefix("DevTools listening on ")
                .map(str::to_owned)
        });
        let authority = url.strip_prefix("ws://").unwrap().split('/').next();
        let stream = TcpStream::connect(authority.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(&url, stream).unwrap();
        let mut browser = Browser {
            socket,
            session: None,
            last_id: 0,
            events: Vec::new(),
            _process: process,
            _home: home,
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and gives its result.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(message.to_string()))
            .unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else {
                continue;
            };
            let mut said: Value = serde_json::from_str(&text).unwrap();
            if said["id"] == self.last_id {
                assert_eq!(said["error"], Value::Null, "{method} {params}");
                return said["result"].take();
            }
            if said["method"].as_str().is_some_and(|m| KEPT.contains(&m)) {
                self.events.push(said);
            }
        }
    }

    /// Opens `url` and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({ "url": url }));
        assert_eq!(opened["errorText"], Value::Null, "{url}");
        self.until(url, "document.readyState === 'complete'");
    }

    /// What the expression or promise `script` comes to in the page.
    ///
    /// # Panics
    /// If it throws.
    pub(crate) fn eval(&mut self, script: &str) -> Value {
        let params = json!({
            "expression": script,
            "returnByValue": true,
            "awaitPromise": true,
        });
        let mut done = self.call("Runtime.evaluate", &params);
        let thrown = &done["exceptionDetails"];
        assert_eq!(*thrown, Value::Null, "{script}");
        done["result"]["value"].take()
    }

    /// Waits until `script` comes to true.
    pub(crate) fn until(&mut self, what: &str, script: &str) {
        until(what, || (self.eval(script) == true).then_some(()));
    }

    /// Makes the page so many CSS pixels wide and high.
    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &params);
    }

    /// Has the user prefer the colour scheme `light` or `dark`.
    pub(crate) fn prefers(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        let params = json!({ "features": [feature] });
        self.call("Emulation.setEmulatedMedia", &params);
    }

    /// Lets pages that are opened from now on run scripts, or not.
    pub(crate) fn scripts(&mut self, may_run: bool) {
        let params = json!({ "value": !may_run });
        self.call("Emulation.setScriptExecutionDisabled", &params);
    }

    /// Presses and lets go a key that types nothing, or Enter.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({
                "type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code,
            });
            self.call("Input.dispatchKeyEvent", &params);
        }
    }

    /// Writes a picture of what is in view to `path`, as PNG.
    pub(crate) fn picture(&mut self, path: &Path) {
        let taken = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let png = BASE64_STANDARD.decode(taken["data"].as_str().unwrap());
        std::fs::write(path, png.unwrap()).unwrap();
    }

    /// The errors and warnings of the page's console, since this was last asked.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // what happened before this call is told before its answer
        self.eval("0");
        let is_complaint = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                matches!(
                    event["params"]["type"].as_str(),
                    Some("error" | "warning" | "assert")
                )
            }
            Some("Log.entryAdded") => {
                matches!(
                    event["params"]["entry"]["level"].as_str(),
                    Some("error" | "warning")
                )
            }
            _ => false,
        };
        let (complaints, others) = self.events.drain(..).partition(is_complaint);
        self.events = others;
        let complaints: Vec<Value> = complaints;
        complaints.iter().map(Value::to_string).collect()
    }

    /// Forgets what the page has asked for so far.
    pub(crate) fn forget(&mut self) {
        self.events.clear();
    }

    /// The URLs that the page has asked for.
    pub(crate) fn requests(&self) -> Vec<&str> {
        let events = self.events.iter();
        let urls = events.filter_map(|event| event["params"]["request"]["url"].as_str());
        urls.collect()
    }
}
