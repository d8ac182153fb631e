//! From merged values to the services that somebody wrote: unknown keys and wrong types, every one of them.

use std::path::PathBuf;

use figment::value::{Dict, Value};
use secrecy::SecretString;

use super::{
    AliasName,
    error::{At, Given, Problem, nearest},
    raw::{Raw, RawService},
    read::{Reader, Typed},
    schema::{KEYS, Key},
};

impl Reader<'_> {
    pub(super) fn services(&mut self, value: &Value, raw: &mut Raw) {
        let Some(services) = value.as_dict() else {
            let problem = Problem::new("should be a table", "write [service.NAME] for each service");
            return self.mistakes.push(self.sources.at(&["service"], value.tag()).mistake(problem));
        };
        for (name, value) in services {
            let at = self.sources.at(&["service", name], value.tag());
            let problem = match (AliasName::new(name), value.as_dict()) {
                (Ok(name), Some(keys)) => {
                    let at = self.first_place(at, ["service", name.as_str()], keys);
                    let service = self.service(name, at, keys);
                    raw.services.push(service);
                    continue;
                }
                (Err(invalid), _) => Problem::bare(format!("not a name: {invalid}")),
                (Ok(_), None) => {
                    Problem::new("should be a table", format!("write [service.{name}] and its keys below"))
                }
            };
            self.mistakes.push(at.mistake(problem));
        }
    }

    fn service(&mut self, name: AliasName, at: At, keys: &Dict) -> RawService {
        let mut service = RawService::new(name, at);
        for (name, value) in keys {
            let at = self.sources.at(&["service", service.name.as_str(), name], value.tag());
            let Some(key) = self.known(name, &at, Key::is_of_service) else {
                let valid = KEYS.iter().filter(|key| key.is_of_service()).map(|key| key.name);
                service.unread.extend(nearest(name, valid).map(str::to_owned));
                continue;
            };
            match self.typed(key, value, &at) {
                Some(typed) => service.set(key.name, typed, at),
                None => service.unread.push(name.clone()),
            }
        }
        service
    }
}

impl RawService {
    fn set(&mut self, key: &'static str, typed: Typed, at: At) {
        match (key, typed) {
            ("kind", Typed::Word(value)) => self.kind = Some(Given { value, at }),
            ("url", Typed::Text(text)) => self.url = Some(Given { value: SecretString::from(text), at }),
            ("nodes", Typed::Names(value)) => self.nodes = Some(Given { value, at }),
            ("password_file", Typed::Text(text)) => {
                self.password_file = Some(Given { value: PathBuf::from(text), at });
            }
            ("sslrootcert", Typed::Text(text)) => self.root_cert = Some(Given { value: PathBuf::from(text), at }),
            ("status", Typed::Count(value)) => self.status = Some(Given { value, at }),
            (key, typed) => self.numbers.set(key, typed, at),
        }
    }
}
