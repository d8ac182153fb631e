//! What an application depends on besides its databases: `[service.NAME]`, checked like all the rest.

use secrecy::ExposeSecret;

use super::{
    AliasName, Config, ConfigError, Pings, Roots, Tls,
    endpoint::{Endpoint, Scheme},
    error::{At, Given, Mistake, Problem},
    numbers::Layered,
    raw::{Numbers, Raw, RawService},
    secret::Findings,
};

/// One declared service.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// Its name: aliases and services share one namespace.
    pub name: AliasName,
    /// What it is and where.
    pub kind: ServiceKind,
    /// How it is pinged.
    pub pings: Pings,
}

/// What a service is and where.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ServiceKind {
    /// Something that takes connections.
    Tcp(Endpoint),
    /// memcached: every node has to answer.
    Memcached(Vec<Endpoint>),
    /// Redis, and what speaks its protocol.
    Redis(Endpoint),
    /// RabbitMQ, and what speaks AMQP 0-9-1.
    Amqp(Endpoint),
    /// Something that answers a GET.
    Http {
        /// Where, and what is asked for.
        endpoint: Endpoint,
        /// The status it has to answer with; none: any from 200 to 299.
        status: Option<u16>,
    },
}

/// The kinds as they are written.
pub(super) const KINDS: &[&str] = &["tcp", "memcached", "redis", "amqp", "http"];

const TCP: Scheme = Scheme { plain: ("tcp", None), tls: None, bare: true, example: "host:9200" };
const MEMCACHED: Scheme = Scheme { plain: ("memcached", Some(11211)), tls: None, bare: true, example: "host:11211" };
const REDIS: Scheme = Scheme {
    plain: ("redis", Some(6379)),
    tls: Some(("rediss", 6379)),
    bare: false,
    example: "redis://user@host:6379",
};
const AMQP: Scheme = Scheme {
    plain: ("amqp", Some(5672)),
    tls: Some(("amqps", 5671)),
    bare: false,
    example: "amqp://user@host:5672/vhost",
};
const HTTP: Scheme =
    Scheme { plain: ("http", Some(80)), tls: Some(("https", 443)), bare: false, example: "https://host/health" };

impl ServiceKind {
    /// As it is written in `kind`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Memcached(_) => "memcached",
            Self::Redis(_) => "redis",
            Self::Amqp(_) => "amqp",
            Self::Http { .. } => "http",
        }
    }

    /// Every place it is at.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Memcached(nodes) => nodes,
            Self::Tcp(endpoint) | Self::Redis(endpoint) | Self::Amqp(endpoint) | Self::Http { endpoint, .. } => {
                std::slice::from_ref(endpoint)
            }
        }
    }

    /// `host:port`, of several with commas between.
    #[must_use]
    pub fn address(&self) -> String {
        self.endpoints().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// A service of this kind at `url`.
    pub(super) fn at(kind: &str, url: &str) -> Result<Self, Problem> {
        let without_login = |endpoint: Endpoint| {
            if endpoint.user.is_none() && endpoint.password().is_none() {
                return Ok(endpoint);
            }
            Err(Problem::new(format!("this kind, {kind}, is pinged without a login"), "take user and password out"))
        };
        Ok(match kind {
            "memcached" => Self::Memcached(vec![without_login(Endpoint::parse(url, &MEMCACHED)?)?]),
            "redis" => Self::Redis(Endpoint::parse(url, &REDIS)?),
            "amqp" => Self::Amqp(Endpoint::parse(url, &AMQP)?),
            "http" => Self::Http { endpoint: without_login(Endpoint::parse(url, &HTTP)?)?, status: None },
            _ => Self::Tcp(without_login(Endpoint::parse(url, &TCP)?)?),
        })
    }

    /// The same, in code.
    pub(crate) fn in_code(name: &str, kind: &str, url: &str) -> Result<Self, ConfigError> {
        let at = At::code(format!("service.{name}.url"));
        Self::at(kind, url).map_err(|problem| ConfigError::new(vec![at.mistake(problem)]))
    }

    /// All nodes of one memcached, in code.
    pub(crate) fn nodes_in_code(name: &str, nodes: &[String]) -> Result<Self, ConfigError> {
        let at = At::code(format!("service.{name}.nodes"));
        let mut mistakes = Vec::new();
        let kind = Self::of_nodes(nodes, &at, &mut mistakes);
        if mistakes.is_empty() { Ok(kind) } else { Err(ConfigError::new(mistakes)) }
    }

    fn of_nodes(nodes: &[String], at: &At, mistakes: &mut Vec<Mistake>) -> Self {
        if nodes.is_empty() {
            mistakes.push(at.mistake(Problem::new("is empty", "name at least one node, like \"host:11211\"")));
        }
        let mut all = Vec::new();
        for node in nodes {
            match Self::at("memcached", node) {
                Ok(node) => all.extend_from_slice(node.endpoints()),
                Err(problem) => mistakes.push(at.mistake(problem)),
            }
        }
        Self::Memcached(all)
    }

    /// The only endpoint of a kind that has one.
    fn endpoint_mut(&mut self) -> Option<&mut Endpoint> {
        match self {
            Self::Tcp(endpoint) | Self::Redis(endpoint) | Self::Amqp(endpoint) | Self::Http { endpoint, .. } => {
                Some(endpoint)
            }
            Self::Memcached(_) => None,
        }
    }
}

impl Config {
    /// Every declared service, in the order of declaration.
    #[must_use]
    pub fn services(&self) -> &[ServiceConfig] {
        &self.services
    }

    /// How a service is pinged that says nothing of it: what stands at the top of the file.
    #[must_use]
    pub fn pings(&self) -> &Pings {
        &self.pings
    }

    /// The name of a service that is registered in code, if it fits in with these pings.
    pub(crate) fn admit(&self, name: &str, pings: &Pings) -> Result<AliasName, ConfigError> {
        let at = At::code(format!("service.{}", name.escape_debug()));
        let fail = |problem| ConfigError::new(vec![at.mistake(problem)]);
        let name = AliasName::new(name).map_err(|invalid| fail(Problem::bare(format!("not a name: {invalid}"))))?;
        let taken = |what| Err(fail(Problem::new(format!("{what} has this name"), "give the service another one")));
        if self.alias(name.as_str()).is_some() {
            return taken("an alias");
        }
        if self.services.iter().any(|service| service.name == name) {
            return taken("a service of the configuration");
        }
        let (mut written, none) = (Numbers::default(), Numbers::default());
        written.set_pings(pings, &format!("{}.", at.key));
        let mut mistakes = written.senseless();
        mistakes.extend(Layered::new(&written, &none).inverted_pings(pings, &at));
        if mistakes.is_empty() { Ok(name) } else { Err(ConfigError::new(mistakes)) }
    }

    /// Why a second service of this name cannot be registered.
    pub(crate) fn already_registered(name: &AliasName) -> ConfigError {
        let problem = Problem::new("is registered already", "give the service another name");
        ConfigError::new(vec![At::code(format!("service.{name}")).mistake(problem)])
    }
}

/// The services that hold; all that is wrong with the others.
pub(super) fn services(raw: &Raw, defaults: &Pings, findings: &mut Findings) -> Vec<ServiceConfig> {
    let mut found = Vec::new();
    for service in &raw.services {
        let mut mistakes = service.shape();
        if let Some(alias) = raw.aliases.iter().find(|alias| alias.name == service.name) {
            let what = format!("alias.{} has this name too", alias.name);
            mistakes
                .push(service.at.mistake(Problem::new(what, "give one of them another name: both stand in one log")));
        }
        mistakes.extend(service.numbers.senseless());
        let layered = Layered::new(&service.numbers, &raw.numbers);
        let pings = layered.pings(defaults);
        mistakes.extend(layered.inverted_pings(&pings, &service.at));
        let kind = service.built(&mut mistakes, findings);
        findings.mistakes.append(&mut mistakes);
        found.extend(kind.map(|kind| ServiceConfig { name: service.name.clone(), kind, pings }));
    }
    found
}

impl RawService {
    /// Whether it has what its kind needs, and nothing else.
    fn shape(&self) -> Vec<Mistake> {
        let Some(kind) = &self.kind else {
            let remedy = format!("write kind = \"…\" with one of {}", KINDS.join(", "));
            let missing = self.lacks("kind").then(|| self.at.mistake(Problem::new("has no kind", remedy)));
            return missing.into_iter().collect();
        };
        let foreign = |at: Option<&At>, kinds: &[&str]| {
            let at = at.filter(|_| !kinds.contains(&kind.value))?;
            let what = format!("is not for kind = \"{}\"", kind.value);
            Some(at.mistake(Problem::new(what, format!("leave it out: it is for {}", kinds.join(", ")))))
        };
        let mut mistakes: Vec<_> = [
            foreign(self.nodes.as_ref().map(|given| &given.at), &["memcached"]),
            foreign(self.password_file.as_ref().map(|given| &given.at), &["redis", "amqp"]),
            foreign(self.root_cert.as_ref().map(|given| &given.at), &["redis", "amqp", "http"]),
            foreign(self.status.as_ref().map(|given| &given.at), &["http"]),
        ]
        .into_iter()
        .flatten()
        .collect();
        let alternatives = if kind.value == "memcached" { "nodes" } else { "url" };
        if self.url.is_none() && self.nodes.is_none() && self.lacks("url") && self.lacks("nodes") {
            let example = match kind.value {
                "memcached" => "nodes = [\"host:11211\"]".to_owned(),
                word => format!("url = \"{}\"", scheme(word).example),
            };
            let problem = Problem::new(format!("has no {alternatives}"), format!("write {example}"));
            mistakes.push(self.at.mistake(problem));
        }
        if let (Some(url), Some(_), "memcached") = (&self.url, &self.nodes, kind.value) {
            mistakes.push(url.at.mistake(Problem::new("stands beside nodes", "write one of the two")));
        }
        mistakes
    }

    fn built(&self, mistakes: &mut Vec<Mistake>, findings: &mut Findings) -> Option<ServiceKind> {
        let word = self.kind.as_ref()?.value;
        if let Some(nodes) = self.nodes.as_ref().filter(|_| word == "memcached") {
            return Some(ServiceKind::of_nodes(&nodes.value, &nodes.at, mistakes));
        }
        let url = self.url.as_ref()?;
        let mut kind = ServiceKind::at(word, url.value.expose_secret())
            .map_err(|problem| mistakes.push(url.at.mistake(problem)))
            .ok()?;
        if let (ServiceKind::Http { status, .. }, Some(given)) = (&mut kind, &self.status) {
            *status = self.status_of(given, mistakes);
        }
        if let Some(endpoint) = kind.endpoint_mut() {
            findings.fill_service(self, endpoint);
            mistakes.extend(self.protect(endpoint, url));
        }
        Some(kind)
    }

    fn status_of(&self, given: &Given<usize>, mistakes: &mut Vec<Mistake>) -> Option<u16> {
        let status = u16::try_from(given.value).ok().filter(|status| (200..=599).contains(status));
        if status.is_none() {
            mistakes.push(given.at.mistake(Problem::new("no HTTP status", "write a number from 200 to 599")));
        }
        status
    }

    /// Authorities of its own, and whether there is TLS at all.
    fn protect(&self, endpoint: &mut Endpoint, url: &Given<secrecy::SecretString>) -> Option<Mistake> {
        let Some(file) = &self.root_cert else {
            let without = cfg!(not(feature = "tls")) && endpoint.is_protected();
            let remedy = "build it with the feature, or write a URL without TLS";
            let problem = || Problem::new("needs TLS, and pgdetour is built without its feature `tls`", remedy);
            return without.then(|| url.at.mistake(problem()));
        };
        if !endpoint.is_protected() {
            let problem = Problem::new("says nothing for a URL without TLS", "write rediss://, amqps:// or https://");
            return Some(file.at.mistake(problem));
        }
        endpoint.tls = Tls::VerifyFull(Roots::File(file.value.clone()));
        None
    }
}

fn scheme(kind: &str) -> &'static Scheme {
    match kind {
        "redis" => &REDIS,
        "amqp" => &AMQP,
        "http" => &HTTP,
        "memcached" => &MEMCACHED,
        _ => &TCP,
    }
}
