//! Does the source keep to its architecture? Reads every file and says `path:line` where one does not.

#[path = "architecture/source.rs"]
mod source;

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
};

use self::source::{Path, functions, paths, tokens};

/// The folders that decide: they are given what they know, `now` included.
const DECIDES: [&str; 5] = ["config", "health", "plan", "policy", "history"];

/// The files of `config` that read files and the environment, so that all others need not.
const LOADERS: [&str; 2] = ["src/config/load.rs", "src/config/secret.rs"];

/// Whom each folder may name. What is not listed names none of the others.
const MAY_NAME: [(&str, &[&str]); 13] = [
    ("config", &[]),
    ("health", &["config"]),
    ("plan", &["config", "health"]),
    ("policy", &["config"]),
    ("observe", &["config", "health", "plan", "policy"]),
    ("pool", &["config", "health", "plan", "policy", "observe"]),
    ("service", &["config", "health", "pool"]),
    ("monitor", &["config", "health", "plan", "policy", "observe", "pool", "service"]),
    ("history", &["observe"]),
    ("router", &["config", "health", "plan", "policy", "observe", "pool", "service", "monitor", "history"]),
    ("metrics", &["config", "health", "plan", "policy", "observe", "pool", "router"]),
    ("http", &["config", "health", "plan", "policy", "observe", "pool", "router"]),
    ("layer", &["config", "health", "plan", "policy", "observe", "pool", "router"]),
];

/// What waits, connects or talks.
const DOES: [&str; 11] = [
    "tokio",
    "tokio_postgres",
    "postgres_protocol",
    "deadpool",
    "deadpool_postgres",
    "bb8",
    "rustls",
    "rustls_native_certs",
    "tokio_postgres_rustls",
    "tracing",
    "async_trait",
];

/// The parts of the standard library that reach outside the process.
const OUTSIDE: [&str; 6] = ["env", "fs", "net", "os", "process", "thread"];

const MOST_LINES_OF_A_FUNCTION: usize = 60;
const MOST_LINES_OF_A_FILE: usize = 400;

/// One file, by its path inside the project.
struct File {
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The folder of `src` it is in.
    fn folder(&self) -> Option<&str> {
        let (folder, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        Some(folder)
    }

    fn decides(&self) -> bool {
        self.folder().is_some_and(|folder| DECIDES.contains(&folder))
    }

    fn paths(&self) -> Vec<Path> {
        paths(&tokens(&self.text))
    }

    /// The same without the tests at its end, which may take the time from wherever they like.
    fn paths_without_tests(&self) -> Vec<Path> {
        let kept = self.lines_without_tests();
        self.paths().into_iter().filter(|path| path.line <= kept).collect()
    }

    fn lines_without_tests(&self) -> usize {
        self.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
    }

    /// Which folder of the crate a path leads to.
    fn leads_to<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let first = path.segments.first()?;
        let ups = path.segments.iter().take_while(|segment| *segment == "super").count();
        // `super` means the folder's own module up to its root, and the crate one further.
        let inside = self.path.strip_prefix("src/")?;
        let depth = inside.split('/').count() - usize::from(inside.ends_with("/mod.rs"));
        match first.as_str() {
            "crate" | "pgdetour" => path.segments.get(1),
            "super" if ups >= depth => path.segments.get(ups),
            _ => None,
        }
        .map(String::as_str)
    }

    fn complain(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// Rule: a folder that decides names nothing that waits, connects, talks or reads the clock.
fn deciding_is_pure(file: &File) -> Vec<String> {
    if !file.decides() {
        return Vec::new();
    }
    let loader = LOADERS.contains(&file.path.as_str());
    let found = file.paths_without_tests().into_iter().filter(|path| {
        let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["tokio_postgres", "Config" | "config", ..] => file.folder() != Some("config"),
            ["tokio_postgres", "error", "SqlState" | "Severity" | "DbError", ..] => file.folder() != Some("policy"),
            ["std", "net", "IpAddr" | "Ipv4Addr" | "Ipv6Addr" | "SocketAddr", ..] => false,
            ["std", outside, ..] => OUTSIDE.contains(outside) && !loader,
            // One word is a name of something else, unless a path or a `use` goes on from it.
            [one] => DOES.contains(one) && !names_a_thing(file, path),
            [first, ..] => DOES.contains(first),
            [] => false,
        }
    });
    found.map(|path| file.complain(path.line, format!("a folder that decides names {}", spelt(&path)))).collect()
}

/// Whether a lone word is a field, a variable or a string of that name: no `use` or `extern crate` stands on its line.
fn names_a_thing(file: &File, path: &Path) -> bool {
    let line = file.text.lines().nth(path.line - 1).unwrap_or_default();
    !line.split_whitespace().any(|word| word == "use" || word == "extern")
}

/// Rule: `config ← health ← plan`, `config ← policy`; the folders that do use those; nothing points the other way.
fn layers_hold(file: &File) -> Vec<String> {
    let Some((folder, allowed)) = MAY_NAME.iter().find(|(folder, _)| file.folder() == Some(folder)) else {
        return Vec::new();
    };
    let complaint = |path: &Path| {
        let target = file.leads_to(path)?;
        let layer = MAY_NAME.iter().any(|(name, _)| *name == target);
        let clock = target == "clock" && !DECIDES.contains(folder);
        let root = !layer && target.starts_with(char::is_uppercase) && !DECIDES.contains(folder);
        let anywhere = matches!(target, "sql" | "striped");
        let fine = target == *folder || allowed.contains(&target) || clock || root || anywhere;
        (!fine).then(|| file.complain(path.line, format!("{folder} may not name {}", spelt(path))))
    };
    file.paths_without_tests().iter().filter_map(complaint).collect()
}

/// Rule: one place reads the clock.
fn one_clock(file: &File) -> Vec<String> {
    if file.path == "src/clock.rs" || !file.path.starts_with("src/") {
        return Vec::new();
    }
    let reads = |path: &Path| match path.segments.as_slice() {
        [.., clock, now] => now == "now" && (clock == "Instant" || clock == "SystemTime"),
        [one] => one == "elapsed" || one == "SystemTime",
        [] => false,
    };
    let found = file.paths().into_iter().filter(reads);
    found.map(|path| file.complain(path.line, format!("{} reads the clock; clock::now() does", spelt(&path)))).collect()
}

/// Rule: no function and no file grows past what one can take in.
fn sizes_stay_small(file: &File) -> Vec<String> {
    let long = functions(&tokens(&file.text)).into_iter().filter(|it| it.lines > MOST_LINES_OF_A_FUNCTION);
    let mut found: Vec<String> =
        long.map(|it| file.complain(it.line, format!("fn {} has {} lines", it.name, it.lines))).collect();
    let lines = file.lines_without_tests();
    if lines > MOST_LINES_OF_A_FILE && !file.path.starts_with("tests/") {
        found.push(file.complain(MOST_LINES_OF_A_FILE, format!("the file has {lines} lines without its tests")));
    }
    found
}

/// Rule: the first line of a file says what it is for.
fn first_line_says_why(file: &File) -> Vec<String> {
    let first = file.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//! ").is_some_and(|text| text.split_whitespace().count() >= 2);
    if says {
        Vec::new()
    } else {
        vec![file.complain(1, "the first line does not say what the file is for (`//! …`)")]
    }
}

/// Rule: a test waits for what it waits for, and not for time to pass.
fn tests_do_not_sleep(file: &File) -> Vec<String> {
    let sleeps = |path: &Path| path.segments.last().is_some_and(|last| last == "sleep" || last == "sleep_until");
    let found = file.paths().into_iter().filter(|path| file.path.starts_with("tests/") && sleeps(path));
    found.map(|path| file.complain(path.line, "a test sleeps: wait for an event")).collect()
}

/// Rule: whoever may drop a future is told what becomes of its work.
fn waits_say_what_a_drop_does(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
    let says = |line: usize| {
        let mut above = lines[..line].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
        // What is hidden is no part of the interface.
        above.any(|line| ["/// # Cancel safety", "#[doc(hidden)]"].contains(line))
    };
    let waits = |line: &usize| file.path.starts_with("src/") && lines[*line].starts_with("pub async fn ");
    let silent = (0..lines.len()).filter(waits).filter(|line| !says(*line));
    silent.map(|line| file.complain(line + 1, "its `# Cancel safety` is missing")).collect()
}

fn spelt(path: &Path) -> String {
    path.segments.join("::")
}

/// All Rust files of the project.
fn files() -> Vec<File> {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = ["src", "tests", "benches", "examples"].map(|folder| root.join(folder)).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the project can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("it is below the root").to_string_lossy().replace('\\', "/");
                files.push(File::new(&name, &fs::read_to_string(&path).expect("the file can be read")));
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

fn every_file(rule: impl Fn(&File) -> Vec<String>) {
    let files = files();
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "no source was found to read");
    let broken: Vec<String> = files.iter().flat_map(rule).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_folders_that_decide_hold_no_runtime_no_driver_and_no_socket() {
    every_file(deciding_is_pure);
}

#[test]
fn nothing_points_against_the_layers() {
    every_file(layers_hold);
}

#[test]
fn only_the_clock_reads_the_clock() {
    every_file(one_clock);
}

#[test]
fn no_function_has_more_than_60_lines_and_no_file_more_than_400() {
    every_file(sizes_stay_small);
}

#[test]
fn every_file_says_in_its_first_line_what_it_is_for() {
    every_file(first_line_says_why);
}

#[test]
fn no_test_sleeps() {
    every_file(tests_do_not_sleep);
}

#[test]
fn what_can_be_waited_for_says_what_becomes_of_it_when_it_is_dropped() {
    every_file(waits_say_what_a_drop_does);
}

mod the_rules_can_fail {
    use super::*;

    /// The lines at which a rule complains about a file with this text.
    fn lines(rule: fn(&File) -> Vec<String>, path: &str, text: &str) -> Vec<usize> {
        let line = |complaint: String| {
            let rest = complaint.strip_prefix(path).expect("it names the file")[1..].to_owned();
            rest.split(':').next().and_then(|line| line.parse().ok()).expect("it names the line")
        };
        rule(&File::new(path, text)).into_iter().map(line).collect()
    }

    #[test]
    fn a_deciding_file_that_names_the_runtime_is_found_however_it_is_spelt() {
        let text = "use std::time::Instant;\nuse tokio::sync::watch;\nfn f() { tokio::spawn(g()); }\nuse tokio as t;";
        assert_eq!(lines(deciding_is_pure, "src/health/x.rs", text), [2, 3, 4]);
        assert_eq!(lines(deciding_is_pure, "src/plan/x.rs", "use {\n    std::fmt,\n    bb8::Pool,\n};"), [3]);
        assert_eq!(lines(deciding_is_pure, "src/pool/x.rs", text), [0; 0]);
    }

    #[test]
    fn a_deciding_file_that_reaches_outside_the_process_is_found() {
        let text = "use std::{\n    fmt,\n    fs::{self, File},\n};\nuse std::net::{IpAddr, TcpStream};";
        assert_eq!(lines(deciding_is_pure, "src/config/url.rs", text), [3, 3, 5]);
        assert_eq!(lines(deciding_is_pure, "src/config/load.rs", "use std::{env, fs};"), [0; 0]);
    }

    #[test]
    fn a_driver_may_lend_its_data_types_and_nothing_else() {
        let text = "pub postgres: tokio_postgres::Config,\nuse tokio_postgres::{Client, config::Host};";
        assert_eq!(lines(deciding_is_pure, "src/config/mod.rs", text), [2]);
        assert_eq!(lines(deciding_is_pure, "src/plan/mod.rs", text), [1, 2, 2]);
        let text = "use tokio_postgres::error::{Error, SqlState};";
        assert_eq!(lines(deciding_is_pure, "src/policy/mod.rs", text), [1]);
    }

    #[test]
    fn comments_strings_and_fields_are_not_code() {
        let text = r##"// tokio::spawn
/* tokio::spawn /* nested */ bb8::Pool */
const A: &str = "tokio::spawn \" bb8::Pool";
const B: &str = r#"tokio::"spawn"#;
const C: char = '"';
fn f<'a>(bb8: &'a str) -> char { '\'' }"##;
        assert_eq!(lines(deciding_is_pure, "src/health/x.rs", text), [0; 0]);
    }

    #[test]
    fn a_layer_that_points_back_is_found() {
        let text = "use crate::{\n    config::Pings,\n    plan::Table,\n};\nuse super::super::router::Alias;";
        assert_eq!(lines(layers_hold, "src/health/machine.rs", text), [3, 5]);
        assert_eq!(lines(layers_hold, "src/router/mod.rs", "use crate::{config, monitor, plan::Table};"), [0; 0]);
        assert_eq!(lines(layers_hold, "src/pool/mod.rs", "use crate::monitor::Monitor;"), [1]);
        assert_eq!(lines(layers_hold, "src/monitor/mod.rs", "use crate::{pool::Server, router::Alias};"), [1]);
        assert_eq!(lines(layers_hold, "src/policy/mod.rs", "fn f() { crate::health::Cause::new(); }"), [1]);
        assert_eq!(lines(layers_hold, "src/plan/mod.rs", "use crate::clock;\nuse crate::Router;"), [1, 2]);
        assert_eq!(lines(layers_hold, "src/health/mod.rs", "use super::plan::Table;"), [1]);
        assert_eq!(lines(layers_hold, "src/config/url/target.rs", "use super::super::error::At;"), [0; 0]);
    }

    #[test]
    fn a_second_clock_is_found() {
        let text = "fn f() {\n    Instant::now();\n    std::time::SystemTime::now();\n    start.elapsed();\n    clock::now();\n}";
        assert_eq!(lines(one_clock, "src/monitor/mod.rs", text), [2, 3, 4]);
        assert_eq!(lines(one_clock, "src/clock.rs", text), [0; 0]);
    }

    #[test]
    fn long_functions_and_files_are_found() {
        let body = |lines| format!("\nfn long(a: [u8; 2]) {{\n{}}}\n", "    f();\n".repeat(lines));
        assert_eq!(lines(sizes_stay_small, "src/a.rs", &body(58)), [0; 0]);
        assert_eq!(lines(sizes_stay_small, "src/a.rs", &body(59)), [2]);
        let within = format!("{}#[cfg(test)]\nmod tests {{}}\n", "//\n".repeat(400));
        assert_eq!(lines(sizes_stay_small, "src/a.rs", &within), [0; 0]);
        assert_eq!(lines(sizes_stay_small, "src/a.rs", &"//\n".repeat(401)), [400]);
        assert_eq!(lines(sizes_stay_small, "tests/a.rs", &"//\n".repeat(401)), [0; 0]);
        assert_eq!(lines(sizes_stay_small, "src/a.rs", "trait T {\n    fn f(&self);\n}"), [0; 0]);
    }

    #[test]
    fn a_file_without_a_purpose_is_found() {
        assert_eq!(lines(first_line_says_why, "src/a.rs", "//! The clock: one of them.\n"), [0; 0]);
        assert_eq!(lines(first_line_says_why, "src/a.rs", "use std::fmt;\n"), [1]);
        assert_eq!(lines(first_line_says_why, "src/a.rs", "//!\n//! Late.\n"), [1]);
    }

    #[test]
    fn a_wait_that_does_not_say_what_a_drop_does_is_found() {
        let said = "/// Waits.\n///\n/// # Cancel safety\n///\n/// None.\n#[must_use]\npub async fn f() {}\n";
        assert_eq!(lines(waits_say_what_a_drop_does, "src/a.rs", &format!("{said}\npub async fn g() {{}}")), [9]);
        assert_eq!(lines(waits_say_what_a_drop_does, "tests/a.rs", "pub async fn g() {}"), [0; 0]);
    }

    #[test]
    fn a_sleeping_test_is_found() {
        let text =
            "// no sleep() here\nfn f() {\n    std::thread::sleep(A);\n    sleep(B);\n}\nuse tokio::time::sleep;";
        assert_eq!(lines(tests_do_not_sleep, "tests/a.rs", text), [3, 4, 6]);
        assert_eq!(lines(tests_do_not_sleep, "src/testkit/a.rs", text), [0; 0]);
    }
}
