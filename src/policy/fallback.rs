//! Is an old value better than this error? Only where it is not the caller's own.

use super::classify::{Class, Fault};

/// Whether a read whose work failed so may be answered with less than the live value: a server's fault or change of role, an overload,
/// lateness, a conflict with replay, or what this process lacks. What the application did wrong would be wrong tomorrow too, and so
/// would a refused login.
#[must_use]
pub fn excuses(fault: Fault) -> bool {
    match (fault, fault.class()) {
        // Cancelled: by a `statement_timeout`, most often.
        (Fault::Reported { sqlstate, .. }, Class::Application) => sqlstate.as_str() == "57014",
        (_, Class::Hard | Class::Soft | Class::Overload | Class::Role | Class::Local | Class::Conflict) => true,
        (_, Class::Config | Class::Application) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::classify::{Network, Severity, Sqlstate},
        *,
    };

    #[test]
    fn a_servers_fault_an_overload_and_lateness_are_excused_and_the_callers_own_mistakes_are_not() {
        let error = |code| Fault::Reported { sqlstate: Sqlstate::parse(code).unwrap(), severity: Severity::Error };
        let fatal = |code| Fault::Reported { sqlstate: Sqlstate::parse(code).unwrap(), severity: Severity::Fatal };
        let excused = [
            fatal("57P01"),
            fatal("57P03"),
            error("53300"),
            error("53100"),
            error("57014"),
            Fault::Replay,
            Fault::Closed,
            Fault::Late,
            Fault::PoolFull,
            Fault::Resource,
            Fault::Connect(Network::Refused),
            Fault::Session(Network::Broken),
        ];
        let own = [error("42P01"), error("23505"), error("22012"), error("40001"), fatal("28P01")];
        let own = own.into_iter().chain([Fault::Misuse, Fault::Unknown, Fault::Tls, Fault::Settings]);
        assert_eq!(excused.into_iter().filter(|fault| !excuses(*fault)).collect::<Vec<_>>(), []);
        assert_eq!(own.filter(|fault| excuses(*fault)).collect::<Vec<_>>(), []);
    }
}
