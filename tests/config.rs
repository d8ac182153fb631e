//! What a configuration means: files, environment and code.
#![cfg(feature = "tls")]

use std::time::Duration;

use pgdetour::config::{
    AliasKind, Balance, BreakerSettings, CallSettings, CodePrefix, Config, Hedge, KEYS, Kind, Monitoring, Pings,
    PoolSettings, Role, Roots, ServerConfig, SessionReset, Tls,
};

const PAIR: &str = r#"
[alias.primary]
role = "primary"
url = "postgres://app@db1/app"

[alias.replica]
role = "replica"
url = "postgres://app@db2/app"
"#;

fn server<'a>(config: &'a Config, alias: &str) -> &'a ServerConfig {
    match &config.alias(alias).expect("declared").kind {
        AliasKind::Server(server) => server,
        other => panic!("{other:?}"),
    }
}

fn failover(config: &Config, alias: &str) -> Vec<String> {
    config.alias(alias).expect("declared").failover.iter().map(ToString::to_string).collect()
}

fn chain(config: &Config, alias: &str) -> Vec<String> {
    config.chain_of(alias).iter().map(|alias| alias.name.to_string()).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = Config::from_toml(PAIR).unwrap();
    let replica = config.alias("replica").unwrap();
    assert_eq!(server(&config, "replica").pings, Pings::default());
    assert_eq!(replica.pool, PoolSettings::default());
    assert_eq!(config.monitoring(), Monitoring::Background);
    assert_eq!(failover(&config, "replica"), ["primary"]);
    assert_eq!(failover(&config, "primary"), [""; 0]);
    assert!(config.warnings().is_empty());
}

#[test]
fn aliases_stand_in_the_order_of_the_file() {
    let text = PAIR.replace("alias.primary", "alias.zebra");
    let names: Vec<_> =
        Config::from_toml(&text).unwrap().aliases().iter().map(|alias| alias.name.to_string()).collect();
    assert_eq!(names, ["zebra", "replica"]);
}

#[test]
fn an_alias_s_number_wins_over_the_global_one_and_that_over_the_default() {
    let text = format!("ping_timeout = \"2s\"\nmax_size = 8\n{PAIR}ping_timeout = \"500ms\"\nmax_size = 5\n");
    let config = Config::from_toml(&text).unwrap();
    assert_eq!(server(&config, "primary").pings.ping_timeout, seconds(2));
    assert_eq!(server(&config, "replica").pings.ping_timeout, Duration::from_millis(500));
    assert_eq!(config.alias("primary").unwrap().pool.detour_size, 4);
    assert_eq!(config.alias("replica").unwrap().pool.detour_size, 2);
}

#[test]
fn a_default_gives_way_to_what_is_written() {
    let text = format!("outage_ping_frequency = \"500ms\"\nmax_size = 1\n{PAIR}");
    let config = Config::from_toml(&text).unwrap();
    let pings = &server(&config, "replica").pings;
    assert_eq!(pings.error_ping_frequency, Duration::from_millis(500));
    assert_eq!(pings.outage_ping_timeout, Duration::from_millis(500));
    assert_eq!(config.alias("replica").unwrap().pool.min_idle, 1);
    assert_eq!(config.alias("replica").unwrap().pool.detour_size, 1);
}

#[test]
fn the_brisk_pace_is_a_preset_and_written_keys_win() {
    let text = format!("pace = \"brisk\"\nmonitoring_ping_frequency = \"20s\"\n{PAIR}");
    let config = Config::from_toml(&text).unwrap();
    let expected = Pings { monitoring_ping_frequency: seconds(20), ..Pings::brisk() };
    assert_eq!(server(&config, "replica").pings, expected);
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = Config::from_toml_with(
        PAIR,
        [
            ("PGDETOUR_ALIAS__REPLICA__URL", "postgres://app@db9:5433/app"),
            ("PGDETOUR_MONITORING_PING_FREQUENCY", "60s"),
            ("PGDETOUR_MAX_SIZE", "4"),
            ("PGDETOUR_MONITORING", "on-demand"),
            ("PGDETOUR_ALIAS__REPLICA__FAILOVER", ""),
            ("PGDETOUR_ALIAS__SPARE__URL", "host=db3 user=app"),
            ("PGDETOUR_ALIAS__SPARE__ROLE", "replica"),
            ("PGDETOUR_ALIAS__SPARE__FAILOVER", "replica, primary"),
            ("UNRELATED", "x"),
        ],
    )
    .unwrap();
    assert_eq!(server(&config, "replica").target.address(), "db9:5433");
    assert_eq!(server(&config, "replica").pings.monitoring_ping_frequency, seconds(60));
    assert_eq!(config.alias("primary").unwrap().pool.max_size, 4);
    assert_eq!(config.monitoring(), Monitoring::OnDemand);
    assert_eq!(failover(&config, "replica"), [""; 0]);
    assert_eq!(failover(&config, "spare"), ["replica", "primary"]);
    assert_eq!(config.aliases().last().unwrap().name.as_str(), "spare");
}

#[test]
fn a_variable_can_name_an_alias_with_a_hyphen() {
    let text = PAIR.replace("alias.replica", "alias.eu-replica");
    let variable = [("PGDETOUR_ALIAS__EU_REPLICA__URL", "postgres://app@db9/app")];
    let config = Config::from_toml_with(&text, variable).unwrap();
    assert_eq!(server(&config, "eu-replica").target.address(), "db9:5432");
}

#[test]
fn a_group_fails_over_to_the_primary_unless_that_is_a_member() {
    let text = format!(
        "{PAIR}\n[alias.reads]\nmembers = [\"replica\"]\nbalance = \"least-loaded\"\n\n[alias.any]\nmembers = [\"replica\", \"primary\"]\n"
    );
    let config = Config::from_toml(&text).unwrap();
    assert_eq!(failover(&config, "reads"), ["primary"]);
    assert_eq!(failover(&config, "any"), [""; 0]);
    assert_eq!(chain(&config, "reads"), ["replica", "primary"]);
    assert_eq!(chain(&config, "any"), ["replica", "primary"]);
    let AliasKind::Group { balance, .. } = config.alias("reads").unwrap().kind else { panic!("a group") };
    assert_eq!(balance, Balance::LeastLoaded);
}

#[test]
fn two_replicas_may_back_each_other_up_when_their_chain_goes_on_to_the_primary() {
    let text = format!(
        "{PAIR}failover = [\"spare\", \"primary\"]\n[alias.spare]\nrole = \"replica\"\nurl = \"postgres://app@db3/app\"\nfailover = [\"replica\", \"primary\"]\n"
    );
    let config = Config::from_toml(&text).unwrap();
    assert_eq!(chain(&config, "replica"), ["replica", "spare", "primary"]);
    assert_eq!(chain(&config, "spare"), ["spare", "replica", "primary"]);
}

#[test]
fn a_primary_and_a_replica_may_take_each_others_reads_by_default_and_in_so_many_words() {
    let primary = PAIR.replace("app@db1/app\"", "app@db1/app\"\nfailover = [\"replica\"]");
    for text in [primary.clone(), format!("{primary}failover = [\"primary\"]\n")] {
        let config = Config::from_toml(&text).unwrap();
        assert_eq!(chain(&config, "primary"), ["primary", "replica"]);
        assert_eq!(chain(&config, "replica"), ["replica", "primary"]);
    }
}

#[test]
fn servers_that_stand_in_for_each_other_in_a_circle_are_each_visited_once() {
    let spare = |name: &str, next: &str| {
        format!("[alias.{name}]\nrole = \"replica\"\nurl = \"postgres://app@{name}/app\"\nfailover = [\"{next}\"]\n")
    };
    let text = format!("{PAIR}failover = [\"one\"]\n{}{}", spare("one", "two"), spare("two", "replica"));
    let config = Config::from_toml(&text).unwrap();
    assert_eq!(chain(&config, "replica"), ["replica", "one", "two"]);
    assert_eq!(chain(&config, "two"), ["two", "replica", "one"]);
}

#[test]
fn tls_verifies_by_default_except_on_loopback_and_sockets() {
    for (url, tls) in [
        ("postgres://u@db1", Tls::VerifyFull(Roots::System)),
        ("postgres://u@10.0.0.1", Tls::VerifyFull(Roots::System)),
        ("postgres://u@localhost", Tls::Disable),
        ("postgres://u@127.0.0.5", Tls::Disable),
        ("postgres://u@[::1]", Tls::Disable),
        ("postgres://u@db1?hostaddr=127.0.0.1", Tls::Disable),
        ("postgres://u@localhost?hostaddr=10.0.0.1", Tls::VerifyFull(Roots::System)),
        ("postgres://u@%2Frun%2Fpostgresql?sslmode=require", Tls::Disable),
        ("postgres://u@db1?sslmode=require", Tls::Require),
        ("postgres://u@db1?ssl=true", Tls::Require),
        ("postgres://u@localhost?sslrootcert=system", Tls::VerifyFull(Roots::System)),
        ("postgres://u@db1?sslmode=disable", Tls::Disable),
    ] {
        let config = Config::builder().server("primary", Role::Primary, url).build().unwrap();
        assert_eq!(server(&config, "primary").target.tls, tls, "{url}");
    }
}

#[test]
fn require_with_an_authority_of_ones_own_verifies_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (mode, tls) in [
        ("sslmode=require&", Tls::VerifyCa(Roots::File(file.path().into()))),
        ("sslmode=verify-ca&", Tls::VerifyCa(Roots::File(file.path().into()))),
        ("", Tls::VerifyFull(Roots::File(file.path().into()))),
    ] {
        let url = format!("postgres://u@db1?{mode}sslrootcert={}", file.path().display());
        let config = Config::builder().server("primary", Role::Primary, url).build().unwrap();
        assert_eq!(server(&config, "primary").target.tls, tls, "{mode}");
    }
}

#[test]
fn code_says_the_same_as_a_file() {
    let file = Config::from_toml(&format!("pace = \"brisk\"\n{PAIR}[alias.reads]\nmembers = [\"replica\"]\n")).unwrap();
    let code = Config::builder()
        .pings(Pings::brisk())
        .server("primary", Role::Primary, "postgres://app@db1/app")
        .server("replica", Role::Replica, "host=db2 user=app dbname=app")
        .failover("replica", ["primary"])
        .group("reads", ["replica"], Balance::RoundRobin)
        .environment([("HOME", "/nonexistent")])
        .build()
        .unwrap();
    assert_eq!(file.aliases(), code.aliases());
}

#[test]
fn a_pool_sized_in_code_has_the_detour_of_one_sized_in_a_file() {
    for max_size in [1, 3, 40] {
        let file = Config::from_toml(&format!("max_size = {max_size}\n{PAIR}")).unwrap();
        assert_eq!(file.alias("replica").unwrap().pool, PoolSettings::of_size(max_size));
    }
}

#[test]
fn a_word_or_a_duration_of_an_alias_wins_over_either_at_the_top() {
    let hedge = |top: &str, own: &str| {
        let own = if own.is_empty() { String::new() } else { format!("hedge_after = \"{own}\"") };
        let config = Config::from_toml(&format!("hedge_after = \"{top}\"\n{PAIR}{own}\n")).unwrap();
        config.alias("replica").unwrap().calls.hedge_after
    };
    assert_eq!(hedge("p95", ""), Hedge::P95);
    assert_eq!(hedge("50ms", "p95"), Hedge::P95);
    assert_eq!(hedge("p95", "50ms"), Hedge::After(Duration::from_millis(50)));
    assert_eq!(hedge("50ms", "off"), Hedge::Off);
}

#[test]
fn call_settings_say_the_same_in_code_and_in_a_file() {
    let calls = CallSettings {
        call_timeout: seconds(3),
        retry_budget: 0,
        hedge_after: Hedge::After(seconds(1)),
        pass_deadline: true,
        once_keep: seconds(3600),
    };
    let file =
        "once_keep = \"1h\"\ncall_timeout = \"3s\"\nretry_budget = 0\nhedge_after = \"1s\"\npass_deadline = \"on\"\n";
    let file = Config::from_toml(&format!("{file}{PAIR}")).unwrap();
    let code = Config::builder()
        .calls(CallSettings { hedge_after: Hedge::P95, ..calls.clone() })
        .server("primary", Role::Primary, "postgres://app@db1/app")
        .server("replica", Role::Replica, "postgres://app@db2/app")
        .calls_of("replica", calls.clone());
    assert_eq!(code.build().unwrap().alias("replica").unwrap().calls, calls);
    assert_eq!(file.alias("replica").unwrap().calls, calls);
}

#[test]
fn which_errors_ask_for_a_ping_is_said_alike_in_a_file_in_the_environment_and_in_code() {
    let codes = |config: &Config| {
        let list = |codes: &[CodePrefix]| codes.iter().map(|code| code.as_str().to_owned()).collect::<Vec<_>>();
        let errors = config.outage_errors();
        (list(&errors.extra), errors.only.as_deref().map(list))
    };
    let expected = (vec!["XX000".to_owned(), "55".to_owned()], Some(vec!["57P01".to_owned()]));
    let text = format!("{PAIR}\n[outage_errors]\nextra = [\"XX000\", \"55\"]\nonly = [\"57P01\"]\n");
    assert_eq!(codes(&Config::from_toml(&text).unwrap()), expected);
    let variables = [("PGDETOUR_OUTAGE_ERRORS__EXTRA", "XX000,55"), ("PGDETOUR_OUTAGE_ERRORS__ONLY", "[\"57P01\"]")];
    assert_eq!(codes(&Config::from_toml_with(PAIR, variables).unwrap()), expected);
    let code = Config::builder()
        .server("primary", Role::Primary, "postgres://app@db1/app")
        .extra_outage_errors(["XX000", "55"])
        .only_outage_errors(["57P01"]);
    assert_eq!(codes(&code.build().unwrap()), expected);
    assert_eq!(codes(&Config::from_toml(PAIR).unwrap()), (Vec::new(), None));
}

#[test]
fn breaker_settings_say_the_same_in_code_and_in_a_file() {
    let breaker = BreakerSettings {
        breaker_failure_rate: 0,
        breaker_slow_rate: 80,
        breaker_slow_after: seconds(3),
        breaker_window: seconds(30),
        breaker_min_calls: 5,
    };
    let file =
        "breaker_failure_rate = 0\nbreaker_slow_rate = 80\nbreaker_slow_after = \"3s\"\nbreaker_window = \"30s\"\n";
    let file = Config::from_toml(&format!("{file}{PAIR}breaker_min_calls = 5\n")).unwrap();
    assert_eq!(server(&file, "replica").breaker, breaker);
    assert_eq!(server(&file, "primary").breaker, BreakerSettings { breaker_min_calls: 20, ..breaker.clone() });
    let code = Config::builder()
        .breaker(breaker.clone())
        .server("primary", Role::Primary, "postgres://app@db1/app")
        .server("replica", Role::Replica, "postgres://app@db2/app")
        .breaker_of("replica", BreakerSettings::default());
    let code = code.build().unwrap();
    assert_eq!(server(&code, "primary").breaker, breaker);
    assert_eq!(server(&code, "replica").breaker, BreakerSettings::default());
}

#[test]
fn the_table_of_keys_tells_the_defaults() {
    let mut written = String::new();
    for key in KEYS.iter().filter(|key| key.is_global()) {
        match key.kind {
            Kind::Duration => written += &format!("{} = \"{}\"\n", key.name, key.default),
            Kind::Count if key.name != "detour_size" => written += &format!("{} = {}\n", key.name, key.default),
            Kind::WordOrDuration(_) => written += &format!("{} = \"{}\"\n", key.name, key.default),
            Kind::Word(words) if words.contains(&key.default) => {
                written += &format!("{} = \"{}\"\n", key.name, key.default);
            }
            _ => {}
        }
    }
    let config = Config::from_toml(&format!("{written}{PAIR}")).unwrap();
    assert_eq!(config.aliases(), Config::from_toml(PAIR).unwrap().aliases(), "{written}");
    assert_eq!(config.cache_size(), Config::from_toml(PAIR).unwrap().cache_size());
    assert_eq!(written.lines().count(), 30);
}

#[test]
fn a_service_says_what_it_is_and_where_and_is_pinged_as_the_top_says() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("word");
    std::fs::write(&file, "s3cr3t-w0rd\n").unwrap();
    let text = format!(
        "outage_ping_frequency = \"7s\"\n{PAIR}\n[service.cache]\nkind = \"memcached\"\nnodes = [\"a\", \"b:11212\"]\n\
         [service.sessions]\nkind = \"redis\"\nurl = \"rediss://app@[::1]\"\npassword_file = {file:?}\n\
         outage_ping_frequency = \"3s\"\n[service.shop-api]\nkind = \"http\"\nurl = \"https://shop/up\"\nstatus = 204\n"
    );
    let config = Config::from_toml_with(&text, [("PGDETOUR_SERVICE__SHOP_API__PING_TIMEOUT", "2s")]).expect("it holds");
    let services = config.services();
    let told: Vec<_> = services
        .iter()
        .map(|service| format!("{} {} {}", service.name, service.kind.word(), service.kind.address()))
        .collect();
    assert_eq!(told, ["cache memcached a:11211,b:11212", "sessions redis [::1]:6379", "shop-api http shop:443"]);
    let outage: Vec<_> = services.iter().map(|service| service.pings.outage_ping_frequency).collect();
    assert_eq!(outage, [seconds(7), seconds(3), seconds(7)]);
    assert_eq!((config.pings().outage_ping_frequency, services[2].pings.ping_timeout), (seconds(7), seconds(2)));
    assert!(!format!("{config:?}").contains("s3cr3t"));
}

#[test]
fn inline_tables_and_dotted_keys_say_the_same_as_headers() {
    let inline = "alias = { primary = { role = \"primary\", url = \"postgres://app@db1/app\" },\n replica = { role = \"replica\", url = \"postgres://app@db2/app\" },\n}";
    let dotted = "alias.primary.role = \"primary\"\nalias.primary.url = \"postgres://app@db1/app\"\nalias.replica = { role = \"replica\", url = \"postgres://app@db2/app\" }";
    let expected = Config::from_toml(PAIR).unwrap();
    for text in [inline, dotted] {
        assert_eq!(Config::from_toml(text).unwrap().aliases(), expected.aliases(), "{text}");
    }
}

#[test]
fn in_code_a_ping_field_left_at_its_default_gives_way_to_the_others() {
    let often = Pings { outage_ping_frequency: seconds(1), ..Pings::default() };
    let config = Config::builder()
        .pings(often.clone())
        .server("primary", Role::Primary, "postgres://app@db1/app")
        .server("replica", Role::Replica, "postgres://app@db2/app")
        .pings_of("replica", Pings { ping_timeout: seconds(2), ..Pings::default() })
        .build()
        .unwrap();
    assert_eq!(server(&config, "primary").pings, Pings { error_ping_frequency: seconds(1), ..often });
    assert_eq!(server(&config, "replica").pings, Pings { ping_timeout: seconds(2), ..Pings::default() });
}

#[test]
fn pool_settings_say_the_same_in_code_and_in_a_file() {
    let pool = PoolSettings {
        max_lifetime: None,
        max_waiting: 0,
        session_reset: SessionReset::DiscardAll,
        detour_latency_limit: Some(Duration::from_millis(20)),
        ..PoolSettings::default()
    };
    let rest = "max_waiting = 0\nsession_reset = \"discard-all\"\ndetour_latency_limit = \"20ms\"\n";
    for off in ["0s", "off"] {
        let file = Config::from_toml(&format!("max_lifetime = \"{off}\"\n{rest}{PAIR}")).unwrap();
        assert_eq!(file.alias("replica").unwrap().pool, pool);
    }
    let code = Config::builder()
        .pool(PoolSettings { max_lifetime: Some(seconds(9)), ..PoolSettings::default() })
        .server("primary", Role::Primary, "postgres://app@db1/app")
        .pool_of("primary", pool.clone());
    assert_eq!(code.build().unwrap().alias("primary").unwrap().pool, pool);
    let own = format!("max_lifetime = \"off\"\n{PAIR}max_lifetime = \"1h\"\n");
    assert_eq!(Config::from_toml(&own).unwrap().alias("replica").unwrap().pool.max_lifetime, Some(seconds(3600)));
}

#[test]
fn in_code_a_pool_is_taken_as_it_is_given() {
    let pool = PoolSettings { max_size: 64, detour_size: 8, ..PoolSettings::default() };
    let url = "postgres://app@db1/app";
    let config = Config::builder().pool(pool.clone()).server("primary", Role::Primary, url).build().unwrap();
    assert_eq!(config.aliases()[0].pool, pool);
}
