//! memcached: every node has to answer, and the dead ones are named.
//!
//! The text protocol: <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>, `version`.

use std::time::Duration;

use tokio::{task::JoinSet, time::timeout};

use super::{
    Service, ServiceError,
    wire::{Wire, quoted},
};
use crate::{
    clock,
    config::{ConfigError, Endpoint, ServiceKind},
};

/// A memcached of one or many nodes. It is out while any of them is: the others have none of its keys.
#[derive(Debug, Clone)]
pub struct Memcached {
    name: String,
    nodes: Vec<Endpoint>,
}

impl Memcached {
    /// These nodes, each `host` or `host:port`.
    ///
    /// # Errors
    ///
    /// When there is none, or one that is no place.
    pub fn new<N: Into<String>>(
        name: impl Into<String>,
        nodes: impl IntoIterator<Item = N>,
    ) -> Result<Self, ConfigError> {
        let (name, nodes) = (name.into(), nodes.into_iter().map(Into::into).collect::<Vec<_>>());
        let kind = ServiceKind::nodes_in_code(&name, &nodes)?;
        Ok(Self::at(name, kind.endpoints().to_vec()))
    }

    pub(super) fn at(name: String, nodes: Vec<Endpoint>) -> Self {
        Self { name, nodes }
    }
}

impl Service for Memcached {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> String {
        self.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    fn kind(&self) -> &str {
        "memcached"
    }

    async fn ping(&self, within: Duration) -> Result<(), ServiceError> {
        if let [node] = self.nodes.as_slice() {
            return ask(node).await;
        }
        // Sooner than the whole ping, so that there is time to say which of them was silent.
        let within = within.mul_f64(0.9);
        let mut asking = JoinSet::new();
        for (index, node) in self.nodes.iter().cloned().enumerate() {
            asking.spawn(async move {
                (index, ask_within(&node, within).await.map_err(|error| error.at(&node.to_string())))
            });
        }
        let mut answers = asking.join_all().await;
        answers.sort_by_key(|(index, _)| *index);
        let errors: Vec<_> = answers.into_iter().filter_map(|(_, answer)| answer.err()).collect();
        if errors.is_empty() {
            return Ok(());
        }
        let told = |conclusive| {
            let told = errors.iter().filter(move |error| error.is_conclusive() == conclusive);
            told.map(ToString::to_string).collect::<Vec<_>>()
        };
        let dead = told(true);
        if dead.is_empty() {
            return Err(ServiceError::inconclusive(told(false).join("; ")));
        }
        let (count, all) = (dead.len(), self.nodes.len());
        Err(ServiceError::failed(format!("{count} of {all} nodes: {}", dead.join("; "))))
    }
}

/// A silence that is noticed late says that this process was held up: then it stays one, and the monitor asks again.
async fn ask_within(node: &Endpoint, within: Duration) -> Result<(), ServiceError> {
    let begun = clock::now();
    match timeout(within, ask(node)).await {
        Ok(answer) => answer,
        Err(_) if clock::now() > begun + within.mul_f64(1.5) => std::future::pending().await,
        Err(_) => Err(ServiceError::failed(format!("no answer within {}", humantime::format_duration(within)))),
    }
}

async fn ask(node: &Endpoint) -> Result<(), ServiceError> {
    let mut wire = Wire::plain(node).await?;
    wire.send(b"version\r\n").await?;
    let answer = wire.line().await?;
    match answer.split(' ').next() {
        Some("VERSION") => Ok(()),
        Some("CLIENT_ERROR") => Err(ServiceError::inconclusive(quoted(&answer))),
        _ if answer.contains("Too many open connections") => Err(ServiceError::inconclusive(quoted(&answer))),
        _ => Err(ServiceError::failed(format!("no answer of a memcached: {}", quoted(&answer)))),
    }
}
