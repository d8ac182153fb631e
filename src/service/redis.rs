//! Redis: `AUTH` where there is a password, then `PING`.
//!
//! The protocol: <https://redis.io/docs/latest/develop/reference/protocol-spec/>; the commands:
//! <https://redis.io/docs/latest/commands/auth/>, <https://redis.io/docs/latest/commands/ping/>.

use std::time::Duration;

use super::{
    Service, ServiceError,
    wire::{Door, Wire, quoted},
};
use crate::{
    config::{Endpoint, ServiceKind},
    pool::TlsError,
};

/// A Redis, or what speaks its protocol: it has to answer `PING`.
#[derive(Debug, Clone)]
pub struct Redis {
    name: String,
    door: Door,
}

impl Redis {
    /// The Redis at `redis://[user[:password]@]host[:port]`, or `rediss://` for TLS.
    ///
    /// # Errors
    ///
    /// When that is no such URL, or TLS cannot be had.
    pub fn new(name: impl Into<String>, url: &str) -> Result<Self, crate::Error> {
        let name = name.into();
        let kind = ServiceKind::in_code(&name, "redis", url)?;
        Self::at(name.clone(), kind.endpoints()[0].clone()).map_err(|error| crate::Error::service(&name, error))
    }

    pub(super) fn at(name: String, endpoint: Endpoint) -> Result<Self, TlsError> {
        Ok(Self { name, door: Door::new(endpoint)? })
    }
}

impl Service for Redis {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> String {
        self.door.endpoint.to_string()
    }

    fn kind(&self) -> &str {
        "redis"
    }

    async fn ping(&self, _: Duration) -> Result<(), ServiceError> {
        let mut wire = self.door.open().await?;
        let Endpoint { user, .. } = &self.door.endpoint;
        if let Some(password) = self.door.endpoint.password() {
            let login: Vec<&str> = ["AUTH"].into_iter().chain(user.as_deref()).chain([password]).collect();
            ask(&mut wire, &login, "+OK").await?;
        }
        ask(&mut wire, &["PING"], "+PONG").await
    }
}

async fn ask(wire: &mut Wire, words: &[&str], wanted: &str) -> Result<(), ServiceError> {
    wire.send(&command(words)).await?;
    let answer = wire.line().await?;
    if answer == wanted { Ok(()) } else { Err(refused(&answer)) }
}

/// A command as an array of bulk strings: no byte in it can end it.
fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// What an answer says that is not the one hoped for. Redis never quotes a password in it.
fn refused(answer: &str) -> ServiceError {
    let code = answer.strip_prefix('-').map(|error| error.split(' ').next().unwrap_or_default());
    match code {
        // It serves nobody now: it reads its data, a script holds it up, it cannot write its data, or its primary is away.
        Some("LOADING" | "BUSY" | "MISCONF" | "MASTERDOWN" | "CLUSTERDOWN") => {
            ServiceError::failed(quoted(&answer[1..]))
        }
        // It answers: WRONGPASS, NOAUTH, NOPERM, DENIED, and ERR for an AUTH where there is no password, or for too many clients.
        Some(_) => ServiceError::inconclusive(quoted(&answer[1..])),
        None => ServiceError::failed(format!("no answer of a Redis: {}", quoted(answer))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_can_be_a_command() {
        let sent = command(&["AUTH", "x\r\nFLUSHALL\r\n"]);
        assert_eq!(sent, b"*2\r\n$4\r\nAUTH\r\n$13\r\nx\r\nFLUSHALL\r\n\r\n");
    }

    #[test]
    fn a_refused_login_is_no_outage_and_a_server_that_loads_is() {
        for answer in ["-WRONGPASS invalid", "-NOAUTH Authentication required.", "-ERR max number of clients reached"] {
            assert!(!refused(answer).is_conclusive(), "{answer}");
        }
        for answer in ["-LOADING Redis is loading the dataset in memory", "HTTP/1.1 400 Bad Request", "", "+OK"] {
            assert!(refused(answer).is_conclusive(), "{answer}");
        }
    }
}
