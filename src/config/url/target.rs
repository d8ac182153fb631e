//! From parameters to a driver configuration: what each of libpq's parameters means here.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};

use super::{
    Login,
    keys::{self, Treatment},
    split::split,
};
use crate::config::{
    Role, Roots, Target, Tls,
    error::{Problem, nearest},
};

/// What the process's surroundings add to a URL, as in libpq.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct Surroundings {
    /// The operating system's user: the default of `user`.
    pub(in crate::config) user: Option<String>,
    /// `PGPASSFILE`.
    pub(in crate::config) passfile: Option<PathBuf>,
    /// Where `.pgpass` is looked for.
    pub(in crate::config) home: Option<PathBuf>,
}

/// A target whose password may still have to be looked up.
#[derive(Debug, Clone)]
pub(in crate::config) struct Draft {
    pub(in crate::config) target: Target,
    pub(in crate::config) password: Option<SecretString>,
    pub(in crate::config) passfile: Option<PathBuf>,
    pub(in crate::config) login: Login,
    pub(in crate::config) connect_timeout: Option<Duration>,
}

/// Reads a URL or `key=value` text for the alias of this name and role.
///
/// # Errors
///
/// Everything that is wrong with it, never quoting it.
pub(in crate::config) fn build(
    text: &SecretString,
    alias: &str,
    role: Option<Role>,
    surroundings: &Surroundings,
) -> Result<Draft, Vec<Problem>> {
    let (parameters, before_query) = split(text.expose_secret()).map_err(|problem| vec![problem])?;
    let mut builder = Builder::new(parameters, before_query);
    let draft = builder.draft(alias, role, surroundings);
    if builder.problems.is_empty() { Ok(draft) } else { Err(builder.problems) }
}

struct Builder {
    values: BTreeMap<&'static str, String>,
    problems: Vec<Problem>,
}

impl Builder {
    /// Keeps what works; what changes nothing is dropped, the rest is refused.
    fn new(parameters: Vec<(String, String)>, before_query: usize) -> Self {
        let mut builder = Self { values: BTreeMap::new(), problems: Vec::new() };
        for (index, (name, value)) in parameters.into_iter().enumerate() {
            match keys::treatment(&name) {
                None => builder.problems.push(unknown(index + 1 - before_query.min(index), &name)),
                Some((key, _)) if value.is_empty() => drop(builder.values.remove(key)),
                Some((key, Treatment::Works)) => drop(builder.values.insert(key, value)),
                Some((_, Treatment::Only(same, _))) if same.contains(&value.to_lowercase().as_str()) => {}
                Some((key, Treatment::Only(same, remedy))) => {
                    let this = if same.is_empty() { "the" } else { "this value of the" };
                    let what = format!("{this} parameter {key} is not supported");
                    builder.problems.push(Problem::new(what, remedy));
                }
            }
        }
        builder
    }

    fn draft(&mut self, alias: &str, role: Option<Role>, surroundings: &Surroundings) -> Draft {
        let mut postgres = tokio_postgres::Config::new();
        let host = self.host(&mut postgres);
        let port = self.port();
        postgres.port(port);
        let (user, database) = self.login(surroundings);
        postgres.user(&user).dbname(&database);
        let name = self.take("application_name").or_else(|| self.take("fallback_application_name"));
        postgres.application_name(name.unwrap_or_else(|| format!("pgdetour:{alias}")));
        if let Some(options) = self.take("options") {
            postgres.options(options);
        }
        self.probes(&mut postgres);
        let tls = self.tls(&host);
        postgres.ssl_mode(if tls == Tls::Disable { SslMode::Disable } else { SslMode::Require });
        self.protection(&mut postgres, &tls);
        self.session(role);
        Draft {
            target: Target { postgres, tls },
            password: self.take("password").map(SecretString::from),
            passfile: self.take("passfile").map(PathBuf::from),
            login: Login { host: host.written, port, database, user },
            connect_timeout: self.connect_timeout(),
        }
    }

    fn host(&mut self, postgres: &mut tokio_postgres::Config) -> Host {
        let (host, addresses) = (self.take("host"), self.take("hostaddr"));
        let several = [&host, &addresses].into_iter().flatten().any(|list| list.contains(','));
        if several {
            self.refuse("names several hosts", "declare each host as an alias; a group or failover joins them");
            return Host::default();
        }
        let address = addresses.map(|text| text.parse::<IpAddr>());
        if address.as_ref().is_some_and(Result::is_err) {
            self.refuse(
                "the parameter hostaddr is not an IP address",
                "write one like 10.0.0.1, or write a name as host",
            );
        }
        let address = address.and_then(Result::ok);
        let Some(written) = host.or_else(|| address.map(|address| address.to_string())) else {
            if self.problems.is_empty() {
                self.refuse(
                    "names no host",
                    "write postgres://user@host/database, or host=/var/run/postgresql for a socket",
                );
            }
            return Host::default();
        };
        let unix = written.starts_with('/');
        if !unix && !written.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:%".contains(&b) || b >= 0x80) {
            self.refuse(
                "the host is not a name or an address",
                "write '@', ':', '/', '?' and '#' in a password as %40, %3A, %2F, %3F and %23",
            );
        }
        postgres.host(&written);
        if let Some(address) = address.filter(|_| !unix) {
            postgres.hostaddr(address);
        }
        let local = match address.or_else(|| written.parse().ok()) {
            Some(address) => address.is_loopback(),
            None => written == "localhost" || unix,
        };
        Host { written, unix, local }
    }

    fn port(&mut self) -> u16 {
        let Some(text) = self.take("port") else { return 5432 };
        let text = text.trim_matches(',');
        text.parse().ok().filter(|port| *port > 0).unwrap_or_else(|| {
            self.refuse(
                "the port is not a number from 1 to 65535",
                "if that is part of a password: write '@', ':', '/', '?' and '#' in it as %40, %3A, %2F, %3F and %23",
            );
            5432
        })
    }

    fn login(&mut self, surroundings: &Surroundings) -> (String, String) {
        let user = self.take("user").or_else(|| surroundings.user.clone()).unwrap_or_else(|| {
            self.refuse("names no user, and the variable USER is not set", "write postgres://user@host/database");
            String::new()
        });
        let database = self.take("dbname").unwrap_or_else(|| user.clone());
        (user, database)
    }

    /// Keepalives *and* a user timeout: a black hole under a running query hangs with the one alone.
    fn probes(&mut self, postgres: &mut tokio_postgres::Config) {
        let enabled = match self.take("keepalives").as_deref() {
            None | Some("1") => true,
            Some("0") => false,
            Some(_) => {
                self.refuse("the parameter keepalives is neither 0 nor 1", "leave it out: keepalives are on");
                true
            }
        };
        postgres.keepalives(enabled);
        if let Some(idle) = self.number("keepalives_idle", 10) {
            postgres.keepalives_idle(Duration::from_secs(idle.into()));
        }
        if let Some(interval) = self.number("keepalives_interval", 3) {
            postgres.keepalives_interval(Duration::from_secs(interval.into()));
        }
        if let Some(count) = self.number("keepalives_count", 3) {
            postgres.keepalives_retries(count);
        }
        if let Some(milliseconds) = self.number("tcp_user_timeout", 10_000) {
            postgres.tcp_user_timeout(Duration::from_millis(milliseconds.into()));
        }
    }

    /// A number, where 0 is the operating system's default.
    fn number(&mut self, key: &'static str, default: u32) -> Option<u32> {
        let Some(text) = self.take(key) else { return Some(default) };
        let number = text.trim().parse::<u32>();
        if number.is_err() {
            self.refuse(
                format!("the parameter {key} is not a whole number"),
                format!("leave it out ({default}) or write a number"),
            );
        }
        number.ok().filter(|number| *number > 0)
    }

    fn connect_timeout(&mut self) -> Option<Duration> {
        let text = self.take("connect_timeout")?;
        let seconds = text.trim().parse::<u32>().ok().filter(|seconds| *seconds > 0);
        if seconds.is_none() {
            self.refuse(
                "the parameter connect_timeout is not a number of seconds from 1",
                "leave it out, or write connect_timeout = \"2s\" as a key: no connect waits for ever",
            );
        }
        seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    fn tls(&mut self, host: &Host) -> Tls {
        let roots = self.take("sslrootcert").map(|roots| match roots.as_str() {
            "system" => Roots::System,
            file => Roots::File(PathBuf::from(file)),
        });
        let mode = self.take("sslmode");
        if host.unix && mode.as_deref().is_none_or(|mode| SSL_MODES.contains(&mode)) {
            return Tls::Disable; // libpq: "sslmode is ignored for Unix domain socket communication"
        }
        match (mode.as_deref(), roots) {
            (None, None) if host.local => Tls::Disable,
            (None | Some("verify-full"), roots) => Tls::VerifyFull(roots.unwrap_or(Roots::System)),
            (Some("disable"), _) => Tls::Disable,
            (Some("require"), None) => Tls::Require,
            (Some("require" | "verify-ca"), Some(Roots::File(file))) => Tls::VerifyCa(Roots::File(file)),
            (Some("require" | "verify-ca"), _) => {
                self.refuse(
                    "a certificate by any of the system's authorities proves nothing unless it names the host",
                    "write sslmode=verify-full, or sslrootcert=FILE with the authority that you trust",
                );
                Tls::VerifyFull(Roots::System)
            }
            (Some("prefer" | "allow"), _) => {
                self.refuse(
                    "sslmode=prefer and sslmode=allow fall back to plain text silently",
                    "write sslmode=require, verify-full or disable",
                );
                Tls::VerifyFull(Roots::System)
            }
            (Some(_), _) => {
                self.refuse("unknown sslmode", "valid: disable, require, verify-ca, verify-full");
                Tls::VerifyFull(Roots::System)
            }
        }
    }

    fn protection(&mut self, postgres: &mut tokio_postgres::Config, tls: &Tls) {
        match self.take("channel_binding").as_deref() {
            None => {}
            Some("disable") => drop(postgres.channel_binding(ChannelBinding::Disable)),
            Some("prefer") => drop(postgres.channel_binding(ChannelBinding::Prefer)),
            Some("require") if *tls == Tls::Disable => {
                self.refuse(
                    "channel_binding=require needs TLS",
                    "write sslmode=verify-full, or leave channel_binding out",
                );
            }
            Some("require") => drop(postgres.channel_binding(ChannelBinding::Require)),
            Some(_) => self.refuse("unknown channel_binding", "valid: disable, prefer, require"),
        }
        match self.take("sslnegotiation").as_deref() {
            None | Some("postgres") => {}
            Some("direct") if *tls == Tls::Disable => {
                self.refuse(
                    "sslnegotiation=direct needs TLS",
                    "write sslmode=verify-full, or leave sslnegotiation out",
                );
            }
            Some("direct") => drop(postgres.ssl_negotiation(SslNegotiation::Direct)),
            Some(_) => self.refuse("unknown sslnegotiation", "valid: postgres, direct"),
        }
    }

    /// Which server a session is for is the role's and the failover chain's to say; the parameter may only agree.
    fn session(&mut self, role: Option<Role>) {
        let Some(wanted) = self.take("target_session_attrs") else { return };
        let agrees = match wanted.as_str() {
            "any" => true,
            "primary" | "read-write" => role != Some(Role::Replica),
            "standby" | "read-only" => role != Some(Role::Primary),
            "prefer-standby" => {
                return self.refuse(
                    "target_session_attrs=prefer-standby is what failover is for",
                    "leave it out: give the alias role = \"replica\" and failover = [\"primary\"]",
                );
            }
            _ => {
                let valid = "valid: any, primary, read-write, standby, read-only";
                return self.refuse("unknown target_session_attrs", valid);
            }
        };
        if !agrees {
            self.refuse("target_session_attrs contradicts the role of the alias", "leave it out, or change the role");
        }
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        self.values.remove(key)
    }

    fn refuse(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::new(what, remedy));
    }
}

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

#[derive(Default)]
struct Host {
    written: String,
    unix: bool,
    local: bool,
}

/// Names only what is valid: what is written may be a piece of a password.
fn unknown(number: usize, name: &str) -> Problem {
    let what = format!("parameter {number} is not one that libpq knows");
    match nearest(name, keys::KEYS.iter().map(|(key, _)| *key)) {
        Some(near) => Problem::new(what, format!("did you mean `{near}`?")),
        None => Problem::new(what, "leave it out, or write it as a key of the configuration file"),
    }
}

impl Draft {
    /// The authorities' file that has to be readable.
    pub(in crate::config) fn roots(&self) -> Option<&Path> {
        match &self.target.tls {
            Tls::VerifyCa(Roots::File(file)) | Tls::VerifyFull(Roots::File(file)) => Some(file),
            _ => None,
        }
    }
}
