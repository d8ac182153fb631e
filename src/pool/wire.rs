//! What does a session drive? The driver's connection, over the network or a Unix socket, with the tap on it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio_postgres::{AsyncMessage, Connection, Error, Socket};

#[cfg(feature = "testkit")]
use super::streams::Stream;
use super::{tap::Tapped, tls::Secured};

/// The driver's connection. As a future it runs to its end, and what the server says unasked is dropped (the driver's own
/// future would log it).
pub(crate) enum Wire {
    /// Over a socket the driver has opened.
    Driver(Connection<Socket, Tapped<Secured>>),
    /// Over a Unix socket we have opened.
    #[cfg(unix)]
    Local(Connection<tokio::net::UnixStream, Tapped<Secured>>),
    /// Over a stream that is no socket.
    #[cfg(feature = "testkit")]
    Given(Connection<Stream, Tapped<Secured>>),
}

impl Wire {
    /// Drives the connection until it has something to say or nothing to do.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> {
        match self {
            Self::Driver(connection) => connection.poll_message(cx),
            #[cfg(unix)]
            Self::Local(connection) => connection.poll_message(cx),
            #[cfg(feature = "testkit")]
            Self::Given(connection) => connection.poll_message(cx),
        }
    }

    /// A parameter of the server, as last reported.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        match self {
            Self::Driver(connection) => connection.parameter(name),
            #[cfg(unix)]
            Self::Local(connection) => connection.parameter(name),
            #[cfg(feature = "testkit")]
            Self::Given(connection) => connection.parameter(name),
        }
    }
}

impl Future for Wire {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while let Some(message) = ready!(self.poll_message(cx)) {
            message?;
        }
        Poll::Ready(Ok(()))
    }
}
