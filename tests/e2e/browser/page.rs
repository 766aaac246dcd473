//! A page in Chromium, controlled by the DevTools protocol over a pipe, because `--dump-dom` and `--screenshot` need
//! scripts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The greatest lifetime of a browser, in seconds.
const BOUND: &str = "120";

/// The browser requests only the page, and runs no script.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--blink-settings=scriptEnabled=false",
    "--remote-debugging-pipe",
];

/// A browser with one page.
pub(crate) struct Page {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
    _profile: TempDir,
}

impl Page {
    /// Opens a page, and waits until all of it is loaded.
    pub(crate) fn open(url: &str) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        // The protocol uses the descriptors 3 and 4.
        let script = "exec timeout \"$0\" chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
        let mut child = Command::new("sh")
            .args(["-c", script, BOUND])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("--window-size=1100,1500")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut page = Self {
            to: child.stdin.take().context("no way to the browser")?,
            from: BufReader::new(child.stdout.take().context("no way from the browser")?),
            child,
            session: None,
            number: 0,
            _profile: profile,
        };
        let target = page.ask("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = page.ask("Target.attachToTarget", attach)?;
        page.session = session["sessionId"].as_str().map(str::to_owned);
        page.ask("Page.enable", json!({}))?;
        page.send("Page.navigate", json!({"url": url}))?;
        page.until(|message| message["method"] == "Page.loadEventFired")?;
        Ok(page)
    }

    fn send(&mut self, method: &str, parameters: Value) -> Result<u64> {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes)?;
        Ok(self.number)
    }

    fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes)?;
            let whole = bytes.pop() == Some(0);
            ensure!(
                whole,
                "chromium has ended, or is not there: `cargo xtask test --browser` installs it"
            );
            let message = serde_json::from_slice(&bytes)?;
            if is_it(&message) {
                return Ok(message);
            }
        }
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Result<Value> {
        let number = self.send(method, parameters)?;
        let mut answer = self.until(|message| message["id"] == number)?;
        ensure!(answer["error"].is_null(), "{method}: {answer}");
        Ok(answer["result"].take())
    }

    /// The document as the browser has parsed it.
    pub(crate) fn html(&mut self) -> Result<String> {
        let document = self.ask("DOM.getDocument", json!({"depth": 0}))?;
        let root = json!({"nodeId": document["root"]["nodeId"]});
        let html = self.ask("DOM.getOuterHTML", root)?;
        Ok(html["outerHTML"].as_str().context("no HTML")?.to_owned())
    }

    /// The role and name of each node that a screen reader sees.
    pub(crate) fn accessible(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.ask("Accessibility.getFullAXTree", json!({}))?;
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let nodes = tree["nodes"].as_array().context("no tree")?.iter();
        Ok(nodes
            .filter(|node| node["ignored"] != true)
            .map(|node| (text(&node["role"]), text(&node["name"])))
            .collect())
    }

    /// A screenshot, as PNG, with this preferred colour scheme.
    pub(crate) fn picture(&mut self, scheme: &str) -> Result<Vec<u8>> {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.ask("Emulation.setEmulatedMedia", json!({"features": [feature]}))?;
        let picture = self.ask(
            "Page.captureScreenshot",
            json!({"captureBeyondViewport": true}),
        )?;
        let text = picture["data"].as_str().context("no picture")?;
        Ok(BASE64_STANDARD.decode(text)?)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.ask("Browser.close", json!({}));
        let _ = self.child.wait();
    }
}
