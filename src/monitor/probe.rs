//! The seam between the worker and the network: how a server is asked, for real or by a test.

use std::future::Future;

use crate::health::Finding;

/// A way to ask one server how it is.
pub(crate) trait Probe: Clone + Send + Sync + 'static {
    /// A connection to the server, to be kept and watched.
    type Session: Clone + Send + Sync + 'static;

    /// Makes a connection. It is closed when the last clone of the session is dropped.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, Finding>> + Send;

    /// Asks over a connection.
    fn ask(&self, session: &Self::Session) -> impl Future<Output = Finding> + Send;

    /// Ends when the connection does, for whatever reason.
    fn ended(session: &Self::Session) -> impl Future<Output = ()> + Send;
}
