//! What servers run out of, and what they end themselves: locks, time, disk, and connections that all want back at once. No
//! outage (F54, F55, F58, F59).

use std::error::Error;

use pgdetour::{Router, config::PoolSettings, policy::Outcome, testkit::Server};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

use crate::{
    harness::{Load, MS, Pair, SOON, Story, Tested, belief, now, number, soon},
    write::{enter, entries, with_table},
};

/// The SQLSTATE of an error that a call has kept.
fn code(error: &pgdetour::Error) -> Option<&SqlState> {
    Error::source(error)
        .and_then(|source| source.downcast_ref::<tokio_postgres::Error>())
        .and_then(|source| source.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_or_a_statement_that_takes_too_long_is_its_caller_s_alone() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router: Router = pair.router().await?;
    let (primary, mut story) = (router.alias("primary")?, Story::of(&router));
    let holder = pair.primary().connect().await?;
    holder.batch_execute("BEGIN; LOCK TABLE ledger").await?;
    for (limit, expected) in
        [("lock_timeout", SqlState::LOCK_NOT_AVAILABLE), ("statement_timeout", SqlState::QUERY_CANCELED)]
    {
        let within = &format!("SET LOCAL {limit} = 50");
        let write = primary.write(|transaction| async move {
            transaction.batch_execute(within).await?;
            enter(&transaction, 1).await
        });
        let error = write.await.expect_err("the lock is held");
        assert_eq!((code(&error), error.attempts().len()), (Some(&expected), 1), "{error}");
        assert_eq!(
            (error.outcome(), error.is_late(), error.is_unavailable()),
            (Outcome::RolledBack, false, false),
            "{error}"
        );
        let read = primary.read(|lease| async move {
            lease.batch_execute("BEGIN").await?;
            lease.batch_execute(within).await?;
            number(&lease, "SELECT count(*) FROM ledger").await
        });
        let error = read.await.expect_err("the lock is held");
        assert_eq!((code(&error), error.attempts().len()), (Some(&expected), 1), "{error}");
        assert!(!belief(&router, "primary").is_doubted(), "{limit}");
    }
    holder.batch_execute("ROLLBACK").await?;
    primary.write(|transaction| async move { enter(&transaction, 1).await }).await?;
    assert_eq!((entries(&pair).await?, story.so_far("primary").await), (1, vec![]));
    Ok(())
}

/// Puts the file of an empty table on a device that is always full, and gives what undoes it.
async fn fill_disk_under(server: &Server, table: &str) -> Result<impl FnOnce() -> std::io::Result<()>, Box<dyn Error>> {
    let path: String =
        server.connect().await?.query_one("SELECT pg_relation_filepath($1::text::regclass)", &[&table]).await?.get(0);
    let (file, away) = (server.data_dir().join(&path), server.data_dir().join("away"));
    std::fs::rename(&file, &away)?;
    std::os::unix::fs::symlink("/dev/full", &file)?;
    // A file that is renamed to a symbolic link takes its place.
    Ok(move || std::fs::rename(away, file))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_rolls_the_write_back_and_is_no_outage() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    pair.primary().execute("CREATE TABLE elsewhere (entry int8)").await?;
    let router: Router = pair.router().await?;
    let (primary, mut story) = (router.alias("primary")?, Story::of(&router));
    let write = async |table: &str| {
        let sql = &format!("INSERT INTO {table} VALUES (1)");
        primary.write(|transaction| async move { transaction.batch_execute(sql).await }).await
    };
    let make_room = fill_disk_under(pair.primary(), "ledger").await?;
    let error = write("ledger").await.expect_err("the disk is full");
    assert_eq!((code(&error), error.attempts().len()), (Some(&SqlState::DISK_FULL), 1), "{error}");
    assert_eq!((error.outcome(), error.is_unavailable()), (Outcome::RolledBack, false), "{error}");
    write("elsewhere").await?;
    assert_eq!(primary.read(|lease| async move { number(&lease, "SELECT count(*) FROM elsewhere").await }).await?, 1);
    make_room()?;
    // A session that has the full device open would keep it: whatever is altered is opened anew.
    pair.primary().execute("ALTER TABLE ledger SET (fillfactor = 90)").await?;
    write("ledger").await?;
    assert_eq!((entries(&pair).await?, story.so_far("primary").await), (1, vec![]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_reads_whose_server_is_killed_open_one_outage_and_none_fails_or_hangs() -> Tested {
    let pair = Pair::start().await?;
    let pool = PoolSettings { max_size: 8, max_waiting: 10_000, acquire_timeout: 2 * SOON, ..PoolSettings::default() };
    let router: Router = Router::start(pair.config().pool(pool).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut reads = JoinSet::new();
    for _ in 0..10_000 {
        let replica = replica.clone();
        reads.spawn(async move { replica.read(|lease| async move { number(&lease, "SELECT 1::int8").await }).await });
    }
    for _ in 0..500 {
        assert_eq!(soon("a read", reads.join_next()).await?.ok_or("there are more")???, 1);
    }
    pair.replica().kill().await?;
    while let Some(read) = soon("a read", reads.join_next()).await? {
        assert_eq!(read??, 1);
    }
    story.until("replica", "outage_opened").await?;
    assert_eq!(story.so_far("replica").await, ["outage_opened"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_connections_come_back_slowly_and_no_read_fails() -> Tested {
    let pair = Pair::start().await?;
    let pool = PoolSettings { max_size: 16, acquire_timeout: SOON, ..PoolSettings::default() };
    let router: Router = Router::start(pair.config().pool(pool).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let load = Load::reading(&replica);
    pair.replica().kill().await?;
    story.until("replica", "outage_opened").await?;
    pair.replica().start().await?;
    story.until("replica", "outage_closed").await?;
    let mut wanted = JoinSet::new();
    for _ in 0..16 {
        let replica = replica.clone();
        wanted.spawn(async move {
            let lease = replica.get().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((now(), lease))
        });
    }
    let (mut times, mut leases) = (Vec::new(), Vec::new());
    while let Some(lent) = soon("a lease", wanted.join_next()).await? {
        let (at, lease) = lent??;
        assert!(!lease.is_detour(), "reads are back at home");
        times.push(at);
        leases.push(lease);
    }
    // One in the first step, then two, four and eight: the last one comes in the fifth, and a step takes 75 ms at least.
    let took = *times.last().ok_or("sixteen")? - times[0];
    assert!(took >= 200 * MS, "{took:?}");
    drop(leases);
    let report = load.end().await?;
    assert_eq!(report.failed, 0, "{report:?}");
    Ok(())
}
