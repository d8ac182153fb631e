//! Where a service is and how to log in, as its URL says: `redis://user:password@host:6379`.
//!
//! No error here quotes the text: a piece of it may be a piece of the password.

use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::{Roots, Tls, error::Problem};

/// Where a service is and how to log in. Its `Debug` and `Display` show host and port alone.
#[derive(Clone)]
#[non_exhaustive]
pub struct Endpoint {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who logs in.
    pub user: Option<String>,
    pub(crate) password: Option<SecretString>,
    /// What follows the port, with its slash: of an `http` service what is asked for, of an `amqp` one the virtual host.
    pub path: String,
    /// How the connection is protected: by the scheme.
    pub tls: Tls,
}

/// How the URLs of one kind of service look.
#[derive(Debug)]
pub(super) struct Scheme {
    /// In plain text, with its port; without a port each URL names one.
    pub(super) plain: (&'static str, Option<u16>),
    /// Over TLS.
    pub(super) tls: Option<(&'static str, u16)>,
    /// Whether host and port may stand alone.
    pub(super) bare: bool,
    pub(super) example: &'static str,
}

impl Scheme {
    fn wrong(&self, what: &str) -> Problem {
        Problem::new(what, format!("write it like \"{}\"", self.example))
    }

    /// What the URL says of protection, the usual port, and the rest.
    fn split<'a>(&self, text: &'a str) -> Result<(bool, Option<u16>, &'a str), Problem> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return if self.bare { Ok((false, self.plain.1, text)) } else { Err(self.wrong("has no scheme")) };
        };
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        match self.tls {
            _ if is(self.plain.0) => Ok((false, self.plain.1, rest)),
            Some((name, port)) if is(name) => Ok((true, Some(port), rest)),
            _ => Err(self.wrong("has a scheme that this kind of service has not")),
        }
    }
}

impl Endpoint {
    /// Parses a URL of this scheme.
    pub(super) fn parse(text: &str, scheme: &Scheme) -> Result<Self, Problem> {
        let text = text.trim();
        // Whatever is written here goes into requests, logs and terminals.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Problem::new("holds spaces or control characters", "write them as %20 and the like"));
        }
        let (protected, usual, rest) = scheme.split(text)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, place) =
            authority.rsplit_once('@').map_or((None, authority), |(login, place)| (Some(login), place));
        let (host, port) = place_of(place, usual, scheme)?;
        let (user, password) = login.map_or((None, None), |login| {
            login.split_once(':').map_or((Some(login), None), |(user, password)| (Some(user), Some(password)))
        });
        let user = user.filter(|user| !user.is_empty()).map(decoded).transpose()?;
        let password = password.map(decoded).transpose()?.map(SecretString::from);
        let path = path.split('#').next().unwrap_or_default().to_owned();
        let tls = if protected { Tls::VerifyFull(Roots::System) } else { Tls::Disable };
        Ok(Self { host, port, user, password, path, tls })
    }

    /// The password, where there is one.
    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.tls != Tls::Disable
    }
}

fn place_of(place: &str, usual: Option<u16>, scheme: &Scheme) -> Result<(String, u16), Problem> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| scheme.wrong("has a [ without its ]"))?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("-")) })
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(scheme.wrong("has no host"));
    }
    let port = match port {
        None => usual.ok_or_else(|| scheme.wrong("has no port"))?,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            Problem::new(
                "has a port that is no number from 1 to 65535",
                "in a user or password write / : @ as %2F %3A %40",
            )
        })?,
    };
    Ok((host.to_owned(), port))
}

fn decoded(text: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(text).decode_utf8();
    let problem = || Problem::bare("has a user or password that is not UTF-8, or holds a NUL");
    decoded.ok().filter(|text| !text.contains('\0')).map(|text| text.into_owned()).ok_or_else(problem)
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        (&self.host, self.port, &self.user, self.password()) == (&other.host, other.port, &other.user, other.password())
            && (&self.path, &self.tls) == (&other.path, &other.tls)
    }
}

impl fmt::Display for Endpoint {
    /// `host:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.to_string()).field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS: Scheme =
        Scheme { plain: ("redis", Some(6379)), tls: Some(("rediss", 6379)), bare: false, example: "redis://host:6379" };

    #[test]
    fn a_url_says_host_port_login_path_and_protection() {
        let endpoint = Endpoint::parse("rediss://app:a%2Fb%40c@[::1]:7000/2", &REDIS).unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.path.as_str()), ("::1", 7000, "/2"));
        assert_eq!((endpoint.user.as_deref(), endpoint.password()), (Some("app"), Some("a/b@c")));
        assert!(endpoint.is_protected());
        assert_eq!(endpoint.to_string(), "[::1]:7000");
        let plain = Endpoint::parse("redis://:word@cache", &REDIS).unwrap();
        assert_eq!((plain.user.as_deref(), plain.password(), plain.port), (None, Some("word"), 6379));
        assert!(!format!("{plain:?} {plain}").contains("word"));
    }

    #[test]
    fn what_could_end_a_line_of_a_request_is_refused() {
        for text in ["redis://a\r\nb:1", "redis://a b", "redis://a\u{1b}[31m", "redis://a:1/x\ny"] {
            assert!(Endpoint::parse(text, &REDIS).is_err(), "{text:?}");
        }
    }
}
