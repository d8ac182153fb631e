//! The table of faults: what each one says about the server.

use std::fmt;

/// Something that went wrong, as the driver, the socket or the pool told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The server answered with an error.
    Reported {
        /// Which.
        sqlstate: Sqlstate,
        /// Whether it ended the session too.
        severity: Severity,
    },
    /// A replica cancelled the statement, since replaying the primary's writes needed it gone.
    Replay,
    /// A replica cannot do this at all and a primary can: a serializable transaction, one that is declared to write.
    NotOnReplica,
    /// What was prepared fits the tables no more: "cached plan must not change result type".
    StalePlan,
    /// No connection could be made.
    Connect(Network),
    /// A session was lost to its socket.
    Session(Network),
    /// A session ended without a word why, or after no more than a notice: 57P01 of an immediate shutdown, 57P02 of a crash. An
    /// application can raise those too, so they are for people, and the end alone counts.
    Closed,
    /// A deadline of ours passed.
    Late,
    /// The host's name could not be resolved.
    Lookup,
    /// What came was not PostgreSQL's protocol.
    Garbled,
    /// The server is not of the role the URL's `target_session_attrs` asks for.
    WrongRole,
    /// No encrypted connection could be agreed on.
    Tls,
    /// The login failed on our side: a password is missing, or the server asks for a method that is not supported.
    Login,
    /// The driver refuses its settings.
    Settings,
    /// This process ran out of file handles, ports or buffers.
    Resource,
    /// It is already known that the server does not serve, so nobody was asked.
    NotAdmitted,
    /// The pool is full and nothing came back in time.
    PoolFull,
    /// The pool is closed.
    PoolClosed,
    /// The statement was used wrongly: parameters, columns, types, number of rows.
    Misuse,
    /// An error of which nothing is known.
    Unknown,
}

/// What happened to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Nobody listens there.
    Refused,
    /// There is no way there: host or network unreachable, route prohibited or black-holed.
    Unreachable,
    /// The kernel gave up waiting.
    TimedOut,
    /// Anything else: reset, aborted, broken pipe.
    Broken,
}

/// The five characters by which PostgreSQL names an error (manual, appendix A).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sqlstate([u8; 5]);

/// Whether a session survived the error it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// `ERROR`: the session goes on. An application can raise any SQLSTATE so.
    Error,
    /// `FATAL` or `PANIC`: the session has ended. Only the server says so.
    Fatal,
}

/// Against whom a fault speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Strong evidence that the server does not serve.
    Hard,
    /// Evidence that something is wrong with the server or on the way to it.
    Soft,
    /// The server answers, but has no room: failing over would move the load and not lessen it.
    Overload,
    /// The server may have changed its role.
    Role,
    /// A setting, login or certificate is wrong: another ping will find the same.
    Config,
    /// This process lacks something, or did not try; the server has nothing to do with it.
    Local,
    /// A replica preferred replaying to this statement; it is well, and so is the statement elsewhere.
    Conflict,
    /// The application's own affair.
    Application,
}

impl Fault {
    /// Whose fault it is.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Reported { sqlstate, severity } => reported(sqlstate, severity),
            Self::Replay => Class::Conflict,
            Self::Connect(Network::Refused | Network::Unreachable) | Self::Session(Network::TimedOut) => Class::Hard,
            Self::Connect(Network::TimedOut | Network::Broken) => Class::Soft,
            Self::Session(Network::Refused | Network::Unreachable | Network::Broken) => Class::Soft,
            Self::Closed | Self::Late | Self::Lookup | Self::Garbled => Class::Soft,
            Self::WrongRole => Class::Role,
            Self::Tls | Self::Login | Self::Settings => Class::Config,
            Self::Resource | Self::NotAdmitted | Self::PoolClosed => Class::Local,
            Self::PoolFull => Class::Overload,
            Self::NotOnReplica | Self::StalePlan | Self::Misuse | Self::Unknown => Class::Application,
        }
    }
}

impl Class {
    /// Whether a session or lease that saw this asks for a ping. It can do no more: no application's error opens an outage.
    #[must_use]
    pub const fn asks_for_ping(self) -> bool {
        match self {
            Self::Hard | Self::Soft | Self::Role => true,
            Self::Overload | Self::Config | Self::Local | Self::Conflict | Self::Application => false,
        }
    }

    /// Whether a ping that ended so is one that failed. Otherwise it is inconclusive: the server answered, or the fault is ours.
    #[must_use]
    pub const fn fails_ping(self) -> bool {
        match self {
            Self::Hard | Self::Soft => true,
            Self::Overload | Self::Role | Self::Config | Self::Local | Self::Conflict | Self::Application => false,
        }
    }
}

/// The table for what a server reports. By the whole code first, then by its class, which is the first two characters.
fn reported(sqlstate: Sqlstate, severity: Severity) -> Class {
    let code = sqlstate.as_str();
    match (code, severity) {
        // postgres_fdw and dblink report the state of *their* server so, and a wrong number of parameters is 08P01.
        _ if code.starts_with("08") && severity == Severity::Error => Class::Application,
        // What became of a transaction is unknown; about the server it says nothing.
        ("08007" | "40003", _) => Class::Application,
        _ if code.starts_with("08") => Class::Soft,
        ("57P02" | "57P03", Severity::Fatal) => Class::Hard,
        ("57P01", Severity::Fatal) => Class::Soft,
        ("57P04", Severity::Fatal) => Class::Config,
        // A serialisation failure does not end a session; a conflict with replay may.
        ("40001", Severity::Fatal) => Class::Conflict,
        ("25006", _) => Class::Role,
        ("3D000" | "42501", _) => Class::Config,
        _ if code.starts_with("28") => Class::Config,
        _ if code.starts_with("53") => Class::Overload,
        // A file that a statement named (COPY, LOAD) does not exist, or does.
        ("58P01" | "58P02", Severity::Error) => Class::Application,
        _ if code.starts_with("58") || code.starts_with("F0") => Class::Soft,
        _ => Class::Application,
    }
}

impl Sqlstate {
    /// The code, if it is one: five digits and upper-case letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 5] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()).then_some(Self(bytes))
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Sqlstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Sqlstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// The table itself is checked row by row in `tests/policy/`.
#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str) -> Fault {
        Fault::Reported { sqlstate: Sqlstate::parse(code).unwrap(), severity: Severity::Error }
    }

    fn fatal(code: &str) -> Fault {
        Fault::Reported { sqlstate: Sqlstate::parse(code).unwrap(), severity: Severity::Fatal }
    }

    #[test]
    fn what_the_server_answers_or_this_process_lacks_fails_no_ping() {
        let answered = ["53300", "53100", "28000", "28P01", "3D000", "42501", "57014", "40001", "42P01"];
        for fault in answered.map(fatal).into_iter().chain(answered.map(error)) {
            assert!(!fault.class().fails_ping(), "{fault:?}");
        }
        for fault in [Fault::Resource, Fault::Tls, Fault::Login, Fault::Settings, Fault::PoolFull, Fault::PoolClosed] {
            assert!(!fault.class().fails_ping(), "{fault:?}");
        }
    }

    #[test]
    fn what_shows_that_the_server_does_not_serve_fails_a_ping() {
        let gone = [
            Fault::Connect(Network::Refused),
            Fault::Connect(Network::TimedOut),
            Fault::Session(Network::Broken),
            Fault::Closed,
            Fault::Late,
            Fault::Garbled,
        ];
        for fault in gone.into_iter().chain(["57P01", "57P02", "57P03"].map(fatal)) {
            assert!(fault.class().fails_ping(), "{fault:?}");
        }
    }

    #[test]
    fn an_application_cannot_forge_the_end_of_a_server() {
        for code in ["57P01", "57P02", "57P03", "08006", "40001", "57014"] {
            assert!(!error(code).class().asks_for_ping(), "{code}");
        }
    }

    #[test]
    fn a_sqlstate_is_five_digits_or_capitals() {
        assert_eq!(Sqlstate::parse("57P01").map(|code| code.to_string()).as_deref(), Some("57P01"));
        for text in ["", "57P0", "57P011", "57p01", "57P0\n", "57P0é"] {
            assert_eq!(Sqlstate::parse(text), None, "{text:?}");
        }
    }
}
