//! A web service behind the router: a page that is read with a fallback, an order that is placed once however often it is sent, a
//! report that is closed while its server is out, and what a client is told when none of it can be done now.
//!
//! ```sh
//! cargo run --features cli -- migrate pgdetour.toml
//! cargo run --example axum --features cache,once,tower -- pgdetour.toml
//! curl -i localhost:8080/orders
//! curl -i localhost:8080/reports/orders
//! curl -i localhost:8080/orders -H 'Idempotency-Key: 7f3a' -d 'two apples'
//! ```
//!
//! With the table: `CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, item text NOT NULL)`.

use std::{error::Error, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use pgdetour::{Alias, Fallback, Router, Served, layer::OutageLayer};

/// Both aliases, resolved once.
#[derive(Clone)]
pub(crate) struct Shop {
    primary: Alias,
    replica: Alias,
}

/// How old a page may be that is shown in place of a live one.
const STALE_FOR: Duration = Duration::from_secs(300);

/// What a client is told to wait where nobody knows better.
const A_MOMENT: Duration = Duration::from_secs(1);

/// The service, over a router with the aliases `primary` and `replica`.
pub(crate) fn service(router: &Router) -> Result<axum::Router, pgdetour::Error> {
    let shop = Shop { primary: router.alias("primary")?, replica: router.alias("replica")? };
    // The primary has enough to do while it stands in for the replica.
    let outages = OutageLayer::new(router).monitored().when_out(
        "replica",
        |request| request.uri().path().starts_with("/reports"),
        |outage| outage.response(),
    )?;
    let service = axum::Router::new().route("/orders", get(list).post(place)).route("/reports/orders", get(report));
    Ok(service.layer(outages).with_state(shop))
}

/// Reads on whatever server answers; where none does, what was read last.
async fn list(State(shop): State<Shop>) -> Result<Response, Failure> {
    let orders = shop.replica.read_or(Fallback::last_good("orders", STALE_FOR), |client| async move {
        let rows = client.query("SELECT item FROM orders ORDER BY id DESC LIMIT 20", &[]).await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()
    });
    let (orders, age) = match orders.await? {
        Served::Live(orders) | Served::Default(orders) => (orders, Duration::ZERO),
        Served::Stale { value, age } => (value, age),
    };
    Ok(([(header::AGE, age.as_secs().to_string())], orders.join("\n")).into_response())
}

/// Reads a lot, on the replica.
async fn report(State(shop): State<Shop>) -> Result<String, Failure> {
    let count = shop.replica.read(|client| async move {
        let row = client.query_one("SELECT count(*) FROM orders", &[]).await?;
        row.try_get::<_, i64>(0)
    });
    Ok(count.await?.to_string())
}

/// Writes once for each key, or says at once that it cannot: then the same order may be sent again.
async fn place(State(shop): State<Shop>, headers: HeaderMap, item: String) -> Result<Response, Failure> {
    let key =
        headers.get("idempotency-key").and_then(|key| key.to_str().ok()).filter(|key| (1..=255).contains(&key.len()));
    let Some(key) = key else {
        return Ok((StatusCode::BAD_REQUEST, "send an Idempotency-Key").into_response());
    };
    let item = item.as_str();
    let placed = shop.primary.write_once(key, |transaction| async move {
        let row = transaction.query_one("INSERT INTO orders (item) VALUES ($1) RETURNING id", &[&item]).await?;
        row.try_get::<_, i64>(0)
    });
    Ok((StatusCode::CREATED, placed.await?.to_string()).into_response())
}

/// What the router could not do, as HTTP tells it.
struct Failure(pgdetour::Error);

impl From<pgdetour::Error> for Failure {
    fn from(error: pgdetour::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(error) = self;
        // Its words name servers: for the log of this service, and not for its clients.
        eprintln!("{error}");
        if error.is_late() {
            return (StatusCode::GATEWAY_TIMEOUT, "no answer in time").into_response();
        }
        if !error.is_unavailable() && !error.is_overloaded() {
            return (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong").into_response();
        }
        let says = if error.is_read_only() { "orders can be read but not placed now" } else { "come back later" };
        let wait = error.retry_after().unwrap_or(A_MOMENT);
        // Whole seconds, and not too early.
        let wait = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, wait.to_string())], says).into_response()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = std::env::args().nth(1).ok_or("name a configuration file")?;
    let router: Router = Router::from_file(config).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    Ok(axum::serve(listener, service(&router)?).await?)
}
