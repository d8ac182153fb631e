//! libpq's parameters, password file and passwords: each parameter of the manual works or is refused by name.
#![cfg(all(unix, feature = "tls"))]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use pgdetour::config::{AliasKind, Config, ConfigError, Role, ServerConfig};
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};

const PASSWORD: &str = "s3cr3t-w0rd";

/// Every parameter of the manual's "Parameter Key Words": a value that is taken, and one that is refused.
const PARAMETERS: &[(&str, Option<&str>, Option<&str>)] = &[
    ("host", Some("db1"), Some("a,b")),
    ("hostaddr", Some("10.0.0.1"), Some("db1")),
    ("port", Some("5433"), Some("0")),
    ("dbname", Some("app"), None),
    ("user", Some("app"), None),
    ("password", Some("x"), None),
    ("passfile", None, Some("/nonexistent")),
    ("require_auth", None, Some("scram-sha-256")),
    ("channel_binding", Some("require"), Some("maybe")),
    ("connect_timeout", Some("3"), Some("0")),
    ("client_encoding", Some("UTF8"), Some("LATIN1")),
    ("options", Some("-c geqo=off"), None),
    ("application_name", Some("shop"), None),
    ("fallback_application_name", Some("shop"), None),
    ("keepalives", Some("0"), Some("2")),
    ("keepalives_idle", Some("7"), Some("soon")),
    ("keepalives_interval", Some("7"), Some("soon")),
    ("keepalives_count", Some("7"), Some("many")),
    ("tcp_user_timeout", Some("7000"), Some("soon")),
    ("replication", Some("false"), Some("database")),
    ("gssencmode", Some("prefer"), Some("require")),
    ("sslmode", Some("verify-full"), Some("prefer")),
    ("requiressl", None, Some("1")),
    ("sslnegotiation", Some("direct"), Some("indirect")),
    ("sslcompression", Some("0"), Some("1")),
    ("sslcert", None, Some("a.crt")),
    ("sslkey", None, Some("a.key")),
    ("sslkeylogfile", None, Some("keys.log")),
    ("sslpassword", None, Some("x")),
    ("sslcertmode", Some("disable"), Some("require")),
    ("sslrootcert", Some("system"), Some("/nonexistent")),
    ("sslcrl", None, Some("a.crl")),
    ("sslcrldir", None, Some("crl")),
    ("sslsni", Some("1"), Some("0")),
    ("requirepeer", None, Some("postgres")),
    ("ssl_min_protocol_version", Some("TLSv1.2"), Some("TLSv1.3")),
    ("ssl_max_protocol_version", Some("TLSv1.3"), Some("TLSv1.2")),
    ("min_protocol_version", Some("3.0"), Some("3.2")),
    ("max_protocol_version", Some("latest"), Some("2.0")),
    ("krbsrvname", Some("postgres"), Some("pg")),
    ("gsslib", Some("gssapi"), Some("sspi")),
    ("gssdelegation", Some("0"), Some("1")),
    ("scram_client_key", None, Some("x")),
    ("scram_server_key", None, Some("x")),
    ("service", None, Some("shop")),
    ("servicefile", None, Some("pg_service.conf")),
    ("target_session_attrs", Some("any"), Some("prefer-standby")),
    ("load_balance_hosts", Some("disable"), Some("random")),
    ("oauth_issuer", None, Some("x")),
    ("oauth_client_id", None, Some("x")),
    ("oauth_client_secret", None, Some("x")),
    ("oauth_scope", None, Some("x")),
];

fn built(url: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::builder().server("primary", Role::Primary, url).environment(environment.iter().copied()).build()
}

fn server(config: &Config) -> &ServerConfig {
    match &config.aliases()[0].kind {
        AliasKind::Server(server) => server,
        other => panic!("{other:?}"),
    }
}

fn password(config: &Config) -> Option<&str> {
    server(config).target.postgres.get_password().map(|password| std::str::from_utf8(password).expect("UTF-8"))
}

fn secret_file(directory: &Path, name: &str, text: &str, mode: u32) -> String {
    let path = directory.join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its rights");
    path.display().to_string()
}

#[test]
fn each_parameter_works_or_is_refused_by_name() {
    for (name, taken, refused) in PARAMETERS {
        if let Some(value) = taken {
            let told = built(&format!("host=db1 user=app {name}='{value}'"), &[]).map(drop);
            assert_eq!(told, Ok(()), "{name}={value}");
        }
        if let Some(value) = refused {
            let error = built(&format!("host=db1 user=app {name}='{value}'"), &[]).expect_err(name).to_string();
            let says = match *name {
                "host" => "several hosts",
                name => name,
            };
            assert!(error.contains(says), "{name}={value}: {error}");
            assert!(error.contains("; "), "{name}={value} has no remedy: {error}");
        }
    }
}

#[test]
fn an_empty_value_is_the_default() {
    for (name, ..) in PARAMETERS.iter().filter(|(name, ..)| *name != "host") {
        let told = built(&format!("host=db1 user=app {name}=''"), &[("USER", "app")]).map(drop);
        assert_eq!(told, Ok(()), "{name}");
    }
}

#[test]
fn parameters_that_work_reach_the_driver() {
    let url = "postgresql://a%40b:p%2Fw@db1:5433/my%20db?hostaddr=10.0.0.7&application_name=shop&options=-c%20geqo%3Doff\
               &channel_binding=require&sslnegotiation=direct&connect_timeout=7&keepalives_idle=4&keepalives_interval=5\
               &keepalives_count=6&tcp_user_timeout=9000&target_session_attrs=read-write";
    let config = built(url, &[]).expect("all of it works");
    let postgres = &server(&config).target.postgres;
    assert_eq!(postgres.get_user(), Some("a@b"));
    assert_eq!(password(&config), Some("p/w"));
    assert_eq!(postgres.get_dbname(), Some("my db"));
    assert_eq!(postgres.get_ports(), [5433]);
    assert_eq!(postgres.get_hostaddrs(), ["10.0.0.7".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!(postgres.get_application_name(), Some("shop"));
    assert_eq!(postgres.get_options(), Some("-c geqo=off"));
    assert_eq!(postgres.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(postgres.get_ssl_negotiation(), SslNegotiation::Direct);
    assert_eq!(postgres.get_ssl_mode(), SslMode::Require);
    assert_eq!(postgres.get_keepalives_idle(), Duration::from_secs(4));
    assert_eq!(postgres.get_keepalives_interval(), Some(Duration::from_secs(5)));
    assert_eq!(postgres.get_keepalives_retries(), Some(6));
    assert_eq!(postgres.get_tcp_user_timeout(), Some(&Duration::from_secs(9)));
    assert_eq!(config.aliases()[0].pool.connect_timeout, Duration::from_secs(7));
    assert_eq!(server(&config).target.address(), "db1:5433/my db");
}

#[test]
fn what_a_url_leaves_out_is_filled_in() {
    let config = built("postgres://localhost", &[("USER", "shop")]).expect("a user from the environment");
    let postgres = &server(&config).target.postgres;
    assert_eq!((postgres.get_user(), postgres.get_dbname()), (Some("shop"), Some("shop")));
    assert_eq!(postgres.get_application_name(), Some("pgdetour:primary"));
    assert_eq!(postgres.get_ssl_mode(), SslMode::Disable);
    assert_eq!(postgres.get_tcp_user_timeout(), Some(&Duration::from_secs(10)));
    assert_eq!(postgres.get_keepalives_idle(), Duration::from_secs(10));
    assert_eq!(postgres.get_keepalives_interval(), Some(Duration::from_secs(3)));
    assert_eq!(postgres.get_keepalives_retries(), Some(3));
    assert_eq!(server(&config).target.address(), "localhost:5432");
}

#[test]
fn the_key_wins_over_the_connect_timeout_of_the_url_and_that_over_the_global_key() {
    let text = |global: &str, alias: &str| {
        format!("{global}\n[alias.primary]\nrole = \"primary\"\nurl = \"host=db1 user=u connect_timeout=7\"\n{alias}\n")
    };
    let timeout = |text: String| Config::from_toml(&text).expect("it holds").aliases()[0].pool.connect_timeout;
    assert_eq!(timeout(text("connect_timeout = \"1s\"", "")), Duration::from_secs(7));
    assert_eq!(timeout(text("", "connect_timeout = \"1s\"")), Duration::from_secs(1));
}

#[test]
fn a_password_file_is_read_without_its_last_newline() {
    let directory = tempfile::tempdir().expect("a directory");
    for (mode, warnings) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
        let path = secret_file(directory.path(), "password", &format!("{PASSWORD}\n"), mode);
        let text =
            format!("[alias.primary]\nrole = \"primary\"\nurl = \"postgres://u@db1\"\npassword_file = \"{path}\"\n");
        let config = Config::from_toml(&text).expect("it holds");
        assert_eq!(password(&config), Some(PASSWORD));
        assert_eq!(config.warnings().len(), warnings, "{mode:o}: {:?}", config.warnings());
    }
}

#[test]
fn a_password_is_looked_up_in_libpq_s_places() {
    let directory = tempfile::tempdir().expect("a directory");
    let home = directory.path().display().to_string();
    secret_file(directory.path(), ".pgpass", "db9:*:*:*:wrong\ndb1:5432:app:u:from-home\n", 0o600);
    let named = secret_file(directory.path(), "named", "db1:*:*:*:from-variable\n", 0o600);
    let in_url = secret_file(directory.path(), "in-url", "db1:*:*:*:from-url\n", 0o600);
    let url = "postgres://u@db1/app";
    let look = |url: &str, environment: &[(&str, &str)]| {
        password(&built(url, environment).expect("it holds")).map(str::to_owned)
    };
    assert_eq!(look(url, &[]), None);
    assert_eq!(look(url, &[("HOME", &home)]).as_deref(), Some("from-home"));
    assert_eq!(look(url, &[("HOME", &home), ("PGPASSFILE", &named)]).as_deref(), Some("from-variable"));
    let url = format!("{url}?passfile={in_url}");
    assert_eq!(look(&url, &[("HOME", &home), ("PGPASSFILE", &named)]).as_deref(), Some("from-url"));
    assert_eq!(look("postgres://u:own@db1/app", &[("HOME", &home)]).as_deref(), Some("own"));
    assert_eq!(look("postgres://u@db1/other", &[("HOME", &home)]), None);
}

#[test]
fn a_pgpass_that_others_can_read_is_ignored_with_a_warning() {
    let directory = tempfile::tempdir().expect("a directory");
    let home = directory.path().display().to_string();
    secret_file(directory.path(), ".pgpass", &format!("*:*:*:*:{PASSWORD}\n"), 0o640);
    let config = built("postgres://u@db1/app", &[("HOME", &home)]).expect("it holds");
    assert_eq!(password(&config), None);
    assert!(config.warnings()[0].to_string().contains("is ignored, as libpq does; run `chmod 600"));
}

#[test]
fn no_debug_shows_a_password_or_a_user() {
    let builder = Config::builder()
        .server("primary", Role::Primary, format!("postgres://the-user:{PASSWORD}@db1"))
        .server("replica", Role::Replica, "postgres://the-user@db2")
        .password("replica", PASSWORD)
        .environment([("HOME", "/nonexistent"), ("PGPASSWORD", PASSWORD)]);
    let told = format!("{builder:?}");
    let config = builder.build().expect("it holds");
    assert_eq!(password(&config), Some(PASSWORD));
    let told = format!("{told} {config:?} {:?}", config.aliases()[1]);
    assert!(!told.contains(PASSWORD) && !told.contains("the-user"), "{told}");
}

proptest::proptest! {
    /// A password with anything in it, encoded or not, in a URL or in pairs: it arrives or is refused, and is shown nowhere.
    #[test]
    fn no_piece_of_a_password_is_ever_shown(
        pieces in proptest::collection::vec(proptest::sample::select(&[
            "ZQX", "1", "/", "?", "#", "@", ":", "%", "%4", "&", "=", " ", "'", "\\", ",", "[", "]", "x=", "a=b", "é",
        ][..]), 1..8),
        pairs: bool,
    ) {
        let password = pieces.concat() + "ZQX";
        let url = if pairs { format!("host=db1 password={password} user=u") } else { format!("postgres://u:{password}@db1/app") };
        let told = match built(&url, &[]) {
            Err(error) => format!("{error} {error:?}"),
            Ok(config) => format!("{config:?} {}", server(&config).target.address()),
        };
        proptest::prop_assert!(!told.contains("ZQX"), "{told}");
    }
}
