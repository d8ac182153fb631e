//! From merged values to [`Raw`]: finds unknown keys and wrong types, every one of them.

use std::{path::PathBuf, time::Duration};

use figment::value::{Dict, Value};
use secrecy::SecretString;

use super::{
    AliasName, Balance, CodePrefix, Monitoring, OutageErrors, Role,
    error::{At, Given, Mistake, Problem},
    raw::{Numbers, Raw, RawAlias},
    schema::{KEYS, Key, Kind},
    source::Sources,
};

/// What could be read, and every mistake on the way.
pub(super) fn read(sources: &Sources) -> (Raw, Vec<Mistake>) {
    let mut reader = Reader { sources, mistakes: Vec::new() };
    let raw = reader.whole(&sources.values());
    (raw, reader.mistakes)
}

pub(super) struct Reader<'a> {
    pub(super) sources: &'a Sources,
    pub(super) mistakes: Vec<Mistake>,
}

/// One value that had the type its key takes.
pub(super) enum Typed {
    Duration(Duration),
    Count(usize),
    Word(&'static str),
    Text(String),
    Names(Vec<String>),
    Codes(Vec<CodePrefix>),
}

impl Reader<'_> {
    fn whole(&mut self, values: &Dict) -> Raw {
        let mut raw = Raw { at: self.sources.whole(), ..Raw::default() };
        for (name, value) in values {
            let path = [name.as_str()];
            match name.as_str() {
                "alias" => {
                    self.aliases(value, &mut raw);
                    continue;
                }
                "service" => {
                    self.services(value, &mut raw);
                    continue;
                }
                "outage_errors" => {
                    raw.outage_errors = self.outage_errors(value);
                    continue;
                }
                _ => {}
            }
            let at = self.sources.at(&path, value.tag());
            let Some(key) = self.known(name, &at, Key::is_global) else {
                raw.unread |= value.as_dict().is_some();
                continue;
            };
            match (key.name, self.typed(key, value, &at)) {
                (_, None) => {}
                ("pace", _) => raw.brisk = true,
                ("monitoring", Some(Typed::Word("on-demand"))) => raw.monitoring = Monitoring::OnDemand,
                ("history", Some(Typed::Text(value))) => raw.history = Some(Given { value, at }),
                (_, Some(typed)) => raw.numbers.set(key.name, typed, at),
            }
        }
        raw.aliases.sort_by_key(|alias| alias.at.line.unwrap_or(usize::MAX));
        raw.services.sort_by_key(|service| service.at.line.unwrap_or(usize::MAX));
        raw
    }

    fn aliases(&mut self, value: &Value, raw: &mut Raw) {
        let Some(aliases) = value.as_dict() else {
            raw.unread = true;
            let problem = Problem::new("should be a table", "write [alias.NAME] for each alias");
            return self.mistakes.push(self.sources.at(&["alias"], value.tag()).mistake(problem));
        };
        for (name, value) in aliases {
            let at = self.sources.at(&["alias", name], value.tag());
            let problem = match (AliasName::new(name), value.as_dict()) {
                (Ok(name), Some(keys)) => {
                    let at = self.first_place(at, ["alias", name.as_str()], keys);
                    let alias = self.alias(name, at, keys);
                    raw.aliases.push(alias);
                    continue;
                }
                (Err(invalid), _) => Problem::bare(format!("not a name: {invalid}")),
                (Ok(_), None) => Problem::new("should be a table", format!("write [alias.{name}] and its keys below")),
            };
            raw.unread = true;
            self.mistakes.push(at.mistake(problem));
        }
    }

    fn outage_errors(&mut self, value: &Value) -> OutageErrors {
        let mut errors = OutageErrors::default();
        let Some(keys) = value.as_dict() else {
            let problem = Problem::new("should be a table", "write [outage_errors] and its keys below");
            self.mistakes.push(self.sources.at(&["outage_errors"], value.tag()).mistake(problem));
            return errors;
        };
        for (name, value) in keys {
            let at = self.sources.at(&["outage_errors", name], value.tag());
            let Some(key) = self.known(name, &at, Key::is_of_outage_errors) else { continue };
            match (key.name, self.typed(key, value, &at)) {
                ("extra", Some(Typed::Codes(codes))) => errors.extra = codes,
                (_, Some(Typed::Codes(codes))) => errors.only = Some(codes),
                (_, _) => {}
            }
        }
        errors
    }

    /// A table's own tag is the first source's; an alias that only variables declare stands where its first key stands.
    pub(super) fn first_place(&self, at: At, [table, name]: [&str; 2], keys: &Dict) -> At {
        if at.line.is_some() {
            return at;
        }
        let first = keys.iter().next().map(|(key, value)| self.sources.at(&[table, name, key], value.tag()));
        first.map_or_else(|| at.clone(), |first| At { key: at.key.clone(), ..first })
    }

    fn alias(&mut self, name: AliasName, at: At, keys: &Dict) -> RawAlias {
        let mut alias = RawAlias::new(name, at);
        for (name, value) in keys {
            let at = self.sources.at(&["alias", alias.name.as_str(), name], value.tag());
            let Some(key) = self.known(name, &at, Key::is_of_alias) else {
                alias.unread.extend(nearest_key(name));
                continue;
            };
            match self.typed(key, value, &at) {
                Some(typed) => alias.set(key.name, typed, at),
                None => alias.unread.push(name.clone()),
            }
        }
        alias
    }

    /// The key of this name, if it may stand here.
    pub(super) fn known(&mut self, name: &str, at: &At, here: fn(&Key) -> bool) -> Option<&'static Key> {
        let problem = match Key::named(name) {
            Some(key) if here(key) => return Some(key),
            Some(key) if key.is_global() => {
                let table = match at.key.split('.').next() {
                    Some("alias") => "an alias",
                    Some("service") => "a service",
                    _ => "this table",
                };
                let remedy = "write it at the top of the file, before the first [alias.NAME]";
                Problem::new(format!("does not belong to {table}"), remedy)
            }
            Some(key) if key.is_of_outage_errors() => {
                Problem::new("belongs to the errors that ask for a ping", "write it below [outage_errors]")
            }
            Some(key) if key.is_of_service() && !key.is_of_alias() => {
                Problem::new("belongs to a service", "write it below [service.NAME]")
            }
            Some(_) => Problem::new("belongs to an alias", "write it below [alias.NAME]"),
            None => {
                let tables: &[&str] = if at.key == name { &["alias", "service", "outage_errors"] } else { &[] };
                let valid = KEYS.iter().filter(|key| here(key)).map(|key| key.name).chain(tables.iter().copied());
                Problem::none_of("unknown key", name, valid)
            }
        };
        self.mistakes.push(at.mistake(problem));
        None
    }

    pub(super) fn typed(&mut self, key: &Key, value: &Value, at: &At) -> Option<Typed> {
        let typed = match key.kind {
            Kind::Duration => duration(value).map(Typed::Duration),
            Kind::Count => count(value).map(Typed::Count),
            Kind::Word(words) => word(value, words).map(Typed::Word),
            Kind::WordOrDuration(words) => word_or_duration(value, words),
            Kind::Text => value
                .as_str()
                .map(|text| Typed::Text(text.to_owned()))
                .ok_or_else(|| wrong_type(value, "a text", "write it in quotes")),
            Kind::Aliases => names(value).map(Typed::Names),
            Kind::Places => places(value).map(Typed::Names),
            Kind::Codes => codes(value).map(Typed::Codes),
        };
        typed.map_err(|problem| self.mistakes.push(at.mistake(problem))).ok()
    }
}

impl Numbers {
    pub(super) fn set(&mut self, key: &'static str, typed: Typed, at: At) {
        match typed {
            Typed::Duration(value) => drop(self.durations.insert(key, Given { value, at })),
            Typed::Count(value) => drop(self.counts.insert(key, Given { value, at })),
            Typed::Word(value) => drop(self.words.insert(key, Given { value, at })),
            Typed::Text(_) | Typed::Names(_) | Typed::Codes(_) => {}
        }
    }
}

impl RawAlias {
    fn set(&mut self, key: &'static str, typed: Typed, at: At) {
        match (key, typed) {
            ("role", Typed::Word(word)) => {
                let value = if word == "primary" { Role::Primary } else { Role::Replica };
                self.role = Some(Given { value, at });
            }
            ("balance", Typed::Word(word)) => {
                let value = match word {
                    "random" => Balance::Random,
                    "least-loaded" => Balance::LeastLoaded,
                    _ => Balance::RoundRobin,
                };
                self.balance = Some(Given { value, at });
            }
            ("url", Typed::Text(text)) => self.url = Some(Given { value: SecretString::from(text), at }),
            ("password_file", Typed::Text(text)) => {
                self.password_file = Some(Given { value: PathBuf::from(text), at });
            }
            ("failover", Typed::Names(value)) => self.failover = Some(Given { value, at }),
            ("members", Typed::Names(value)) => self.members = Some(Given { value, at }),
            (key, typed) => self.numbers.set(key, typed, at),
        }
    }
}

fn nearest_key(name: &str) -> Option<String> {
    super::error::nearest(name, KEYS.iter().filter(|key| key.is_of_alias()).map(|key| key.name)).map(str::to_owned)
}

fn duration(value: &Value) -> Result<Duration, Problem> {
    let Some(text) = value.as_str() else {
        let example = value.to_i128().map_or_else(|| "120s".to_owned(), |number| format!("{number}s"));
        return Err(wrong_type(value, "a duration", &format!("write it with its unit in quotes, like \"{example}\"")));
    };
    humantime::parse_duration(text.trim()).map_err(|_| {
        Problem::new("not a duration", "write a number and a unit in quotes, like \"120s\", \"1h\" or \"200ms\"")
    })
}

fn count(value: &Value) -> Result<usize, Problem> {
    match value.to_i128() {
        Some(number) if number < 0 => Err(Problem::bare("should not be negative")),
        Some(number) => usize::try_from(number).map_err(|_| Problem::bare("too large")),
        None => Err(wrong_type(value, "a whole number", "write a number like 16")),
    }
}

fn word(value: &Value, words: &'static [&'static str]) -> Result<&'static str, Problem> {
    let text = value.as_str().ok_or_else(|| wrong_type(value, "a text", &format!("valid: {}", words.join(", "))))?;
    let found = words.iter().find(|word| **word == text).copied();
    found.ok_or_else(|| Problem::none_of("unknown value", text, words.iter().copied()))
}

fn word_or_duration(value: &Value, words: &'static [&'static str]) -> Result<Typed, Problem> {
    if let Some(word) = value.as_str().and_then(|text| words.iter().find(|word| **word == text)) {
        return Ok(Typed::Word(word));
    }
    let remedy = || format!("write one of {}, or a duration like \"50ms\"", words.join(", "));
    let text = value.as_str().ok_or_else(|| wrong_type(value, "a text", &remedy()))?;
    let duration = humantime::parse_duration(text.trim());
    duration.map(Typed::Duration).map_err(|_| Problem::new("neither a word it knows nor a duration", remedy()))
}

fn names(value: &Value) -> Result<Vec<String>, Problem> {
    let remedy = "write it like [\"primary\"]";
    let list = value.as_array().ok_or_else(|| wrong_type(value, "a list of aliases", remedy))?;
    let name = |name: &Value| name.as_str().map(str::to_owned);
    list.iter()
        .map(|one| name(one).ok_or_else(|| Problem::new("should hold nothing but names of aliases", remedy)))
        .collect()
}

fn places(value: &Value) -> Result<Vec<String>, Problem> {
    let remedy = "write it like [\"host:11211\"]";
    let list = value.as_array().ok_or_else(|| wrong_type(value, "a list of places", remedy))?;
    let place = |place: &Value| place.as_str().map(str::to_owned);
    list.iter().map(|one| place(one).ok_or_else(|| Problem::new("should hold nothing but texts", remedy))).collect()
}

fn codes(value: &Value) -> Result<Vec<CodePrefix>, Problem> {
    let remedy = "write it like [\"57P01\", \"58\"]";
    let list = value.as_array().ok_or_else(|| wrong_type(value, "a list of SQLSTATEs", remedy))?;
    let code = |code: &Value| match code.as_str() {
        Some(text) => CodePrefix::parse(text),
        None => Err(Problem::new("should hold nothing but SQLSTATEs, in quotes", remedy)),
    };
    list.iter().map(code).collect()
}

fn wrong_type(value: &Value, wanted: &str, remedy: &str) -> Problem {
    let found = match value {
        Value::String(..) | Value::Char(..) => "a text",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    };
    match found {
        "a number" if wanted == "a whole number" => Problem::new("should be a whole number", remedy),
        found => Problem::new(format!("should be {wanted}, not {found}"), remedy),
    }
}
