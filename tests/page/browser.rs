//! A headless Chromium, driven over its pipe: no port is opened and nothing is fetched but what the test serves.

use std::{
    collections::VecDeque,
    error::Error,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use serde_json::{Value, json};

pub(crate) type Fallible<T = ()> = Result<T, Box<dyn Error>>;

/// Longer than anything that is waited for takes.
const LATE: Duration = Duration::from_secs(30);

const QUIET: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// One tab of a browser of its own.
pub(crate) struct Tab {
    browser: Child,
    to: File,
    from: Receiver<Value>,
    session: String,
    sent: u64,
    /// What arrived while something else was waited for.
    seen: VecDeque<Value>,
    _home: tempfile::TempDir,
}

impl Tab {
    /// Starts a browser with an empty profile.
    pub(crate) fn open() -> Fallible<Self> {
        let home = tempfile::tempdir()?;
        let (to, from) = (home.path().join("to"), home.path().join("from"));
        if !Command::new("mkfifo").args([&to, &from]).status()?.success() {
            return Err("no pipes could be made".into());
        }
        // The browser reads commands from descriptor 3 and writes to 4: the shell puts the pipes there.
        let mut browser = Command::new("sh");
        browser.args(["-c", r#"to=$1 from=$2; shift 2; exec "$@" 3<"$to" 4>"$from""#, "sh"]).args([&to, &from]);
        browser.arg(program()?).args(QUIET).arg(format!("--user-data-dir={}", home.path().join("profile").display()));
        let browser =
            browser.arg("about:blank").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let to = OpenOptions::new().write(true).open(to)?;
        let from = listen(File::open(from)?);
        let mut tab = Self { browser, to, from, session: String::new(), sent: 0, seen: VecDeque::new(), _home: home };
        let target = tab.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attached = tab.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }))?;
        tab.session = attached["sessionId"].as_str().ok_or("no session")?.to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(tab)
    }

    /// Asks the browser for something, and waits for it.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Fallible<Value> {
        self.sent += 1;
        let id = self.sent;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(message.to_string().as_bytes())?;
        self.to.write_all(&[0])?;
        loop {
            let answer = self.receive()?;
            if answer["id"] != json!(id) {
                self.seen.push_back(answer);
            } else if let Some(error) = answer.get("error") {
                return Err(format!("{method}: {error}").into());
            } else {
                return Ok(answer["result"].clone());
            }
        }
    }

    fn receive(&mut self) -> Fallible<Value> {
        match self.from.recv_timeout(LATE) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => Err("the browser does not answer".into()),
            Err(RecvTimeoutError::Disconnected) => Err("the browser has ended".into()),
        }
    }

    /// Goes to this address.
    pub(crate) fn go(&mut self, url: &str) -> Fallible {
        self.call("Page.navigate", json!({ "url": url })).map(drop)
    }

    /// The value of this expression in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> Fallible<Value> {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", asked)?;
        match answer.get("exceptionDetails") {
            Some(thrown) => Err(format!("{expression}: {thrown}").into()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Waits until this expression is true in the page.
    pub(crate) fn until(&mut self, expression: &str) -> Fallible {
        let limit = LATE.as_millis() - 5_000;
        let look = format!(
            "new Promise(done => {{ const start = Date.now(), look = () => {{ let is = false; try {{ is = {expression}; }} catch {{}} \
             is ? done(true) : Date.now() - start > {limit} ? done(false) : setTimeout(look, 20); }}; look(); }})"
        );
        match self.eval(&look) {
            Ok(Value::Bool(true)) => Ok(()),
            // A page that was left takes the promise along.
            Err(error) if error.to_string().contains("navigat") => self.until(expression),
            Ok(_) => {
                let shown = self.eval("document.body.innerText")?;
                Err(format!("never: {expression}\n{}", shown.as_str().unwrap_or_default()).into())
            }
            Err(error) => Err(error),
        }
    }

    /// Types a key, as somebody at a keyboard does.
    pub(crate) fn key(&mut self, key: &str) -> Fallible {
        let text = if key == "Enter" { "\r" } else { "" };
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            _ => 0,
        };
        let down = json!({ "type": "keyDown", "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", down)?;
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "code": key })).map(drop)
    }

    /// Types a text into what has the focus.
    pub(crate) fn write(&mut self, text: &str) -> Fallible {
        self.call("Input.insertText", json!({ "text": text })).map(drop)
    }

    /// Looks at the page as on a screen of this width, in the dark or not.
    pub(crate) fn look(&mut self, width: u32, dark: bool) -> Fallible {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).map(drop)
    }

    /// Keeps a picture of the whole page in `target/screenshots`.
    pub(crate) fn picture(&mut self, name: &str) -> Fallible<PathBuf> {
        use base64::Engine;
        let shot = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.call("Page.captureScreenshot", shot)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap_or_default())?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    /// The addresses of all that was fetched so far, and what the console or the page complained of.
    pub(crate) fn told(&mut self) -> Fallible<(Vec<String>, Vec<String>)> {
        // What came before this answer has been seen.
        self.eval("1")?;
        let of = |method: &'static str| self.seen.iter().filter(move |message| message["method"] == method);
        let fetched = of("Network.requestWillBeSent").filter_map(|it| it["params"]["request"]["url"].as_str());
        let fetched: Vec<String> = fetched.filter(|url| !url.starts_with("data:")).map(str::to_owned).collect();
        let logged = of("Log.entryAdded").filter(|it| it["params"]["entry"]["level"] == "error");
        let called = of("Runtime.consoleAPICalled").filter(|it| it["params"]["type"] == "error");
        let complaints = logged.chain(called).chain(of("Runtime.exceptionThrown")).map(ToString::to_string).collect();
        Ok((fetched, complaints))
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        // It is the shell's own process, which the browser has become. An error says that it has ended.
        let _ = self.call("Browser.close", json!({}));
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

/// Messages end with a zero byte.
fn listen(from: File) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut message = Vec::new();
        while from.read_until(0, &mut message).is_ok_and(|read| read > 0) {
            message.pop();
            let parsed = serde_json::from_slice(&message);
            message.clear();
            if parsed.map(|message| sender.send(message)).is_ok_and(|sent| sent.is_err()) {
                return;
            }
        }
    });
    receiver
}

/// The browser on this machine, which the script finds or installs.
fn program() -> Fallible<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/chromium.sh");
    let found = Command::new(script).stderr(Stdio::inherit()).output()?;
    let path = String::from_utf8(found.stdout)?.trim().to_owned();
    if found.status.success() && !path.is_empty() { Ok(path) } else { Err("there is no Chromium".into()) }
}
