//! What somebody wrote, typed but not yet checked as a whole: files, environment and code all end up here.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::{
    AliasName, Balance, Monitoring, OutageErrors, Pings, Role,
    error::{At, Given},
};

/// A whole configuration as written.
#[derive(Debug, Default)]
pub(super) struct Raw {
    /// The configuration as a whole.
    pub(super) at: At,
    pub(super) monitoring: Monitoring,
    pub(super) brisk: bool,
    pub(super) history: Option<Given<String>>,
    pub(super) numbers: Numbers,
    pub(super) outage_errors: OutageErrors,
    pub(super) aliases: Vec<RawAlias>,
    pub(super) services: Vec<RawService>,
    /// Some alias could not be read at all: that one is missing is no further mistake.
    pub(super) unread: bool,
}

/// One `[alias.NAME]`.
#[derive(Debug)]
pub(super) struct RawAlias {
    pub(super) name: AliasName,
    pub(super) at: At,
    pub(super) role: Option<Given<Role>>,
    pub(super) url: Option<Given<SecretString>>,
    pub(super) password: Option<SecretString>,
    pub(super) password_file: Option<Given<PathBuf>>,
    pub(super) failover: Option<Given<Vec<String>>>,
    pub(super) members: Option<Given<Vec<String>>>,
    pub(super) balance: Option<Given<Balance>>,
    pub(super) numbers: Numbers,
    /// Its pings were given in code, as a whole: global ones say nothing about it.
    pub(super) own_pings: bool,
    /// Keys that stand here but could not be read: their absence is no further mistake.
    pub(super) unread: Vec<String>,
}

/// One `[service.NAME]`.
#[derive(Debug)]
pub(super) struct RawService {
    pub(super) name: AliasName,
    pub(super) at: At,
    pub(super) kind: Option<Given<&'static str>>,
    pub(super) url: Option<Given<SecretString>>,
    pub(super) nodes: Option<Given<Vec<String>>>,
    pub(super) password_file: Option<Given<PathBuf>>,
    pub(super) root_cert: Option<Given<PathBuf>>,
    pub(super) status: Option<Given<usize>>,
    pub(super) numbers: Numbers,
    /// Keys that stand here but could not be read.
    pub(super) unread: Vec<String>,
}

/// The durations, counts and words of one level, by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    pub(super) durations: BTreeMap<&'static str, Given<Duration>>,
    pub(super) counts: BTreeMap<&'static str, Given<usize>>,
    pub(super) words: BTreeMap<&'static str, Given<&'static str>>,
}

impl Raw {
    /// The pings that give way to whatever is written.
    pub(super) fn defaults(&self) -> Pings {
        if self.brisk { Pings::brisk() } else { Pings::default() }
    }
}

impl RawService {
    pub(super) fn new(name: AliasName, at: At) -> Self {
        Self {
            name,
            at,
            kind: None,
            url: None,
            nodes: None,
            password_file: None,
            root_cert: None,
            status: None,
            numbers: Numbers::default(),
            unread: Vec::new(),
        }
    }

    /// Whether `key` was not even tried.
    pub(super) fn lacks(&self, key: &str) -> bool {
        !self.unread.iter().any(|unread| unread == key)
    }
}

impl RawAlias {
    pub(super) fn new(name: AliasName, at: At) -> Self {
        Self {
            name,
            at,
            role: None,
            url: None,
            password: None,
            password_file: None,
            failover: None,
            members: None,
            balance: None,
            numbers: Numbers::default(),
            own_pings: false,
            unread: Vec::new(),
        }
    }

    /// Whether `key` was not even tried.
    pub(super) fn lacks(&self, key: &str) -> bool {
        !self.unread.iter().any(|unread| unread == key)
    }

    /// The place of a key of this alias that is not written.
    pub(super) fn at_key(&self, key: &str) -> At {
        At { key: format!("{}.{key}", self.at.key), ..self.at.clone() }
    }
}
