//! What does the routing decision cost by itself, in health and on a detour? It has to vanish in the microsecond of a pool.

mod support;

use std::{fs, hint::black_box, path::Path, time::Duration};

use criterion::Criterion;
use pgdetour::{
    Config, Router,
    config::{AliasName, Role},
    testkit::{Cluster, Fault, Proxy},
};

use support::{Fallible, Judged, Row, Spread, Unit};

/// What criterion keeps of one benchmark: how often each sample ran it, and how long all of that took.
fn spread(home: &Path, name: &str) -> Fallible<Spread> {
    let sample = fs::read_to_string(home.join(name).join("new").join("sample.json"))?;
    let sample: serde_json::Value = serde_json::from_str(&sample)?;
    let numbers = |key: &str| sample[key].as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64);
    Ok(numbers("times").zip(numbers("iters")).map(|(nanoseconds, count)| nanoseconds / count / 1e9).collect())
}

fn measure() -> Fallible<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (cluster, proxy, router) = runtime.block_on(async {
        let cluster = Cluster::start(0).await?;
        let server = cluster.primary();
        let proxy = Proxy::start((server.host(), server.port())).await?;
        proxy.set(Fault::Refuse).await?;
        let replica = server.url_at("127.0.0.1", proxy.addr().port());
        let builder = Config::builder().server("primary", Role::Primary, server.url());
        let router: Router = Router::start(builder.server("replica", Role::Replica, replica).build()?).await?;
        Fallible::Ok((cluster, proxy, router))
    })?;
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("criterion");
    let mut criterion = Criterion::default()
        .output_directory(&home)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let mut rows = Vec::new();
    for (name, alias) in [("healthy", "primary"), ("on a detour", "replica")] {
        let alias = router.alias(alias)?;
        assert_eq!(alias.target().as_ref().map(AliasName::as_str), Some("primary"), "{name}");
        criterion.bench_function(name, |bencher| bencher.iter(|| black_box(&alias).target().is_some()));
        let measure = format!("the routing decision alone, {name}");
        let spread = spread(&home, name)?;
        rows.push(Row { measure, unit: Unit::Seconds, judged: Judged::MedianAtMost, must: 50e-9, aim: 10e-9, spread });
    }
    let postgres = runtime.block_on(support::version(cluster.primary()))?;
    support::print(&rows, &postgres);
    runtime.block_on(router.shutdown());
    drop((proxy, cluster));
    Ok(())
}

fn main() -> Fallible<()> {
    if support::is_wanted() { measure() } else { Ok(()) }
}
