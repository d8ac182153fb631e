//! What went wrong, read out of the driver's errors for the policy to judge.

use std::{error::Error, io, iter::successors};

use tokio_postgres::error::{DbError, Severity as Told, SqlState};

use super::{AcquireError, AcquireErrorKind, ConnectFailure, TlsError};
use crate::{
    health::Cause,
    policy::{Fault, Network, Severity, Sqlstate},
};

/// So far is a chain of sources followed: one that leads back to itself must not hang whoever looks.
pub(crate) const LINKS: usize = 64;

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| Error::source(*error)).take(LINKS)
}

impl Fault {
    /// The fault in an error: in the first of its chain of sources that is one of the driver, a pool or a socket.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        for error in sources(error) {
            match error.downcast_ref::<AcquireError>().map(AcquireError::kind) {
                Some(AcquireErrorKind::Exhausted) => return Self::PoolFull,
                Some(AcquireErrorKind::Closed) => return Self::PoolClosed,
                Some(AcquireErrorKind::Connect) | None => {}
            }
            if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
                return driver(error);
            }
            if let Some(error) = error.downcast_ref::<DbError>() {
                return reported(error);
            }
            #[cfg(feature = "diesel")]
            if let Some(fault) = in_diesel(error) {
                return fault;
            }
            #[cfg(feature = "sqlx")]
            if let Some(error) = error.downcast_ref::<sqlx::Error>() {
                return in_sqlx(error);
            }
            if let Some(failure) = error.downcast_ref::<ConnectFailure>() {
                return Self::of_connect(*failure);
            }
            if error.is::<TlsError>() {
                return Self::Tls;
            }
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return connecting(error);
            }
        }
        Self::Unknown
    }

    fn of_connect(failure: ConnectFailure) -> Self {
        match failure {
            ConnectFailure::TimedOut { .. } => Self::Late,
            ConnectFailure::Crowded { .. } => Self::PoolFull,
            ConnectFailure::NotAdmitted => Self::NotAdmitted,
            ConnectFailure::Closed => Self::PoolClosed,
        }
    }
}

/// Why some work failed, in words that hold none of its SQL and values: of what the server reports the code alone, of what the
/// driver finds its own text; `ending` is what the session ended with.
pub(crate) fn cause_of(error: &(dyn Error + 'static), ending: Option<&str>) -> Cause {
    for error in sources(error) {
        if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
            return match (error.as_db_error(), ending) {
                (Some(error), _) => cause_reported(error),
                (None, Some(ending)) if error.is_closed() => Cause::new(format!("connection closed: {ending}")),
                (None, _) if error.source().is_some_and(|source| source.is::<io::Error>()) => Cause::of(error),
                (None, _) => Cause::new(error.to_string()),
            };
        }
        if let Some(error) = error.downcast_ref::<DbError>() {
            return cause_reported(error);
        }
        #[cfg(feature = "sqlx")]
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            return cause_in_sqlx(error);
        }
        #[cfg(feature = "diesel")]
        if let Some(fault) = in_diesel(error) {
            return match (fault, ending) {
                (Fault::Reported { sqlstate, severity: _ }, _) => Cause::new(format!("ERROR {}", sqlstate.as_str())),
                (Fault::Closed, Some(ending)) => Cause::new(format!("connection closed: {ending}")),
                (Fault::Closed, None) => Cause::new("connection closed"),
                _ => Cause::new("an error of the driver's"),
            };
        }
        if error.is::<AcquireError>()
            || error.is::<ConnectFailure>()
            || error.is::<TlsError>()
            || error.is::<io::Error>()
        {
            return Cause::of(error);
        }
    }
    Cause::new("an error of the work's own")
}

fn cause_reported(error: &DbError) -> Cause {
    Cause::new(format!("{} {}", error.severity(), error.code().code()))
}

/// The driver tells the kind of its errors by their text alone. The text is its own, so it is never translated.
fn driver(error: &tokio_postgres::Error) -> Fault {
    if let Some(error) = error.as_db_error() {
        return reported(error);
    }
    if let Some(failure) = ConnectFailure::under(error) {
        return Fault::of_connect(failure);
    }
    let socket = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match (error.to_string().as_str(), socket) {
        ("error connecting to server", Some(socket)) => connecting(socket),
        ("error communicating with the server", Some(socket)) => in_session(socket),
        // A socket that breaks in the handshake; a certificate that is refused comes as `InvalidData`.
        ("error performing TLS handshake", Some(socket)) if socket.kind() != io::ErrorKind::InvalidData => {
            in_session(socket)
        }
        (text, _) => by_text(text),
    }
}

fn by_text(text: &str) -> Fault {
    match text {
        "connection closed" | "error connecting to server" | "error communicating with the server" => Fault::Closed,
        "timeout waiting for server" => Fault::Late,
        "error performing TLS handshake" => Fault::Tls,
        "unexpected message from server" | "error parsing response from server" => Fault::Garbled,
        "authentication error" => Fault::Login,
        "invalid connection string" | "invalid configuration" => Fault::Settings,
        _ => Fault::Misuse,
    }
}

fn reported(error: &DbError) -> Fault {
    let ends_session = match error.parsed_severity() {
        Some(severity) => matches!(severity, Told::Fatal | Told::Panic),
        // A proxy may leave the untranslated severity out; what it invents itself is in English.
        None => matches!(error.severity(), "FATAL" | "PANIC"),
    };
    told(error.code().code(), ends_session, error.routine())
}

/// By the code, whether the session has ended with it, and the place in the server that reports it.
fn told(code: &str, ends_session: bool, routine: Option<&str>) -> Fault {
    // The text of a conflict is translated, the place in the server that reports it is not.
    let by_replay = matches!(routine, Some("ProcessInterrupts" | "ProcessRecoveryConflictInterrupt"));
    if code == SqlState::T_R_SERIALIZATION_FAILURE.code() && by_replay {
        return Fault::Replay;
    }
    if code == SqlState::FEATURE_NOT_SUPPORTED.code() {
        match routine {
            Some("RevalidateCachedQuery") => return Fault::StalePlan,
            Some("GetSerializableTransactionSnapshot" | "call_bool_check_hook" | "call_enum_check_hook") => {
                return Fault::NotOnReplica;
            }
            Some(_) | None => {}
        }
    }
    match Sqlstate::parse(code) {
        Some(sqlstate) => {
            let severity = if ends_session { Severity::Fatal } else { Severity::Error };
            Fault::Reported { sqlstate, severity }
        }
        None => Fault::Garbled,
    }
}

/// Diesel keeps of what the server reports a kind, and none for most codes; of what the driver finds the text alone.
#[cfg(feature = "diesel")]
fn in_diesel(error: &(dyn Error + 'static)) -> Option<Fault> {
    use diesel::{
        ConnectionError,
        result::{DatabaseErrorKind as Kind, Error as Told},
    };
    if let Some(ConnectionError::CouldntSetupConfiguration(error)) = error.downcast_ref() {
        return in_diesel(error);
    }
    let code = match error.downcast_ref::<Told>()? {
        Told::DatabaseError(Kind::ClosedConnection, _) => return Some(Fault::Closed),
        Told::DatabaseError(Kind::UnableToSendCommand, told) => return Some(by_text(told.message())),
        Told::DatabaseError(Kind::SerializationFailure, _) => "40001",
        Told::DatabaseError(Kind::ReadOnlyTransaction, _) => "25006",
        _ => return None,
    };
    Sqlstate::parse(code).map(|sqlstate| Fault::Reported { sqlstate, severity: Severity::Error })
}

/// sqlx says of a broken socket no more than of a connect that failed.
#[cfg(feature = "sqlx")]
fn in_sqlx(error: &sqlx::Error) -> Fault {
    use io::ErrorKind as Kind;
    use sqlx::Error as Told;
    match error {
        Told::Database(error) => match error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
            Some(error) => {
                let fatal =
                    matches!(error.severity(), sqlx::postgres::PgSeverity::Fatal | sqlx::postgres::PgSeverity::Panic);
                told(error.code(), fatal, error.routine())
            }
            None => Fault::Unknown,
        },
        Told::Io(error) => match error.get_ref().map_or(Fault::Unknown, |inner| Fault::of(inner)) {
            Fault::Unknown => match error.kind() {
                Kind::UnexpectedEof => Fault::Closed,
                Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::TimedOut => {
                    in_session(error)
                }
                _ => connecting(error),
            },
            // The router's own, where an alias stands for a pool.
            fault => fault,
        },
        Told::Tls(_) => Fault::Tls,
        Told::Protocol(_) => Fault::Garbled,
        Told::Configuration(_) => Fault::Settings,
        Told::PoolTimedOut => Fault::PoolFull,
        Told::PoolClosed => Fault::PoolClosed,
        Told::WorkerCrashed => Fault::Closed,
        _ => Fault::Misuse,
    }
}

/// What the server reports by its code alone, and of what sqlx finds no more than the kind: its text may hold values.
#[cfg(feature = "sqlx")]
fn cause_in_sqlx(error: &sqlx::Error) -> Cause {
    use sqlx::{Error as Told, postgres::PgDatabaseError};
    match error {
        Told::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => Cause::new(format!("{:?} {}", error.severity(), error.code()).to_uppercase()),
            None => Cause::new("an error of the server's"),
        },
        Told::Io(_) | Told::Tls(_) => Cause::of(error),
        _ => Cause::new("an error of sqlx's"),
    }
}

fn connecting(error: &io::Error) -> Fault {
    use io::ErrorKind as Kind;
    match (error.kind(), error.raw_os_error()) {
        (_, Some(code)) if is_shortage(code) => Fault::Resource,
        (Kind::AddrNotAvailable, _) => Fault::Resource,
        // From the driver itself and not from a system call.
        (Kind::PermissionDenied, None) => Fault::WrongRole,
        (Kind::InvalidInput, None) => Fault::Settings,
        (Kind::ConnectionRefused, _) => Fault::Connect(Network::Refused),
        // EACCES is a prohibited route and EINVAL a black-holed one.
        (Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::PermissionDenied | Kind::InvalidInput, _) => {
            Fault::Connect(Network::Unreachable)
        }
        (Kind::TimedOut, _) => Fault::Connect(Network::TimedOut),
        // The standard library gives a failed `getaddrinfo` neither kind nor code.
        (_, None) if error.to_string().contains("lookup address") => Fault::Lookup,
        _ => Fault::Connect(Network::Broken),
    }
}

fn in_session(error: &io::Error) -> Fault {
    use io::ErrorKind as Kind;
    match (error.kind(), error.raw_os_error()) {
        (_, Some(code)) if is_shortage(code) => Fault::Resource,
        (Kind::InvalidData, _) => Fault::Garbled,
        (Kind::TimedOut, _) => Fault::Session(Network::TimedOut),
        (Kind::HostUnreachable | Kind::NetworkUnreachable, _) => Fault::Session(Network::Unreachable),
        (Kind::ConnectionRefused, _) => Fault::Session(Network::Refused),
        _ => Fault::Session(Network::Broken),
    }
}

/// Whether a connect or a session failed for want of something in this process: it tells nothing of whoever is at the other end.
pub(crate) fn is_own_shortage(error: &io::Error) -> bool {
    matches!(connecting(error), Fault::Resource)
}

/// ENFILE, EMFILE and ENOBUFS, for which the standard library has no stable names.
fn is_shortage(os: i32) -> bool {
    let no_buffers = if cfg!(target_os = "linux") { 105 } else { 55 };
    os == 23 || os == 24 || os == no_buffers
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };
    use tokio_postgres::{Config, NoTls};

    use super::*;
    use crate::policy::Class;

    fn config(port: u16) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user("app");
        config
    }

    /// What a connect finds where `answer` is all that is ever said.
    async fn fault_of_answer(answer: &'static [u8]) -> Fault {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.readable().await.unwrap();
            let _ = socket.try_read(&mut [0; 1024]);
            socket.write_all(answer).await.unwrap();
        };
        let config = config(port);
        let (outcome, ()) = tokio::join!(config.connect(NoTls), serve);
        Fault::of(&outcome.err().unwrap())
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = config(port).connect(NoTls).await.err().unwrap();
        assert_eq!(Fault::of(&error), Fault::Connect(Network::Refused));
        let wrapped = AcquireError::new(AcquireErrorKind::Connect, error);
        assert_eq!(Fault::of(&wrapped), Fault::Connect(Network::Refused));
    }

    #[tokio::test]
    async fn a_socket_error_outside_of_the_driver_is_read_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(Fault::of(&error), Fault::Connect(Network::Refused));
    }

    #[tokio::test]
    async fn a_listener_that_hangs_up_speaks_softly_against_the_server() {
        assert_eq!(fault_of_answer(b"").await, Fault::Closed);
    }

    #[tokio::test]
    async fn an_answer_in_another_protocol_is_garbled_or_broken_and_fails_a_ping() {
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"Z\0\0\0\x05I", b"R\0\0\0\x01"] {
            let fault = fault_of_answer(answer).await;
            assert!(fault.class().fails_ping(), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_at_login_is_read_with_code_and_severity() {
        let starting = b"E\0\0\0\x35SFATAL\0VFATAL\0C57P03\0Mthe system is starting up\0\0";
        let fault = fault_of_answer(starting).await;
        let sqlstate = Sqlstate::parse("57P03").unwrap();
        assert_eq!(fault, Fault::Reported { sqlstate, severity: Severity::Fatal });
    }

    #[tokio::test]
    async fn a_connect_that_was_not_tried_is_no_evidence_and_a_late_one_is() {
        let of = async |failure: ConnectFailure| Fault::of(&failure.into_driver_error().await);
        assert_eq!(of(ConnectFailure::NotAdmitted).await.class(), Class::Local);
        assert_eq!(of(ConnectFailure::Closed).await.class(), Class::Local);
        assert_eq!(of(ConnectFailure::TimedOut { after: std::time::Duration::ZERO }).await, Fault::Late);
    }

    #[tokio::test]
    async fn what_the_driver_refuses_is_a_setting() {
        let error = Config::new().connect(NoTls).await.err().unwrap();
        assert_eq!(Fault::of(&error), Fault::Settings);
        let error = "nonsense".parse::<Config>().unwrap_err();
        assert_eq!(Fault::of(&error), Fault::Settings);
    }

    #[test]
    fn errors_of_a_connect_are_told_apart_by_kind_and_code() {
        let lookup = io::Error::other("failed to lookup address information: Name or service not known");
        let cases = [
            (io::Error::from_raw_os_error(24), Fault::Resource),
            (io::Error::from_raw_os_error(23), Fault::Resource),
            (io::ErrorKind::AddrNotAvailable.into(), Fault::Resource),
            (io::Error::from_raw_os_error(13), Fault::Connect(Network::Unreachable)),
            (io::Error::from_raw_os_error(22), Fault::Connect(Network::Unreachable)),
            (io::ErrorKind::HostUnreachable.into(), Fault::Connect(Network::Unreachable)),
            (io::ErrorKind::NetworkUnreachable.into(), Fault::Connect(Network::Unreachable)),
            (io::ErrorKind::PermissionDenied.into(), Fault::WrongRole),
            (io::ErrorKind::InvalidInput.into(), Fault::Settings),
            (io::ErrorKind::TimedOut.into(), Fault::Connect(Network::TimedOut)),
            (io::ErrorKind::ConnectionReset.into(), Fault::Connect(Network::Broken)),
            (lookup, Fault::Lookup),
        ];
        for (error, fault) in cases {
            assert_eq!(connecting(&error), fault, "{error}");
        }
    }

    #[test]
    fn a_full_pool_is_overload_and_a_closed_one_is_ours() {
        let full = AcquireError::new(AcquireErrorKind::Exhausted, "full");
        assert_eq!(Fault::of(&full).class(), Class::Overload);
        let closed = AcquireError::new(AcquireErrorKind::Closed, "closed");
        assert_eq!(Fault::of(&closed).class(), Class::Local);
    }
}
