//! What a back end has to know about a pooled connection, whatever pool lends it: is it closed, does it answer?

use std::{error::Error, fmt, future::Future};

use tokio_postgres::SimpleQueryMessage;

use super::{Condition, FirstRow, Tap};

/// Tells about connections of type `C`, for a back end that is generic over them.
///
/// [`Driver`] knows tokio-postgres and the pools over it. For another type, implement this for a marker of your own and name
/// it as the back end's last parameter:
///
/// ```
/// use pgdetour::pool::Probe;
/// # struct OrmConnection(tokio_postgres::Client);
///
/// enum OrmProbe {}
///
/// impl Probe<OrmConnection> for OrmProbe {
///     fn is_closed(connection: &OrmConnection) -> bool {
///         connection.0.is_closed()
///     }
///
///     async fn probe(connection: &OrmConnection) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///         Ok(connection.0.check_connection().await?)
///     }
/// }
/// ```
pub trait Probe<C>: 'static {
    /// Whether the connection is known to be closed. Asks nobody.
    fn is_closed(connection: &C) -> bool;

    /// Asks the server over this connection whether it still answers: one round trip.
    ///
    /// # Errors
    ///
    /// Whichever it is, the router closes the connection and asks for another one.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: the router bounds it, and closes the connection of one that it drops.
    fn probe(connection: &C) -> impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send;

    /// The condition in which the connection comes back. Asks nobody; by default it is not known, and it is lent again.
    fn condition(_connection: &C) -> Condition {
        Condition::Unknown
    }

    /// The tap of the connection, where it has one. By default it has none.
    fn tap(_connection: &C) -> Option<Tap> {
        None
    }

    /// Waits until nothing is under way on a busy connection any more, as [`Backend::settled`](super::Backend::settled) does. By default the
    /// tap is asked.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: the router bounds it.
    fn settled(connection: &C) -> impl Future<Output = Condition> + Send {
        let (tap, condition) = (Self::tap(connection), Self::condition(connection));
        async move {
            match tap {
                Some(tap) => tap.settled().await,
                None => condition,
            }
        }
    }

    /// Runs SQL as one simple query, as [`Backend::execute`](super::Backend::execute) does. By default it cannot; then
    /// [`Alias::write`](crate::Alias::write) refuses.
    ///
    /// # Errors
    ///
    /// The driver's own, so that its fault can be told.
    ///
    /// # Cancel safety
    ///
    /// None: what was begun goes on.
    fn execute(
        _connection: &C,
        _sql: &str,
    ) -> impl Future<Output = Result<FirstRow, Box<dyn Error + Send + Sync>>> + Send {
        async { Err(CannotExecute.into()) }
    }
}

/// A back end that was not taught to run SQL by itself.
#[derive(Debug)]
pub(super) struct CannotExecute;

impl fmt::Display for CannotExecute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this back end cannot begin a transaction: implement `execute` for it")
    }
}

impl Error for CannotExecute {}

/// Runs SQL as one simple query of the driver's.
pub(super) async fn execute(
    client: &tokio_postgres::Client,
    sql: &str,
) -> Result<FirstRow, Box<dyn Error + Send + Sync>> {
    let messages = client.simple_query(sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let columns = |row: &tokio_postgres::SimpleQueryRow| {
        (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()
    };
    Ok(row.map(columns).unwrap_or_default())
}

/// Knows the connections that are tokio-postgres clients, bare or wrapped.
#[derive(Debug, Clone, Copy)]
pub enum Driver {}

impl Probe<tokio_postgres::Client> for Driver {
    fn is_closed(client: &tokio_postgres::Client) -> bool {
        client.is_closed()
    }

    async fn probe(client: &tokio_postgres::Client) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(client.check_connection().await?)
    }

    async fn execute(client: &tokio_postgres::Client, sql: &str) -> Result<FirstRow, Box<dyn Error + Send + Sync>> {
        execute(client, sql).await
    }
}
