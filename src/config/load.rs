//! From a file, a text or code to a [`Config`]: reads, then has everything checked.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{
    Config, ConfigError,
    check::check,
    error::{At, Mistake, Problem},
    numbers::Layered,
    raw::{Numbers, Raw},
    read::read,
    secret::Findings,
    service::services,
    source::Sources,
    url::{self, Draft, Surroundings},
};

impl Config {
    /// Reads a TOML file, then `PGDETOUR_…` environment variables, which win: `PGDETOUR_ALIAS__REPLICA__URL` is `url` of
    /// `[alias.replica]`. Passwords may also come from `PGPASSFILE` or `~/.pgpass`.
    ///
    /// # Errors
    ///
    /// Every mistake in it, each with its place and remedy.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let whole = At { file: Some(path.into()), ..At::default() };
        let bytes = fs::read(path).map_err(|error| {
            let problem = Problem::new(format!("cannot be read: {error}"), "name a file that this process may read");
            ConfigError::new(vec![whole.mistake(problem)])
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let at = At { line: Some(line), ..whole };
            ConfigError::new(vec![at.mistake(Problem::new("is not UTF-8", "save the file in UTF-8"))])
        })?;
        load(&text, Some(path), &process_environment())
    }

    /// Reads TOML text, and nothing of the environment.
    ///
    /// # Errors
    ///
    /// As [`Config::from_file`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        load(text, None, &[])
    }

    /// Reads TOML text with an environment that is given instead of the process's: `PGDETOUR_…`, and `USER`, `HOME` and `PGPASSFILE`
    /// as libpq takes them.
    ///
    /// # Errors
    ///
    /// As [`Config::from_file`].
    pub fn from_toml_with<N: Into<String>, V: Into<String>>(
        text: &str,
        environment: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        let environment: Vec<_> = environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        load(text, None, &environment)
    }
}

fn load(text: &str, file: Option<&Path>, environment: &[(String, String)]) -> Result<Config, ConfigError> {
    let sources = Sources::merge(text, file, environment)?;
    let (raw, mistakes) = read(&sources);
    compile(&raw, mistakes, &surroundings(environment))
}

/// What was written, looked up and checked.
pub(super) fn compile(
    raw: &Raw,
    mut mistakes: Vec<Mistake>,
    surroundings: &Surroundings,
) -> Result<Config, ConfigError> {
    let mut findings = Findings::default();
    let mut drafts: Vec<Option<Draft>> = Vec::with_capacity(raw.aliases.len());
    for alias in &raw.aliases {
        let Some(given) = alias.url.as_ref().filter(|_| alias.members.is_none()) else {
            drafts.push(None);
            continue;
        };
        let role = alias.role.as_ref().map(|role| role.value);
        match url::build(&given.value, alias.name.as_str(), role, surroundings) {
            Ok(mut draft) => {
                findings.fill(alias, &mut draft, surroundings);
                drafts.push(Some(draft));
            }
            Err(problems) => {
                mistakes.extend(problems.into_iter().map(|problem| given.at.mistake(problem)));
                drafts.push(None);
            }
        }
    }
    let pings = Layered::new(&Numbers::default(), &raw.numbers).pings(&raw.defaults());
    let services = services(raw, &pings, &mut findings);
    mistakes.append(&mut findings.mistakes);
    let (config, found) = check(raw, &drafts, findings.warnings);
    let config = Config { services, pings, ..config };
    mistakes.extend(found);
    if mistakes.is_empty() { Ok(config) } else { Err(ConfigError::new(mistakes)) }
}

/// The process's variables; those that are not UTF-8 are none of ours.
pub(super) fn process_environment() -> Vec<(String, String)> {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// What of an environment stands in for parts of a URL, as in libpq.
pub(super) fn surroundings(environment: &[(String, String)]) -> Surroundings {
    let value = |wanted: &str| {
        environment.iter().find(|(name, value)| name == wanted && !value.is_empty()).map(|(_, value)| value.clone())
    };
    Surroundings {
        user: value("USER").or_else(|| value("LOGNAME")),
        passfile: value("PGPASSFILE").map(PathBuf::from),
        home: value("HOME").map(PathBuf::from),
    }
}
