//! Behaviour as data: each file of tests/scenarios is a claim, and a timeline of signals and expectations that proves it.
//!
//! `config` is its configuration, if a primary and a replica will not do, and `start` what its servers do with pings at first.
//! Health and plan run without a runtime, a socket or a clock. A step comes `at` a moment or `after` a while, or as soon before that
//! as the server is in the state `until` names. It names a server (`replica` unless it says `server`), says what
//! it does from then on (`ping`, or `fresh` and `kept` apart; `role`, `timeline`, `system`; `late`; `leases`; what became of
//! the `calls` on it since the last look at them), raises a `signal`,
//! and then expects: `state`, `admits`, the `mode`, where requests `go`, `why`, whether an alias is `read_only` and when one that
//! writes should `come_back_within`, what was `told` and which `pings` were sent since somebody
//! last asked, `no_more_pings_than`, and `next_ping_within`.

#[path = "scenarios/world.rs"]
mod world;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use pgdetour::{
    config::{Config, Role},
    health::{Generation, Over, Signal, State, SystemId, Timeline},
    policy::Counts,
};
use serde::Deserialize;

use self::world::{Reply, World};

const TWO_SERVERS: &str = r#"
    [alias.primary]
    role = "primary"
    url = "postgres://app@db1/app"

    [alias.replica]
    role = "replica"
    url = "postgres://app@db2/app"
"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    config: Option<String>,
    start: Option<BTreeMap<String, Reply>>,
    step: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at: Option<String>,
    after: Option<String>,
    until: Option<String>,
    server: Option<String>,
    ping: Option<Reply>,
    fresh: Option<Reply>,
    kept: Option<Reply>,
    role: Option<String>,
    timeline: Option<u32>,
    system: Option<u64>,
    late: Option<String>,
    leases: Option<u32>,
    calls: Option<Calls>,
    signal: Option<Evidence>,
    times: Option<u32>,
    state: Option<String>,
    admits: Option<bool>,
    go: Option<BTreeMap<String, String>>,
    why: Option<BTreeMap<String, Vec<String>>>,
    told: Option<Vec<String>>,
    pings: Option<Vec<String>>,
    no_more_pings_than: Option<usize>,
    next_ping_within: Option<String>,
    mode: Option<String>,
    read_only: Option<BTreeMap<String, bool>>,
    come_back_within: Option<BTreeMap<String, String>>,
}

/// So many calls, and of them so many that failed or were slow.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Calls {
    made: u64,
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    slow: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Evidence {
    Lost,
    Doubt,
    OldDoubt,
    Slow,
}

fn name(state: State) -> &'static str {
    match state {
        State::Up => "up",
        State::Suspect => "suspect",
        State::Down => "down",
        State::Recovering => "recovering",
    }
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

impl Step {
    /// Lets time pass: to a moment, by a while, and if the step says so only until the server is in a state.
    fn pass(&self, world: &mut World, index: usize, claim: &str) {
        let at = match (&self.at, &self.after) {
            (Some(at), None) => duration(at),
            (None, Some(after)) => world.elapsed() + duration(after),
            _ => panic!("{claim}: a step says either `at` or `after`"),
        };
        let reached = |world: &World| self.until.as_deref() == Some(name(world.servers[index].health.state()));
        let came = world.advance_to(at, reached);
        assert!(came || self.until.is_none(), "{claim}: not {:?} by {at:?}", self.until);
    }

    /// What the server does from now on, and the signal that is raised.
    fn act(&self, world: &mut World, index: usize) {
        let server = &mut world.servers[index];
        server.fresh = self.fresh.or(self.ping).unwrap_or(server.fresh);
        server.kept = self.kept.or(self.ping).unwrap_or(server.kept);
        server.late = self.late.as_deref().map_or(server.late, duration);
        server.facts.timeline = self.timeline.map(Timeline).or(server.facts.timeline);
        server.facts.system = self.system.map(SystemId).or(server.facts.system);
        server.facts.role = match self.role.as_deref() {
            Some("primary") => Role::Primary,
            Some("replica") => Role::Replica,
            Some(other) => panic!("{other} is no role"),
            None => server.facts.role,
        };
        (0..self.leases.unwrap_or(0)).for_each(|_| server.cell.lend());
        if let Some(Calls { made, failed, slow }) = self.calls {
            world.weigh(index, Counts { made, failed, slow });
        }
        for _ in 0..self.times.unwrap_or(1) {
            match self.signal {
                Some(Evidence::Lost) => world.signal(index, Signal::Lost),
                Some(Evidence::Slow) => world.signal(index, Signal::Slow),
                Some(Evidence::Doubt) => world.doubt(index, world.servers[index].health.belief().generation()),
                Some(Evidence::OldDoubt) => world.doubt(index, Generation::default()),
                None => {}
            }
        }
    }

    fn check(&self, world: &mut World, index: usize, claim: &str) {
        let here = format!("{claim}, at {:?}", world.elapsed());
        let server = &mut world.servers[index];
        if let Some(state) = &self.state {
            assert_eq!(name(server.health.state()), state, "{here}: the state of {}", server.name);
        }
        if let Some(admits) = self.admits {
            assert_eq!(server.health.belief().admits(), admits, "{here}: admission");
        }
        if let Some(most) = self.no_more_pings_than {
            let pings = std::mem::take(&mut server.pings);
            assert!(pings.len() <= most, "{here}: {} pings", pings.len());
        }
        if let Some(pings) = &self.pings {
            let sent = std::mem::take(&mut server.pings).into_iter();
            let sent: Vec<&str> = sent.map(|over| if over == Over::Kept { "kept" } else { "fresh" }).collect();
            assert_eq!(sent, *pings, "{here}: the pings sent");
        }
        if let Some(within) = &self.next_ping_within {
            let next = server.next.expect("a next ping is planned");
            assert!(next - world.now <= duration(within), "{here}: the next is due in {:?}", next - world.now);
        }
        self.check_routes(world, &here);
    }

    fn check_routes(&self, world: &mut World, here: &str) {
        for (alias, target) in self.go.iter().flatten() {
            assert_eq!(world.goes_to(alias), *target, "{here}: where a request for {alias} goes");
        }
        for (alias, reasons) in self.why.iter().flatten() {
            let text = world.explain(alias);
            for reason in reasons {
                assert!(text.contains(reason.as_str()), "{here}: {reason:?} is missing in\n{text}");
            }
        }
        if let Some(mode) = &self.mode {
            assert_eq!(world.mode().name(), mode, "{here}: the mode");
        }
        for (alias, read_only) in self.read_only.iter().flatten() {
            assert_eq!(world.plan_to_write(alias).read_only, *read_only, "{here}: whether {alias} is read-only");
        }
        for (alias, within) in self.come_back_within.iter().flatten() {
            let after = world.plan_to_write(alias).retry_after().expect("there is no server that takes a write");
            assert!(after <= duration(within), "{here}: a write of {alias} should come back in {after:?}");
        }
        if let Some(told) = &self.told {
            assert_eq!(std::mem::take(&mut world.told), *told, "{here}: what was told");
        }
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

#[expect(clippy::disallowed_methods, reason = "simulated time has to begin somewhere")]
fn play(claim: &str) {
    let text = fs::read_to_string(folder().join(format!("{claim}.toml"))).expect("the scenario can be read");
    let scenario: Scenario = toml_edit::de::from_str(&text).unwrap_or_else(|e| panic!("{claim}: {e}"));
    let config = Config::from_toml(scenario.config.as_deref().unwrap_or(TWO_SERVERS));
    let mut world = World::new(&config.unwrap_or_else(|e| panic!("{claim}: {e}")), std::time::Instant::now());
    for server in &mut world.servers {
        let reply = scenario.start.as_ref().and_then(|start| start.get(server.name.as_str()));
        (server.fresh, server.kept) = reply.map_or((server.fresh, server.kept), |reply| (*reply, *reply));
    }
    for step in &scenario.step {
        let name = step.server.as_deref().unwrap_or("replica");
        let index =
            world.servers.iter().position(|server| server.name.as_str() == name).expect("the server is declared");
        step.pass(&mut world, index, claim);
        step.act(&mut world, index);
        world.settle();
        step.check(&mut world, index, claim);
    }
}

macro_rules! scenarios {
    ($($claim:ident,)*) => {
        $(#[test] fn $claim() { play(stringify!($claim)); })*

        #[test]
        fn every_scenario_is_played() {
            let played = [$(stringify!($claim)),*];
            let files = fs::read_dir(folder()).expect("the folder can be read").map(|entry| entry.expect("so can this").path());
            let claims = files.filter(|path| path.extension().is_some_and(|it| it == "toml"));
            let claims = claims.map(|path| path.file_stem().expect("it has a name").to_string_lossy().into_owned());
            let missing: Vec<String> = claims.filter(|claim| !played.contains(&claim.as_str())).collect();
            assert!(missing.is_empty(), "never played: {missing:?}");
        }
    };
}

scenarios! {
    a_killed_server_is_down_after_two_refusals_at_once,
    a_kill_that_only_a_lease_notices_is_answered_at_once,
    a_verdict_on_silence_takes_one_ping_timeout,
    without_traffic_a_frozen_server_is_found_at_the_monitoring_frequency,
    a_timer_that_fires_late_decides_nothing,
    a_timer_that_fires_a_little_late_still_counts,
    a_stopped_postmaster_stops_admission_and_opens_no_outage,
    a_smart_shutdown_drains_and_then_is_an_outage,
    a_server_that_dies_after_its_watched_connection_answered_is_down,
    a_doubt_younger_than_the_round_survives_it,
    a_terminated_session_leaves_its_server_up,
    a_failed_ping_that_the_confirming_one_disproves_leaves_its_server_up,
    one_session_is_never_enough_even_at_failure_threshold_one,
    a_third_failed_ping_is_awaited_at_failure_threshold_three,
    a_server_without_room_for_a_ping_opens_no_outage,
    an_inconclusive_ping_during_recovery_is_repeated_at_the_error_frequency,
    recovery_takes_success_threshold_answers,
    a_server_that_fails_again_while_recovering_stays_in_the_same_outage,
    an_outage_is_told_once_and_again_at_the_log_frequency,
    a_storm_of_doubts_gives_one_ping_per_error_frequency,
    the_end_of_the_watched_connection_is_answered_at_once_but_once_per_error_frequency,
    evidence_from_before_the_last_recovery_changes_nothing,
    errors_during_an_outage_ask_for_no_ping,
    a_slow_server_that_answers_pings_stays_up_and_is_asked_at_the_error_frequency,
    pings_of_a_healthy_server_alternate_between_new_and_watched_connection,
    a_promoted_replica_goes_on_serving_reads_and_stops_the_writes_of_the_old_primary,
    two_primaries_on_one_timeline_take_no_write,
    a_primary_ahead_of_its_rival_keeps_its_writes,
    a_rival_that_is_down_takes_no_writes_away,
    a_demoted_primary_takes_no_write_and_still_answers_reads,
    a_server_of_another_cluster_takes_no_traffic,
    a_primary_of_another_cluster_is_never_accepted_by_itself,
    a_chain_of_failover_is_followed_in_its_order_and_back,
    with_all_servers_down_a_request_learns_what_is_wrong_with_each,
    a_server_that_is_down_at_the_start_is_down_after_its_first_round,
    every_server_down_at_the_start_is_no_reason_not_to_recover,
    a_group_takes_turns_among_the_members_that_are_up,
    a_group_sends_a_read_to_the_member_with_the_fewest_leases_out,
    a_group_goes_on_a_detour_only_when_all_its_members_are_out,
    reads_turn_from_a_server_that_fails_half_of_its_calls_and_come_back_after_two_trials,
    a_slow_server_is_behind_the_others_and_opens_no_outage,
    a_server_with_an_open_breaker_is_used_where_nobody_else_serves,
    a_breaker_that_is_open_when_its_server_goes_down_closes_with_the_outage,
    an_open_breaker_of_a_primary_turns_no_request_from_it,
    a_primary_that_is_out_makes_its_alias_read_only_until_it_is_back,
    with_its_replica_out_too_a_primary_that_is_out_is_down_and_not_read_only,
    a_demoted_primary_is_read_only_mode_however_well_it_answers,
    one_cluster_of_two_without_its_primary_is_read_only_and_the_router_degraded,
    a_group_that_misses_a_member_is_degraded_mode,
    a_primary_whose_reads_go_on_at_a_replica_is_read_only_for_writes,
}
