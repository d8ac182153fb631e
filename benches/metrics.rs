//! What do the metrics cost a request? The same through a router that is observed and through one that is not, in turns.

mod support;

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use pgdetour::{
    Alias, Config, Router,
    config::{PoolSettings, Role},
    metrics,
    testkit::{Cluster, Server},
};

use support::{
    Fallible, Judged, Row, Unit, Wanted, progress,
    turns::{in_tasks, in_turns, tasks_of},
};

/// Connections of each pool, all open and idle before anything is measured.
const SIZE: usize = 16;

/// Takes a connection and gives it back, `times` over, in each of `tasks` tasks; how long all of them took.
async fn borrow(alias: &Alias, tasks: usize, times: usize) -> Duration {
    in_tasks(alias, tasks, move |alias, _| async move {
        for _ in 0..times {
            drop(alias.get().await.expect("the server is up"));
        }
    })
    .await
}

/// A router with all connections of its one alias open.
async fn route(server: &Server) -> Fallible<(Router, Alias)> {
    let pool = PoolSettings { max_size: SIZE, ..PoolSettings::default() };
    let config = Config::builder().pool(pool).server("primary", Role::Primary, server.url()).build()?;
    let router: Router = Router::start(config).await?;
    let alias = router.alias("primary")?;
    let mut held = Vec::new();
    for _ in 0..SIZE {
        held.push(alias.get().await?);
    }
    drop(held);
    Ok((router, alias))
}

async fn measure(_: Wanted) -> Fallible<Vec<Row>> {
    let cluster = Cluster::builder().setting("max_connections", "100").start().await?;
    let (off, alias_off) = route(cluster.primary()).await?;
    let (on, alias_on) = route(cluster.primary()).await?;
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let observed = metrics::observe_with(&on, Arc::new(recorder));
    let mut rows = Vec::new();
    for tasks in [1, 8] {
        progress(format_args!("get and drop, metrics on and off, {tasks} tasks"));
        rows.push(Row {
            measure: format!("`Alias::get()` + drop with metrics on over off, {}", tasks_of(tasks)),
            unit: Unit::Ratio,
            judged: Judged::MedianAtMost,
            must: 1.05,
            aim: 1.02,
            spread: in_turns(|times| borrow(&alias_off, tasks, times), |times| borrow(&alias_on, tasks, times)).await,
        });
    }
    observed.refresh();
    let routed = handle.render().lines().any(|line| {
        line.starts_with("pgdetour_routes_total") && line.contains("reason=\"own\"") && !line.ends_with(" 0")
    });
    assert!(routed, "nothing was counted");
    on.shutdown().await;
    off.shutdown().await;
    Ok(rows)
}

fn main() -> Fallible<()> {
    support::run(measure)
}
