//! In what condition is a connection between two users, and how did it end?

/// The condition of a connection between two users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Idle, outside a transaction, and nothing is under way: it may be lent.
    Clean,
    /// Clean, but the session remembers its last user, and its pool wants that forgotten first: `session_reset`.
    Used,
    /// Something is under way or waits to be sent. It may yet become clean: see [`Tap::settled`](super::Tap::settled).
    Busy,
    /// Inside a transaction that nobody will end, out of step with the protocol, or older than `max_lifetime`: it must not be
    /// lent again.
    Dirty,
    /// Nothing passes the tap: several hosts of which some are Unix sockets, or a pool of your own. Ask the server.
    Unknown,
}

/// Whether a session is inside a transaction, as the server said with its last reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// It is not.
    None,
    /// It is.
    Open,
    /// It is inside one that has failed: a COMMIT would roll it back.
    Failed,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending {
    /// The SQLSTATE of the server's last words, if it had any.
    pub sqlstate: Option<String>,
    /// What happened, for people.
    pub cause: String,
}
