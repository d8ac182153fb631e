//! Which errors ask for a ping, where the configuration or the application says otherwise than the table.

use pgdetour::{
    Config,
    config::{ConfigBuilder, OutageErrors, Role},
    policy::{Fault, Network, Severity, Sqlstate},
};

fn config() -> ConfigBuilder {
    Config::builder().server("primary", Role::Primary, "postgres://app@db1/app")
}

fn errors(config: ConfigBuilder) -> OutageErrors {
    config.build().expect("it holds").outage_errors().clone()
}

fn asks(errors: &OutageErrors, code: &str, severity: Severity) -> bool {
    let sqlstate = Sqlstate::parse(code).expect("it is a code");
    errors.ask_for_ping(Fault::Reported { sqlstate, severity })
}

#[test]
fn what_is_extra_asks_for_a_ping_too_by_its_code_or_its_class_and_with_any_severity() {
    let errors = errors(config().extra_outage_errors(["XX000", "55"]));
    for severity in [Severity::Error, Severity::Fatal] {
        for code in ["XX000", "55000", "55P03"] {
            assert!(asks(&errors, code, severity), "{code}");
        }
        assert!(!asks(&errors, "XX001", severity) && !asks(&errors, "23505", severity));
    }
    assert!(asks(&errors, "57P01", Severity::Fatal) && !asks(&errors, "57P01", Severity::Error));
}

#[test]
fn only_takes_the_place_of_the_table_for_what_a_server_reports_and_not_for_the_network() {
    let errors = errors(config().only_outage_errors(["57P01"]).extra_outage_errors(["58"]));
    for code in ["57P01", "58000"] {
        assert!(asks(&errors, code, Severity::Fatal), "{code}");
    }
    for code in ["57P02", "57P03", "08006", "25006"] {
        assert!(!asks(&errors, code, Severity::Fatal), "{code}");
    }
    for fault in [Fault::Connect(Network::Refused), Fault::Session(Network::TimedOut), Fault::Closed] {
        assert!(errors.ask_for_ping(fault), "{fault:?}");
    }
    assert!(!errors.ask_for_ping(Fault::PoolFull));
}

#[test]
fn an_extra_code_asks_for_a_ping_and_fails_none() {
    let errors = errors(config().extra_outage_errors(["53"]));
    let full = Fault::Reported { sqlstate: Sqlstate::parse("53300").expect("it is a code"), severity: Severity::Fatal };
    assert!(errors.ask_for_ping(full) && !full.class().fails_ping());
}
