//! The service's own page in a real browser: nothing is fetched from anywhere else, the form is filled and answers.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::serving::Server;
use crate::support::store::covered;

/// Chromium without a window, driven over two pipes (its DevTools protocol: JSON messages, each ended by a NUL).
struct Browser {
    child: Child,
    commands: File,
    messages: BufReader<File>,
    session: Option<String>,
    sent: u64,
    /// What the page asked the network for.
    fetched: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            path
        };
        let (commands, messages) = (pipe("commands"), pipe("messages"));
        // Descriptors 3 and 4 are a shell's to give. Every name but the loopback's is unknown: there is no network.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage \
                      --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' --user-data-dir=\"$0\" \
                      --remote-debugging-pipe about:blank 3<\"$1\" 4>\"$2\"";
        let child = Command::new("bash")
            .args(["-c", script])
            .args([folder.path(), &commands, &messages])
            .env("HOME", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let open = |path: &Path, write: bool| File::options().write(write).read(!write).open(path).unwrap();
        let mut browser = Self {
            child,
            commands: open(&commands, true),
            messages: BufReader::new(open(&messages, false)),
            session: None,
            sent: 0,
            fetched: Vec::new(),
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": target, "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", json!({}));
        browser.call("Network.enable", json!({}));
        browser
    }

    fn next(&mut self) -> Value {
        let mut message = Vec::new();
        self.messages.read_until(0, &mut message).unwrap();
        message.pop();
        let message: Value = serde_json::from_slice(&message).expect("the browser ended");
        if message["method"] == "Network.requestWillBeSent" {
            let url = message["params"]["request"]["url"].as_str().unwrap();
            self.fetched.push(url.to_owned());
        }
        message
    }

    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let mut command = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands
            .write_all(format!("{command}\0").as_bytes())
            .unwrap();
        loop {
            let message = self.next();
            if message["id"] == self.sent {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        while self.next()["method"] != "Page.loadEventFired" {}
    }

    /// What a promise of the page's comes to.
    #[track_caller]
    fn run(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{result}");
        result["result"]["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fills the form's field `amount`, sends it as a person does, and waits for what is shown.
fn send(amount: &str) -> String {
    format!(
        "new Promise(shown => {{
            const result = document.getElementById('result');
            result.hidden = true;
            new MutationObserver((_, observer) => {{
                if (result.hidden) return;
                observer.disconnect();
                const text = id => document.getElementById(id).textContent;
                shown([text('answer'), text('outcome'), document.querySelector('.wrong .why')?.textContent ?? '']);
            }}).observe(document.body, {{subtree: true, attributes: true, childList: true}});
            const [field, other] = document.querySelectorAll('#fields input');
            other.value = '';
            field.value = {};
            field.dispatchEvent(new Event('input', {{bubbles: true}}));
            document.getElementById('send').click();
        }})",
        json!(amount)
    )
}

#[test]
fn a_browser_without_a_network_fills_the_form_and_shows_the_prediction() {
    if !covered("the docs page in a browser", &["chromium"]) {
        return;
    }
    let Some(server) = Server::start(&[]) else { return };
    let origin = format!("http://127.0.0.1:{}", server.port);
    let mut browser = Browser::start();
    browser.open(&format!("{origin}/docs"));
    let filled = browser.run("document.querySelector('#fields input').value");
    assert_eq!(filled, "5.5", "the form is filled with the example");
    let answered = browser.run(&send("20.5"));
    assert_eq!(answered[0], "42");
    assert!(
        answered[1].as_str().unwrap().starts_with("Answer in "),
        "{answered}"
    );
    let refused = browser.run(&send(""));
    assert_eq!(refused[1], "422 Rows do not fit the schema");
    assert_eq!(refused[2], "a value is needed, and null was given");
    let snippet = browser.run("document.getElementById('snippet').textContent");
    assert!(
        snippet
            .as_str()
            .unwrap()
            .contains(&format!("curl {origin}/predict")),
        "{snippet}"
    );
    assert!(browser.fetched.len() >= 3, "{:?}", browser.fetched);
    for url in &browser.fetched {
        assert!(
            url.starts_with(&origin) || url.starts_with("data:"),
            "{url} was asked for"
        );
    }
}
