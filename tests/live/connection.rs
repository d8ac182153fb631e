//! Connections that are reset, closed, cut, starved, garbled or swallowed: no read fails, and no write is done that was reported
//! undone (F14-F17, F23, F25-F28).

use std::{
    error::Error,
    sync::atomic::{AtomicUsize, Ordering},
};

use pgdetour::{
    Alias, Lease, Router,
    config::{BreakerSettings, CallSettings, Pings},
    policy::Outcome,
    testkit::{Direction, Fault, Proxy},
};

use crate::{
    harness::{Load, MS, Pair, SOON, Story, Tested, number, pid, pinged, quick, soon},
    write::{enter, entries, proxied, until_none_is_inside, with_table, write_into},
};

const EVERYTHING: Fault = Fault::BlackHole { direction: Direction::Both };

/// A router whose way to the replica goes through a proxy.
async fn behind_proxy(pair: &Pair, pings: Pings) -> Result<(Proxy, Router), Box<dyn Error>> {
    let proxy = Proxy::start((pair.replica().host(), pair.replica().port())).await?;
    let way = pair.replica().url_at("127.0.0.1", proxy.addr().port());
    let router = Router::start(pair.config_to(&way).pings(pings).build()?).await?;
    Ok((proxy, router))
}

/// Pings that find silence soon.
fn brisk() -> Pings {
    Pings { ping_timeout: 500 * MS, outage_ping_timeout: 300 * MS, ..quick() }
}

/// The way to the replica breaks under load and heals after so many reads: none fails, and none takes ten seconds.
async fn no_read_fails_on(fault: Fault, reads_meanwhile: usize) -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = behind_proxy(&pair, brisk()).await?;
    let (alias, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::reading(&alias);
    load.until_at_home(20).await?;
    proxy.set(fault).await?;
    story.until("replica", "outage_opened").await?;
    load.until_more(reads_meanwhile).await?;
    proxy.set(Fault::None).await?;
    story.until("replica", "outage_closed").await?;
    let report = load.end_at_home().await?;
    assert!(report.slowest < 6000 * MS, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_or_straggles_in_a_black_hole_of_ten_seconds() -> Tested {
    no_read_fails_on(EVERYTHING, 1800).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_only_the_answers_are_lost() -> Tested {
    no_read_fails_on(Fault::BlackHole { direction: Direction::Down }, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_its_connections_are_reset_old_and_new() -> Tested {
    no_read_fails_on(Fault::Reset, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_its_answers_are_cut_in_the_middle() -> Tested {
    no_read_fails_on(Fault::CutAfter { bytes: 40, direction: Direction::Down }, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_its_answers_are_garbled() -> Tested {
    no_read_fails_on(Fault::Garble, 100).await
}

/// All connections to the replica end under load, and new ones can be made: no read fails, it is no outage, and reads stay.
async fn no_read_fails_and_no_outage_opens_on(fault: Fault) -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = behind_proxy(&pair, quick()).await?;
    let (alias, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::reading(&alias);
    for _ in 0..5 {
        load.until_at_home(20).await?;
        let before = pid(&alias.get().await?).await?;
        proxy.set(fault).await?;
        load.until_more(100).await?;
        assert_ne!(pid(&alias.get().await?).await?, before, "its session has ended");
    }
    load.end_at_home().await?;
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_fail_no_read_and_open_no_outage() -> Tested {
    no_read_fails_and_no_outage_opens_on(Fault::ResetPresent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_closed_from_afar_fail_no_read_and_open_no_outage() -> Tested {
    no_read_fails_and_no_outage_opens_on(Fault::EndPresent).await
}

/// So many leases at once, and the processes behind them.
async fn lend(alias: &Alias, count: usize) -> Result<(Vec<Lease>, Vec<i32>), Box<dyn Error>> {
    let (mut leases, mut processes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let lease = soon("a lease", alias.get()).await??;
        assert!(!lease.is_detour());
        processes.push(pid(&lease).await?);
        leases.push(lease);
    }
    Ok((leases, processes))
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_were_closed_from_afar_are_passed_over_unseen() -> Tested {
    for fault in [Fault::EndPresent, Fault::ResetPresent] {
        let pair = Pair::start().await?;
        let (proxy, router) = behind_proxy(&pair, quick()).await?;
        let alias = router.alias("replica")?;
        let (leases, before) = lend(&alias, 4).await?;
        drop(leases);
        proxy.set(fault).await?;
        let admin = pair.replica().connect().await?;
        let there = "SELECT 1 FROM pg_stat_activity WHERE pid = ANY($1)";
        let gone = async {
            while !admin.query(there, &[&before]).await?.is_empty() {}
            Ok::<_, tokio_postgres::Error>(())
        };
        soon("the end of the sessions", gone).await??;
        pinged(&router, &alias).await?;
        // Nobody tries twice here.
        let (_leases, after) = lend(&alias, 4).await?;
        assert!(after.iter().all(|process| !before.contains(process)), "{before:?} {after:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_black_hole_no_connection_from_before_it_is_lent() -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = behind_proxy(&pair, brisk()).await?;
    let (alias, mut story) = (router.alias("replica")?, Story::of(&router));
    let (mut leases, before) = lend(&alias, 4).await?;
    let held = leases.pop().ok_or("four were lent")?;
    drop(leases);
    proxy.set(EVERYTHING).await?;
    story.until("replica", "outage_opened").await?;
    proxy.set(Fault::None).await?;
    story.until("replica", "outage_closed").await?;
    assert!(pid(&held).await.is_err(), "whoever holds one is not kept waiting");
    drop(held);
    let (_leases, after) = lend(&alias, 4).await?;
    assert!(after.iter().all(|process| !before.contains(process)), "{before:?} {after:?}");
    Ok(())
}

/// A read on the replica into whose statement, or before it, the network falls silent.
async fn read_into_silence(pair: &Pair, proxy: &Proxy, alias: &Alias, running: bool) -> Tested {
    let runs = AtomicUsize::new(0);
    let read = alias.read(|lease| {
        let first = runs.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if !first {
                return Ok::<_, Box<dyn Error + Send + Sync>>((
                    number(&lease, "SELECT 7::int8").await?,
                    lease.is_detour(),
                ));
            }
            let silence = async {
                if running {
                    let admin = pair.replica().connect().await?;
                    let sleeps = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
                    while admin.query(sleeps, &[]).await?.is_empty() {}
                }
                proxy.set(EVERYTHING).await?;
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            };
            let sql = "SELECT 0::int8 FROM pg_sleep(1)";
            let answer = if running {
                let (answer, silent) = tokio::join!(number(&lease, sql), silence);
                silent.and(Ok(answer))
            } else {
                silence.await?;
                Ok(number(&lease, sql).await)
            };
            Ok((answer??, lease.is_detour()))
        }
    });
    assert_eq!(soon("the read", read).await??, (7, true), "running: {running}");
    assert_eq!(runs.into_inner(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_answered_elsewhere_when_the_network_falls_silent_before_its_statement_or_under_it() -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = behind_proxy(&pair, brisk()).await?;
    let (alias, mut story) = (router.alias("replica")?, Story::of(&router));
    for running in [false, true] {
        read_into_silence(&pair, &proxy, &alias, running).await?;
        proxy.set(Fault::None).await?;
        story.until("replica", "outage_closed").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_cut_after_any_number_of_bytes_comes_back_whole() -> Tested {
    let pair = Pair::start().await?;
    // What is cut here is no outage.
    let proxy = Proxy::start((pair.replica().host(), pair.replica().port())).await?;
    let way = pair.replica().url_at("127.0.0.1", proxy.addr().port());
    let pings = Pings { failure_threshold: 1000, ..quick() };
    let calls = CallSettings { retry_budget: 100, ..CallSettings::default() };
    let breaker = BreakerSettings { breaker_failure_rate: 0, ..BreakerSettings::default() };
    let config = pair.config_to(&way).pings(pings).calls(calls).breaker_of("replica", breaker);
    let router: Router = Router::start(config.build()?).await?;
    let alias = router.alias("replica")?;
    let whole: Vec<String> = (1..=40).map(|row| format!("{row:0100}")).collect();
    for bytes in (0..=4600).step_by(97) {
        pinged(&router, &alias).await?;
        let runs = AtomicUsize::new(0);
        let read = alias.read(|lease| {
            let (proxy, first) = (&proxy, runs.fetch_add(1, Ordering::Relaxed) == 0);
            async move {
                if first {
                    proxy.set(Fault::CutAfter { bytes, direction: Direction::Down }).await?;
                }
                let rows =
                    lease.simple_query("SELECT lpad(n::text, 100, '0') FROM generate_series(1, 40) AS n").await?;
                let rows = rows.iter().filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                Ok::<_, Box<dyn Error + Send + Sync>>((rows.collect::<Vec<_>>(), lease.is_detour()))
            }
        });
        let (rows, detour) = soon("the read", read).await??;
        proxy.set(Fault::None).await?;
        // The last of them is longer than the answer, which has 4491 bytes.
        let cut = bytes < 4491;
        assert_eq!((detour, runs.into_inner()), (cut, 1 + usize::from(cut)), "{bytes}");
        assert_eq!(rows, whole, "{bytes}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_passes_single_bytes_or_few_a_second_garbles_nothing_and_is_no_outage() -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = behind_proxy(&pair, quick()).await?;
    let (alias, mut story) = (router.alias("replica")?, Story::of(&router));
    for fault in [Fault::Slice { bytes: 1 }, Fault::Throttle { bytes_per_second: 10_000 }] {
        proxy.set(fault).await?;
        let read = alias.read(|lease| async move {
            let row =
                lease.query_one("SELECT string_agg(n::text, ' ') FROM generate_series(1, 1000) AS n", &[]).await?;
            Ok::<_, tokio_postgres::Error>((row.try_get::<_, String>(0)?, lease.is_detour()))
        });
        let (text, detour) = soon("a read", read).await??;
        assert!(text.split(' ').eq((1..=1000).map(|n| n.to_string())), "{fault:?}: {text}");
        assert!(!detour, "{fault:?}");
        pinged(&router, &alias).await?;
    }
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_connection_breaks_or_falls_silent_in_its_middle_leaves_nothing() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair, 700 * MS).await?;
    let primary = router.alias("primary")?;
    let faults = [
        Fault::ResetPresent,
        Fault::EndPresent,
        Fault::Garble,
        Fault::CutAfter { bytes: 20, direction: Direction::Down },
        Fault::BlackHole { direction: Direction::Up },
        Fault::BlackHole { direction: Direction::Down },
        EVERYTHING,
    ];
    for fault in faults {
        let written = primary.write(|transaction| async {
            enter(&transaction, 1).await?;
            proxy.set(fault).await?;
            enter(&transaction, 2).await?;
            Ok::<_, Box<dyn Error + Send + Sync>>(transaction)
        });
        let error = written.await.expect_err("its answer never comes");
        assert_eq!(error.outcome(), Outcome::RolledBack, "{fault:?}: {error}");
        assert_eq!(error.is_late(), matches!(fault, Fault::BlackHole { .. }), "{fault:?}: {error}");
        proxy.set(Fault::None).await?;
        until_none_is_inside(&pair).await?;
        assert_eq!(entries(&pair).await?, 0, "{fault:?}");
        pinged(&router, &primary).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_idle_connection_was_closed_from_afar_takes_another() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair, SOON).await?;
    let primary = router.alias("primary")?;
    for (written, fault) in (1..).zip([Fault::EndPresent, Fault::ResetPresent]) {
        drop(primary.get().await?);
        proxy.set(fault).await?;
        primary.write(|transaction| async move { enter(&transaction, 1).await }).await?;
        assert_eq!(entries(&pair).await?, written, "{fault:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_the_network_holds_up_is_unknown_since_it_may_arrive_yet() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair, 1000 * MS).await?;
    let hole = Fault::BlackHole { direction: Direction::Up };
    let error = write_into(&router.alias("primary")?, &proxy, hole).await.expect_err("no answer comes");
    assert_eq!((error.outcome(), error.is_late()), (Outcome::Unknown, true), "{error}");
    assert_eq!(entries(&pair).await?, 0);
    proxy.set(Fault::None).await?;
    let arrived = async {
        while entries(&pair).await? == 0 {}
        Tested::Ok(())
    };
    soon("the COMMIT", arrived).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_byte_by_byte_or_few_a_second_is_committed() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair, SOON).await?;
    let primary = router.alias("primary")?;
    for (written, fault) in (1..).zip([Fault::Slice { bytes: 1 }, Fault::Throttle { bytes_per_second: 10_000 }]) {
        proxy.set(fault).await?;
        primary.write(|transaction| async move { enter(&transaction, 1).await }).await?;
        assert_eq!(entries(&pair).await?, written, "{fault:?}");
    }
    Ok(())
}
