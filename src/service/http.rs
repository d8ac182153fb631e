//! HTTP: a GET has to be answered with a status.
//!
//! The protocol: RFC 9112, <https://www.rfc-editor.org/rfc/rfc9112>.

use std::time::Duration;

use super::{
    Service, ServiceError,
    wire::{Door, quoted},
};
use crate::{
    config::{Endpoint, ServiceKind},
    pool::TlsError,
};

/// Something that answers a GET: with a status from 200 to 299, or the one that is expected. 401, 403 and 429 tell nothing of its
/// health: it answers, and not to us.
#[derive(Debug, Clone)]
pub struct Http {
    name: String,
    door: Door,
    status: Option<u16>,
}

impl Http {
    /// What `http://host[:port][/path]` answers, or `https://`.
    ///
    /// # Errors
    ///
    /// When that is no such URL, or TLS cannot be had.
    pub fn new(name: impl Into<String>, url: &str) -> Result<Self, crate::Error> {
        let name = name.into();
        let kind = ServiceKind::in_code(&name, "http", url)?;
        Self::at(name.clone(), kind.endpoints()[0].clone(), None).map_err(|error| crate::Error::service(&name, error))
    }

    /// The only status that is a good answer.
    #[must_use]
    pub fn expecting(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    pub(super) fn at(name: String, endpoint: Endpoint, status: Option<u16>) -> Result<Self, TlsError> {
        Ok(Self { name, door: Door::new(endpoint)?, status })
    }

    fn request(&self) -> String {
        let endpoint = &self.door.endpoint;
        let usual = if endpoint.is_protected() { 443 } else { 80 };
        let whole = endpoint.to_string();
        let host = if endpoint.port == usual { whole.trim_end_matches(&format!(":{usual}")) } else { &whole };
        let path = match endpoint.path.as_str() {
            path if path.starts_with('/') => path.to_owned(),
            rest => format!("/{rest}"),
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pgdetour\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
    }
}

impl Service for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> String {
        self.door.endpoint.to_string()
    }

    fn kind(&self) -> &str {
        "http"
    }

    async fn ping(&self, _: Duration) -> Result<(), ServiceError> {
        let mut wire = self.door.open().await?;
        wire.send(self.request().as_bytes()).await?;
        loop {
            let line = wire.line().await?;
            let status =
                status(&line).ok_or_else(|| ServiceError::failed(format!("no answer of HTTP: {}", quoted(&line))))?;
            match (status, self.status) {
                // One that is on its way: what comes before the next status ends with an empty line.
                (100..=199, _) => while !wire.line().await?.is_empty() {},
                (status, Some(wanted)) if status == wanted => return Ok(()),
                (200..=299, None) => return Ok(()),
                (401 | 403 | 429, _) => return Err(ServiceError::inconclusive(quoted(&line))),
                _ => return Err(ServiceError::failed(quoted(&line))),
            }
        }
    }
}

fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    (rest.len() == 3).then(|| rest.parse().ok())?.filter(|status| *status >= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_and_nothing_else_is_taken_for_one() {
        assert_eq!(status("HTTP/1.1 204 No Content"), Some(204));
        assert_eq!(status("HTTP/1.0 503"), Some(503));
        for line in ["", "HTTP/1.1", "HTTP/1.1 20 x", "HTTP/1.1 2000", "SSH-2.0-OpenSSH", "HTTP/1.1 -20"] {
            assert_eq!(status(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_request_names_its_host_and_its_path() {
        let of = |url: &str| Http::new("x", url).unwrap().request();
        assert!(of("http://shop").starts_with("GET / HTTP/1.1\r\nHost: shop\r\n"));
        assert!(of("http://shop:8080/up?now#here").starts_with("GET /up?now HTTP/1.1\r\nHost: shop:8080\r\n"));
        assert!(of("http://[::1]:80?now").starts_with("GET /?now HTTP/1.1\r\nHost: [::1]\r\n"));
    }
}
