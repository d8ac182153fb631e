//! The guides of docs/adopt: what each shows is the difference of two programs that compile, it is short, and on real servers the program
//! that has moved goes on reading when its replica is killed.

use std::{env, error::Error, sync::Arc, time::Duration};

use pgdetour::testkit::{Cluster, Stop};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};

use self::{
    guide::Guide,
    running::{PROGRAM, Running},
};

#[path = "adopt/diff.rs"]
mod diff;
#[path = "adopt/guide.rs"]
mod guide;
#[path = "adopt/running.rs"]
mod running;

type Tested<T = ()> = Result<T, Box<dyn Error>>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(25);

/// Clients that read at once.
const READERS: usize = 4;

const TABLE: &str = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL)";

macro_rules! programs {
    ($($name:ident: $program:literal at $path:literal,)*) => {
        $(#[path = $path]
        mod $name;)*

        /// What the tests start as a process of its own.
        #[test]
        #[ignore = "no test: a program that the tests start"]
        fn program() -> Tested {
            match env::var(PROGRAM)?.as_str() {
                $($program => $name::main(),)*
                other => Err(format!("there is no program {other:?}").into()),
            }
        }
    };
}

programs! {
    deadpool_before: "deadpool/before" at "../examples/adopt/deadpool/before.rs",
    deadpool_after: "deadpool/after" at "../examples/adopt/deadpool/after.rs",
    deadpool_read: "deadpool/read" at "../examples/adopt/deadpool/read.rs",
    bb8_before: "bb8/before" at "../examples/adopt/bb8/before.rs",
    bb8_after: "bb8/after" at "../examples/adopt/bb8/after.rs",
    bb8_read: "bb8/read" at "../examples/adopt/bb8/read.rs",
    sqlx_before: "sqlx/before" at "../examples/adopt/sqlx/before.rs",
    sqlx_after: "sqlx/after" at "../examples/adopt/sqlx/after.rs",
    sqlx_read: "sqlx/read" at "../examples/adopt/sqlx/read.rs",
    axum_before: "axum/before" at "../examples/adopt/axum/before.rs",
    axum_after: "axum/after" at "../examples/adopt/axum/after.rs",
    diesel_before: "diesel-async/before" at "../examples/adopt/diesel-async/before.rs",
    diesel_after: "diesel-async/after" at "../examples/adopt/diesel-async/after.rs",
    diesel_read: "diesel-async/read" at "../examples/adopt/diesel-async/read.rs",
}

/// A pair with one order, which the replica knows too.
async fn pair() -> Tested<Cluster> {
    let cluster = Cluster::start(1).await?;
    cluster.primary().execute(TABLE).await?;
    cluster.primary().execute("INSERT INTO orders (item) VALUES ('two apples')").await?;
    cluster.wait_for_replay().await?;
    Ok(cluster)
}

/// What readers met while the replica was killed: pages, and reads that failed.
#[derive(Debug, Default)]
struct Met {
    pages: usize,
    failures: Vec<String>,
}

/// How a replica ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Kill,
    /// Each of its sessions is told so.
    Stop,
}

/// Has clients read all the time, ends the replica under them, and lets them go on until its outage is told and well after.
async fn end_under_readers(service: &Arc<Running>, cluster: &Cluster, end: End) -> Tested<Met> {
    let (stop, stopped) = watch::channel(false);
    let (count, counted) = watch::channel(0_usize);
    let count = Arc::new(count);
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (service, stopped, count) = (Arc::clone(service), stopped.clone(), Arc::clone(&count));
        readers.spawn(async move {
            let mut met = Met::default();
            while !*stopped.borrow() {
                match service.list().await {
                    Ok(_) => met.pages += 1,
                    Err(failure) => met.failures.push(failure),
                }
                count.send_modify(|count| *count += 1);
            }
            met
        });
    }
    let mut counted = counted;
    let mut more = async |by: usize| {
        let until = *counted.borrow() + by;
        timeout(SOON, counted.wait_for(|count| *count >= until)).await.map(drop)
    };
    more(200).await?;
    match end {
        End::Kill => cluster.replica(0).kill().await?,
        End::Stop => cluster.replica(0).stop(Stop::Fast).await?,
    }
    service.says("outage opened").await?;
    more(400).await?;
    stop.send_replace(true);
    let mut all = Met::default();
    while let Some(met) = readers.join_next().await {
        let Met { pages, failures } = met?;
        all.pages += pages;
        all.failures.extend(failures);
    }
    Ok(all)
}

/// Reads until the answer is as wanted.
async fn until_listed(service: &Running, wanted: impl Fn(&Result<String, String>) -> bool) -> Tested {
    let mut tick = interval(Duration::from_millis(20));
    let listed = async {
        while !wanted(&service.list().await) {
            tick.tick().await;
        }
    };
    Ok(timeout(SOON, listed).await?)
}

/// Goes through a guide: the program as it was, after the move, and with the read that survives its server.
async fn follow(stack: &'static str) -> Tested {
    let guide = Guide::of(stack)?;
    guide.shows_few(&["before", "after", "read"])?;
    let (configuration, cluster) = (guide.configuration()?, pair().await?);
    let start = async |program| Running::start(&format!("{stack}/{program}"), &cluster, &configuration).await;

    let before = start("before").await?;
    assert_eq!(before.list().await?, "two apples");
    before.place("a pear").await?;
    cluster.replica(0).kill().await?;
    // What has not moved does not read without its replica.
    until_listed(&before, Result::is_err).await?;
    drop(before);
    cluster.replica(0).start().await?;
    cluster.wait_for_replay().await?;

    // Of what is run over `get` the reads that were under way are lost, one of each client.
    for (program, end, may_fail) in [("after", End::Kill, READERS), ("read", End::Kill, 0), ("read", End::Stop, 0)] {
        let service = Arc::new(start(program).await?);
        let met = end_under_readers(&service, &cluster, end).await?;
        assert!(met.failures.len() <= may_fail, "{stack}/{program}: {met:?}");
        println!("{stack}/{program}: {end:?} the replica, {} pages, {} reads failed", met.pages, met.failures.len());
        service.place("a plum").await?;
        until_listed(&service, |page| page.as_ref().is_ok_and(|page| page.ends_with("a plum"))).await?;
        cluster.replica(0).start().await?;
        service.says("recovered").await?;
        println!("{}", service.log().join("\n"));
        cluster.wait_for_replay().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadpool_service_moves_by_its_guide_and_reads_on_without_its_replica() -> Tested {
    follow("deadpool").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bb8_service_moves_by_its_guide_and_reads_on_without_its_replica() -> Tested {
    follow("bb8").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diesel_async_service_moves_by_its_guide_and_reads_on_without_its_replica() -> Tested {
    follow("diesel-async").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlx_service_moves_by_its_guide_and_reads_on_without_its_replica() -> Tested {
    follow("sqlx").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_axum_service_tells_its_clients_when_to_come_back() -> Tested {
    let guide = Guide::of("axum")?;
    guide.shows(&["before", "after"])?;
    let (configuration, cluster) = (guide.configuration()?, pair().await?);
    let service = Running::start("axum/after", &cluster, &configuration).await?;
    service.place("a pear").await?;
    until_listed(&service, |page| page.as_ref().is_ok_and(|page| page == "two apples\na pear")).await?;

    cluster.primary().kill().await?;
    service.says("outage opened").await?;
    let refused = service.place("a plum").await.expect_err("there is no primary");
    assert!(refused.contains(" 503 ") && refused.contains("retry-after: "), "{refused}");
    assert!(refused.contains("orders can be read but not placed now"), "{refused}");
    assert!(!refused.contains("127.0.0.1"), "it names a server: {refused}");
    assert_eq!(service.list().await?, "two apples\na pear");

    cluster.replica(0).kill().await?;
    let down = |page: &Result<String, String>| page.as_ref().is_err_and(|page| page.contains("come back later"));
    until_listed(&service, down).await?;
    let page = service.list().await.expect_err("both are out");
    assert!(page.contains(" 503 ") && page.contains("retry-after: "), "{page}");

    cluster.primary().start().await?;
    cluster.replica(0).start().await?;
    until_listed(&service, Result::is_ok).await?;
    timeout(SOON, async { while service.place("a plum").await.is_err() {} }).await?;
    Ok(())
}
