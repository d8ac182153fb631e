//! The web service of examples/axum.rs, on real servers: what its clients are told while the primary is out.

use std::{error::Error, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use pgdetour::{
    Config, Mode, Router,
    config::{Pings, PoolSettings, Role},
    testkit::Cluster,
};
use tokio::time::timeout;
use tower::ServiceExt;

#[expect(dead_code, reason = "its `main` serves a port until it is stopped")]
#[path = "../examples/axum.rs"]
mod example;

type Tested<T = ()> = Result<T, Box<dyn Error>>;

const SOON: Duration = Duration::from_secs(25);
const MS: Duration = Duration::from_millis(1);
const TABLE: &str = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, item text NOT NULL)";

/// An answer, as a client sees it.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    retry_after: Option<u64>,
    age: Option<u64>,
    body: String,
}

async fn ask(service: &axum::Router, request: Request<Body>) -> Tested<Answer> {
    let response = timeout(SOON, service.clone().oneshot(request)).await??;
    let number = |name| response.headers().get(name)?.to_str().ok()?.parse().ok();
    let (status, retry_after, age) = (response.status(), number(header::RETRY_AFTER), number(header::AGE));
    let body = String::from_utf8(to_bytes(response.into_body(), 1 << 20).await?.into())?;
    Ok(Answer { status, retry_after, age, body })
}

async fn list(service: &axum::Router) -> Tested<Answer> {
    ask(service, Request::get("/orders").body(Body::empty())?).await
}

async fn order(service: &axum::Router, item: &'static str) -> Tested<Answer> {
    ask(service, Request::post("/orders").header("Idempotency-Key", item).body(Body::from(item))?).await
}

/// A primary and a replica, with all that the service stands on.
async fn cluster() -> Tested<Cluster> {
    let cluster = Cluster::start(1).await?;
    cluster.primary().execute(TABLE).await?;
    pgdetour::migrate(&cluster.primary().connect().await?).await?;
    Ok(cluster)
}

async fn until(router: &Router, mode: Mode) -> Tested {
    let mut events = router.events();
    let told = async {
        while router.mode() != mode {
            events.next().await.expect("the router runs");
        }
    };
    Ok(timeout(SOON, told).await?)
}

/// Lets the replica take in what was written.
async fn until_listed(service: &axum::Router, body: &str) -> Tested {
    let listed = async {
        while list(service).await?.body != body {}
        Ok(())
    };
    timeout(SOON, listed).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_primary_clients_read_and_are_told_when_to_come_back_for_an_order() -> Tested {
    let cluster = cluster().await?;
    let pings = Pings { outage_ping_frequency: 2500 * MS, error_ping_frequency: 50 * MS, ..Pings::default() };
    let config = Config::builder()
        .pings(pings)
        .server("primary", Role::Primary, cluster.primary().url())
        .server("replica", Role::Replica, cluster.replica(0).url())
        .build()?;
    let router: Router = Router::start(config).await?;
    let service = example::service(&router)?;
    let placed = order(&service, "two apples").await?;
    assert_eq!((placed.status, placed.body.as_str()), (StatusCode::CREATED, "1"), "{placed:?}");
    let again = order(&service, "two apples").await?;
    assert_eq!((again.status, again.body.as_str()), (StatusCode::CREATED, "1"), "{again:?}");
    let nameless = ask(&service, Request::post("/orders").body(Body::from("a plum"))?).await?;
    assert_eq!(nameless.status, StatusCode::BAD_REQUEST);
    until_listed(&service, "two apples").await?;
    let report = ask(&service, Request::get("/reports/orders").body(Body::empty())?).await?;
    assert_eq!((report.status, report.body.as_str()), (StatusCode::OK, "1"), "{report:?}");

    cluster.primary().kill().await?;
    until(&router, Mode::ReadOnly).await?;
    let refused = order(&service, "three pears").await?;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.retry_after.is_some_and(|after| (1..=3).contains(&after)), "{refused:?}");
    assert_eq!(refused.body, "orders can be read but not placed now");
    let listed = list(&service).await?;
    assert_eq!((listed.status, listed.age, listed.body.as_str()), (StatusCode::OK, Some(0), "two apples"));

    cluster.replica(0).kill().await?;
    until(&router, Mode::Down).await?;
    let stale = list(&service).await?;
    assert_eq!((stale.status, stale.body.as_str()), (StatusCode::OK, "two apples"));
    let closed = ask(&service, Request::get("/reports/orders").body(Body::empty())?).await?;
    assert!(
        closed.status == StatusCode::SERVICE_UNAVAILABLE && closed.body.starts_with("This is closed"),
        "{closed:?}"
    );
    assert!(closed.retry_after.is_some_and(|after| (1..=3).contains(&after)), "{closed:?}");
    let refused = order(&service, "three pears").await?;
    assert_eq!((refused.status, refused.body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "come back later"));
    assert!(refused.retry_after.is_some(), "{refused:?}");

    cluster.primary().start().await?;
    cluster.replica(0).start().await?;
    until(&router, Mode::Normal).await?;
    let placed = order(&service, "three pears").await?;
    assert_eq!(placed.status, StatusCode::CREATED, "{placed:?}");
    until_listed(&service, "three pears\ntwo apples").await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_full_pool_are_told_to_come_back_when_its_line_is_another() -> Tested {
    let cluster = cluster().await?;
    let pool = PoolSettings { acquire_timeout: 1_500 * MS, ..PoolSettings::of_size(1) };
    let config = Config::builder()
        .pool(pool)
        .server("primary", Role::Primary, cluster.primary().url())
        .server("replica", Role::Replica, cluster.replica(0).url())
        .build()?;
    let router: Router = Router::start(config).await?;
    let service = example::service(&router)?;
    let _all = router.alias("primary")?.get().await?;
    let refused = order(&service, "two apples").await?;
    assert_eq!((refused.status, refused.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(2)), "{refused:?}");
    Ok(())
}
