//! Every mistake in a configuration is told, with its place and what to write instead.
#![cfg(feature = "tls")]

use std::fmt::Write as _;

use pgdetour::config::{Balance, Config, Pings, PoolSettings, Role};

const PASSWORD: &str = "s3cr3t-w0rd";

const PAIR: &str = r#"
[alias.primary]
role = "primary"
url = "postgres://app@db1/app"

[alias.replica]
role = "replica"
url = "postgres://app@db2/app"
"#;

/// Compares with the snapshot of this name.
fn is_as_told_before(name: &str, told: &str) {
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, told) });
}

/// What is wrong with each text, under its title.
fn tell(cases: &[(&str, String)]) -> String {
    let mut told = String::new();
    for (title, text) in cases {
        let error = Config::from_toml(text).expect_err(title);
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{title} tells the password");
        writeln!(told, "# {title}\n{error}\n").expect("a string takes it all");
    }
    told
}

/// The good pair with one line more or another one.
fn with(global: &str, replica: &str) -> String {
    format!("{global}\n{PAIR}{replica}\n")
}

fn replaced(from: &str, to: &str) -> String {
    assert!(PAIR.contains(from), "{from}");
    PAIR.replace(from, to)
}

#[test]
fn keys_and_types() {
    is_as_told_before(
        "keys_and_types",
        &tell(&[
            ("an unknown key of an alias", with("", "failovr = [\"primary\"]")),
            ("an unknown global key", with("monitoring_ping_frequenzy = \"1s\"", "")),
            ("a key that resembles none", with("frobnicate = 1", "")),
            ("a table that is misspelt", PAIR.replace("alias.", "aliases.")),
            ("a key of aliases at the top", with("role = \"primary\"", "")),
            ("a global key in an alias", with("", "pace = \"brisk\"")),
            ("a number where a duration is wanted", with("ping_timeout = 3", "")),
            ("a duration without a unit", with("ping_timeout = \"3\"", "")),
            ("a text where a count is wanted", with("", "max_size = \"ten\"")),
            ("a negative count", with("max_size = -1", "")),
            ("a count with a fraction", with("max_size = 1.5", "")),
            ("a text where a list is wanted", with("", "failover = \"primary\"")),
            ("a list of something else", with("", "failover = [1]")),
            ("an unknown role", replaced("role = \"replica\"", "role = \"replicas\"")),
            ("an unknown pace", with("pace = \"leisurely\"", "")),
            ("an unknown monitoring", with("monitoring = \"ondemand\"", "")),
            ("an unknown balance", with("", "[alias.reads]\nmembers = [\"replica\"]\nbalance = \"round_robin\"")),
            ("a url that is a number", replaced("\"postgres://app@db2/app\"", "5432")),
            ("an alias that is no table", "alias.primary = \"postgres://app@db1/app\"".to_owned()),
            ("aliases as a list", "alias = [1]".to_owned()),
            ("a name that is none", replaced("[alias.replica]", "[alias.Replica_1]")),
        ]),
    );
}

#[test]
fn text_that_is_no_toml() {
    is_as_told_before(
        "text_that_is_no_toml",
        &tell(&[
            ("no value", "ping_timeout =\n".to_owned()),
            ("a bracket that is not closed", format!("\n{PAIR}\n[alias.x\n")),
            ("a key twice", with("", "role = \"replica\"")),
            ("a quote that is not closed", format!("[alias.primary]\nurl = \"postgres://u:{PASSWORD}@db1/app\n")),
            ("no quotes at all", format!("[alias.primary]\nurl = postgres://u:{PASSWORD}@db1/app\n")),
            ("nothing", String::new()),
        ]),
    );
}

#[test]
fn roles_chains_and_groups() {
    const LONER: &str = "[alias.replica]";
    const NO_FAILOVER: &str = "[alias.replica]\nfailover = []";
    const OTHER: &str = "[alias.other]\nrole = \"replica\"\nurl = \"postgres://app@db3/app\"";
    const SERVER_KEYS: &str = "role = \"replica\"\nurl = \"host=db3\"\npassword_file = \"x\"\nping_timeout = \"1s\"";
    let group = |keys: &str| with("", &format!("[alias.reads]\n{keys}"));
    let circle =
        "members = [\"replica\"]\nfailover = [\"more\"]\n[alias.more]\nmembers = [\"replica\"]\nfailover = [\"reads\"]";
    is_as_told_before(
        "roles_chains_and_groups",
        &tell(&[
            ("no primary", replaced("\"primary\"", "\"replica\"")),
            ("no role", replaced("role = \"replica\"\n", "")),
            ("no url", replaced("url = \"postgres://app@db2/app\"\n", "")),
            ("an unknown alias in failover", with("", "failover = [\"primry\"]")),
            ("an alias that resembles none", with("", "failover = [\"somewhere\"]")),
            ("a target twice", with("", "failover = [\"primary\", \"primary\"]")),
            ("an alias that fails over to itself", with("", "failover = [\"replica\", \"primary\"]")),
            ("a circle of aliases for the same servers", group(circle).replace(LONER, NO_FAILOVER)),
            (
                "a chain that ends nowhere",
                group("members = [\"replica\"]\nfailover = [\"replica\"]").replace(LONER, NO_FAILOVER),
            ),
            ("several primaries and no word which", with("", &OTHER.replace("replica", "primary"))),
            ("an unknown member", group("members = [\"replicas\"]")),
            ("a member that is a group", group("members = [\"replica\"]\n[alias.all]\nmembers = [\"reads\"]")),
            ("a group without members", group("members = []")),
            ("a group with a server's keys", group(&format!("members = [\"replica\"]\n{SERVER_KEYS}"))),
            ("a balance without members", with("", "balance = \"random\"")),
        ]),
    );
}

#[test]
fn numbers() {
    is_as_told_before(
        "numbers",
        &tell(&[
            ("a frequency of zero", with("monitoring_ping_frequency = \"0s\"", "")),
            ("a threshold of zero", with("", "failure_threshold = 0")),
            ("a pool of zero", with("max_size = 0\ndetour_size = 0", "")),
            ("a pool beyond all limits", with("max_size = 9000000", "")),
            ("a frequency beyond all limits", with("", "monitoring_ping_frequency = \"1000years\"")),
            ("an outage pinged less often than health", with("outage_ping_frequency = \"5m\"", "")),
            (
                "errors that ping less often than an outage",
                with("", "error_ping_frequency = \"40s\"\noutage_ping_frequency = \"20s\""),
            ),
            (
                "a timeout longer than the frequency",
                with("monitoring_ping_frequency = \"1s\"\nping_timeout = \"2s\"", ""),
            ),
            ("more patience during an outage", with("outage_ping_timeout = \"4s\"", "")),
            (
                "an alias against a global key",
                with("outage_ping_frequency = \"60s\"", "monitoring_ping_frequency = \"30s\""),
            ),
            ("more idle than there may be", with("", "min_idle = 9")),
            ("more retries than calls", with("retry_budget = 101", "")),
            ("a hedge after neither", with("hedge_after = \"p99\"", "hedge_after = 50")),
            ("a breaker beyond all calls", with("breaker_failure_rate = 101", "breaker_slow_rate = 200")),
            ("a breaker without calls", with("breaker_min_calls = 0", "breaker_window = \"0s\"")),
            ("keys forgotten while a call lasts", with("once_keep = \"59s\"", "")),
            ("calls longer than their keys are kept", with("", "call_timeout = \"13h\"")),
            ("a hedge at once", with("", "hedge_after = \"0s\"")),
        ]),
    );
}

#[test]
fn outage_errors() {
    let table = |keys: &str| format!("{PAIR}\n[outage_errors]\n{keys}\n");
    is_as_told_before(
        "outage_errors",
        &tell(&[
            ("small letters", table("extra = [\"57P01\", \"xx000\"]")),
            ("neither a code nor a class", table("only = [\"57P\"]")),
            ("words", table("extra = [\"admin_shutdown\"]")),
            ("a number", table("extra = [57014]")),
            ("no list", table("only = \"57P01\"")),
            ("an unknown key", table("extras = []")),
            ("a key of another place", table("max_size = 3")),
            ("a key in another place", with("extra = [\"58\"]", "only = [\"58\"]")),
            ("no table", with("outage_errors = [\"58\"]", "")),
            ("a table that is misspelt", format!("{PAIR}\n[outage_error]\nextra = [\"58\"]\n")),
        ]),
    );
    let code = Config::builder()
        .server("primary", Role::Primary, "postgres://app@db1/app")
        .extra_outage_errors(["58", "xx"])
        .only_outage_errors([""]);
    is_as_told_before("outage_errors_in_code", &code.build().expect_err("two mistakes").to_string());
}

#[test]
fn services() {
    let service = |keys: &str| format!("{PAIR}\n[service.cache]\n{}\n", keys.replace("WORD", PASSWORD));
    is_as_told_before(
        "services",
        &tell(&[
            ("nothing at all", service("")),
            ("an unknown kind", service("kind = \"memcache\"\nurl = \"db3:11211\"")),
            ("an unknown key", service("kind = \"tcp\"\nurl = \"db3:1\"\nfrequency = \"1s\"")),
            ("a misspelt key", service("kind = \"tcp\"\nulr = \"db3:1\"")),
            ("a key of a server", service("kind = \"tcp\"\nurl = \"db3:1\"\nslow_after = \"1s\"\nrole = \"primary\"")),
            ("a key of a service in an alias", with("", "kind = \"tcp\"")),
            ("a key of a service at the top", with("nodes = [\"a\"]", "")),
            ("neither url nor nodes", service("kind = \"memcached\"")),
            ("no url", service("kind = \"redis\"")),
            ("both url and nodes", service("kind = \"memcached\"\nurl = \"a\"\nnodes = [\"b\"]")),
            ("no nodes", service("kind = \"memcached\"\nnodes = []")),
            ("a node that is none", service("kind = \"memcached\"\nnodes = [\"a\", \"b:x\", \":1\"]")),
            ("nodes of another kind", service("kind = \"redis\"\nurl = \"redis://a\"\nnodes = [\"b\"]")),
            ("nodes that are no list", service("kind = \"memcached\"\nnodes = \"a\"")),
            ("no port", service("kind = \"tcp\"\nurl = \"db3\"")),
            ("no scheme", service("kind = \"redis\"\nurl = \"db3:6379\"")),
            ("another scheme", service("kind = \"amqp\"\nurl = \"mqtt://:WORD@db3\"")),
            ("a slash in the password", service("kind = \"amqp\"\nurl = \"amqp://app:WORD/@db3\"")),
            ("a line break", service("kind = \"http\"\nurl = \"http://db3/\\r\\nX: WORD\"")),
            ("a login where there is none", service("kind = \"http\"\nurl = \"http://app:WORD@db3/\"")),
            ("a status that is none", service("kind = \"http\"\nurl = \"http://db3/\"\nstatus = 99")),
            ("a status of another kind", service("kind = \"tcp\"\nurl = \"db3:1\"\nstatus = 200")),
            ("authorities without TLS", service("kind = \"redis\"\nurl = \"redis://a\"\nsslrootcert = \"/dev/null\"")),
            (
                "authorities that are missing",
                service("kind = \"redis\"\nurl = \"rediss://a\"\nsslrootcert = \"/none.pem\""),
            ),
            (
                "a password file that is missing",
                service("kind = \"redis\"\nurl = \"redis://a\"\npassword_file = \"/none\""),
            ),
            ("a password twice", service("kind = \"redis\"\nurl = \"redis://:WORD@a\"\npassword_file = \"/none\"")),
            ("a frequency of zero", service("kind = \"tcp\"\nurl = \"db3:1\"\nmonitoring_ping_frequency = \"0s\"")),
            ("inverted frequencies", service("kind = \"tcp\"\nurl = \"db3:1\"\nping_timeout = \"10m\"")),
            ("the name of an alias", format!("{PAIR}\n[service.replica]\nkind = \"tcp\"\nurl = \"db3:1\"\n")),
            ("a name that is none", format!("{PAIR}\n[service.Cache]\nkind = \"tcp\"\nurl = \"db3:1\"\n")),
            ("no table", with("service = \"cache\"", "")),
            ("a table that is misspelt", service("").replace("service", "services")),
        ]),
    );
}

#[test]
fn urls() {
    let url = |url: &str| replaced("postgres://app@db2/app", &url.replace("WORD", PASSWORD));
    is_as_told_before(
        "urls",
        &tell(&[
            ("another scheme", url("mysql://app:WORD@db2/app")),
            ("a JDBC URL", url("jdbc:postgresql://db2/app?password=WORD")),
            ("an empty URL", url("")),
            ("no host", url("postgres:///app?user=app")),
            ("no user", url("postgres://db2/app")),
            ("several hosts", url("postgres://app:WORD@db2,db3:5433/app")),
            ("a port that is none", url("postgres://app@db2:70000/app")),
            ("a slash in the password", url("postgres://app:WORD/x@db2/app")),
            ("a slash behind digits", url("postgres://app:12/WORD@db2/app")),
            ("an at sign in the password", url("postgres://app:x@WORD@db2/app")),
            ("a question mark and a slash in the password", url("postgres://app:12?WORD/@db2/app")),
            ("an at sign in a parameter and no user", url("postgres://db2?user=app@corp")),
            ("a percent sign in the password", url("postgres://app:%WORD@db2/app")),
            ("neither a URL nor pairs", url("WORD")),
            ("a space in a value", url("host=db2 password=a WORD user=app")),
            ("a quote that does not end", url("host=db2 password='WORD")),
            ("an unknown parameter", url("postgres://app:WORD@db2/app?ssl_mode=require")),
            ("one that resembles none", url("postgres://app:WORD@db2/app?sslmode=require&WORD=1")),
            ("another scheme's parameter", url("postgres://app@db2/app?keepalives_retries=3")),
            ("TLS that falls back", url("postgres://app@db2/app?sslmode=prefer")),
            ("an unknown sslmode", url("postgres://app@db2/app?sslmode=on")),
            ("verify-ca without an authority", url("postgres://app@db2/app?sslmode=verify-ca")),
            ("an authority that is not there", url("postgres://app@db2/app?sslrootcert=/nonexistent/ca.pem")),
            ("an attribute against the role", url("postgres://app@db2/app?target_session_attrs=primary")),
            ("prefer-standby", url("postgres://app@db2/app?target_session_attrs=prefer-standby")),
            ("channel binding without TLS", url("postgres://app@localhost/app?channel_binding=require")),
            (
                "numbers that are none",
                url("postgres://app@db2/app?keepalives=yes&keepalives_idle=x&tcp_user_timeout=-1&connect_timeout=0"),
            ),
            ("several at once", url("postgres://app:WORD@db2/app?sslmode=allow&service=x&sslcert=y&sslkey=z")),
        ]),
    );
}

#[test]
fn secrets() {
    let file = |path: &str| with("", &format!("password_file = \"{path}\""));
    let twice = with("", "password_file = \"/nonexistent\"").replace("app@db2", &format!("app:{PASSWORD}@db2"));
    is_as_told_before(
        "secrets",
        &tell(&[
            ("a password file that is not there", file("/nonexistent/password")),
            ("a password file that is a directory", file("/")),
            ("a passfile that is not there", replaced("db2/app", "db2/app?passfile=/nonexistent/pgpass")),
            ("a password given twice", twice),
        ]),
    );
}

#[test]
fn the_environment_is_named_by_its_variables() {
    let error = Config::from_toml_with(
        PAIR,
        [
            ("PGDETOUR_ALIAS__REPLICA__URL", "postgres://app:s3cr3t-w0rd@db2:x/app"),
            ("PGDETOUR_PING_TIMEOUT", "soon"),
            ("PGDETOUR_MAX_SIZE", "many"),
            ("PGDETOUR_MONITORING_PING_FREQUENZY", "1s"),
            ("PGDETOUR_ALIAS__REPLICA__FAILOVER", "primry"),
            ("PGDETOUR_ALIAS__SPARE__ROLE", "replica"),
        ],
    )
    .expect_err("six mistakes");
    is_as_told_before("environment", &error.to_string());
}

#[test]
fn code_hears_of_the_same_mistakes() {
    let error = Config::builder()
        .pings(Pings { ping_timeout: std::time::Duration::ZERO, ..Pings::default() })
        .server("primary", Role::Primary, format!("postgres://app:{PASSWORD}@db1:x/app"))
        .server("primary", Role::Primary, "postgres://app@db1/app")
        .server("Bad Name", Role::Replica, "postgres://app@db2/app")
        .server("replica", Role::Replica, "postgres://app@db2/app?sslmode=prefer")
        .server("spare", Role::Replica, format!("postgres://app:{PASSWORD}@db3/app"))
        .password("spare", PASSWORD)
        .failover("replica", ["primry"])
        .failover("replicq", ["primary"])
        .pool_of("replica", PoolSettings { min_idle: 9, ..PoolSettings::default() })
        .group("reads", ["nobody"], Balance::Random)
        .build()
        .expect_err("many mistakes");
    assert!(!format!("{error} {error:?}").contains(PASSWORD));
    is_as_told_before("code", &error.to_string());
}

#[test]
fn a_file_is_named_with_the_line_of_each_of_its_mistakes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pgdetour.toml");
    let text = format!("max_sise = 3\n{PAIR}failovr = [\"primary\"]\n[alias.reads]\nmembers = [\"replicb\"]\n");
    std::fs::write(&path, text).expect("a file");
    let error = Config::from_file(&path).expect_err("three mistakes");
    let told = error.to_string().replace(&directory.path().display().to_string(), "");
    insta::assert_snapshot!(told, @r"
    /pgdetour.toml:1: max_sise: unknown key; did you mean `max_size`?

    /pgdetour.toml:10: alias.replica.failovr: unknown key; did you mean `failover`?

    /pgdetour.toml:12: alias.reads.members: there is no alias `replicb`; did you mean `replica`?
    ");
    assert!(error.mistakes().iter().all(|mistake| mistake.file.as_deref() == Some(&path)));
}

#[test]
fn the_history_is_kept_by_a_primary() {
    let told = |name: &str| {
        Config::from_toml(&format!("history = \"{name}\"\n{PAIR}")).expect_err("nobody writes it").to_string()
    };
    insta::assert_snapshot!(told("replica"), @"line 1: history: `replica` is not a primary, and the history is written; valid: primary");
    insta::assert_snapshot!(told("primery"), @"line 1: history: there is no alias `primery`; did you mean `primary`?");
    let config =
        Config::from_toml(&format!("history = \"primary\"\nhistory_keep = \"30d\"\n{PAIR}")).expect("it holds");
    let kept = config.history().map(|history| (history.alias.as_str(), history.keep.as_secs()));
    assert_eq!(kept, Some(("primary", 30 * 24 * 3600)));
}

#[test]
fn a_file_that_is_missing_or_not_utf_8_is_told_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pgdetour.toml");
    let told =
        |error: pgdetour::config::ConfigError| error.to_string().replace(&directory.path().display().to_string(), "");
    is_as_told_before("missing_file", &told(Config::from_file(&path).expect_err("missing")));
    std::fs::write(&path, b"\n# caf\xe9\n").expect("a file");
    is_as_told_before("not_utf_8", &told(Config::from_file(&path).expect_err("not UTF-8")));
}

#[test]
fn two_aliases_for_one_server_are_a_warning() {
    let config = Config::from_toml(&replaced("app@db2/app", "reports@db1/app")).expect("only a warning");
    let told: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
    is_as_told_before("one_server_twice", &told.join("\n"));
}
