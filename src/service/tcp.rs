//! Something that takes connections: what a ping is unless a service says otherwise.

use super::{Service, ServiceError, wire::connect};
use crate::config::{ConfigError, Endpoint, ServiceKind};

/// Something that takes TCP connections. Its ping is to take one, within `ping_timeout` (default 3 s).
///
/// A process that hangs still takes connections as long as its kernel has room for them: where there is a protocol to ask in, ask.
#[derive(Debug, Clone)]
pub struct Tcp {
    name: String,
    endpoint: Endpoint,
}

impl Tcp {
    /// Something at `host:port`.
    ///
    /// # Errors
    ///
    /// When that is no place.
    pub fn new(name: impl Into<String>, address: &str) -> Result<Self, ConfigError> {
        let name = name.into();
        let kind = ServiceKind::in_code(&name, "tcp", address)?;
        Ok(Self::at(name, kind.endpoints()[0].clone()))
    }

    pub(super) fn at(name: String, endpoint: Endpoint) -> Self {
        Self { name, endpoint }
    }
}

impl Service for Tcp {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> String {
        self.endpoint.to_string()
    }

    fn kind(&self) -> &str {
        "tcp"
    }

    async fn ping(&self, _: std::time::Duration) -> Result<(), ServiceError> {
        connect(&self.address()).await.map(drop)
    }
}
