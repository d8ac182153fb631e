//! The streams under the ready-made pings. What is read is bounded: who answers may be anybody.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::ServiceError;
use crate::{
    config::{Endpoint, Tls},
    pool::{Duplex, Protection, TlsError},
};

/// The most that is read of one answer.
const MOST: usize = 64 * 1024;

/// What answers at an endpoint: its protection is set up once.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) endpoint: Endpoint,
    protection: Protection,
}

impl Door {
    pub(super) fn new(endpoint: Endpoint) -> Result<Self, TlsError> {
        Ok(Self { protection: Protection::new(&endpoint.tls)?, endpoint })
    }

    pub(super) async fn open(&self) -> Result<Wire, ServiceError> {
        let Endpoint { host, port, tls, .. } = &self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let protected = self.protection.secure(stream, host).await.map_err(|error| match error.kind() {
            // Somebody answered, whose certificate or protocol does not fit: that is for whoever set it up.
            io::ErrorKind::InvalidData if *tls != Tls::Disable => {
                ServiceError::inconclusive(format!("no TLS as asked for: {error}"))
            }
            _ => error.into(),
        })?;
        Ok(Wire::new(protected))
    }
}

/// Takes a connection at `host:port`.
pub(super) async fn connect(address: &str) -> Result<TcpStream, ServiceError> {
    Ok(TcpStream::connect(address).await?)
}

/// A connection that is asked and answers.
pub(super) struct Wire {
    stream: Box<dyn Duplex>,
    /// What has come and was not taken yet.
    read: Vec<u8>,
    total: usize,
}

impl Wire {
    fn new(stream: Box<dyn Duplex>) -> Self {
        Self { stream, read: Vec::new(), total: 0 }
    }

    /// A plain connection to somewhere.
    pub(super) async fn plain(endpoint: &Endpoint) -> Result<Self, ServiceError> {
        Ok(Self::new(Box::new(TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?)))
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next line, without its end.
    pub(super) async fn line(&mut self) -> Result<String, ServiceError> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.read[looked..].iter().position(|byte| *byte == b'\n').map(|end| looked + end) {
                let line = self.read.drain(..=end).collect::<Vec<u8>>();
                return Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
            }
            looked = self.read.len();
            self.more().await?;
        }
    }

    /// The next `count` bytes.
    pub(super) async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, ServiceError> {
        while self.read.len() < count {
            if count > MOST {
                return Err(too_much());
            }
            self.more().await?;
        }
        Ok(self.read.drain(..count).collect())
    }

    async fn more(&mut self) -> Result<(), ServiceError> {
        let mut bytes = [0; 2048];
        let count = self.stream.read(&mut bytes).await?;
        if count == 0 {
            return Err(ServiceError::failed("closed the connection instead of an answer"));
        }
        self.total += count;
        if self.total > MOST {
            return Err(too_much());
        }
        self.read.extend_from_slice(&bytes[..count]);
        Ok(())
    }
}

fn too_much() -> ServiceError {
    ServiceError::failed("answered more than a ping can mean: is it what it is declared to be?")
}

/// What somebody said, short enough for one line of a log.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(200).collect();
    if short.len() < text.len() { format!("{short} …") } else { short }
}
