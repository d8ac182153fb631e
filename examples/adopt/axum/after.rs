//! A small service: pages are read from the replica, orders go to the primary. See docs/adopt.

use std::{env, error::Error};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use pgdetour::{Alias, Router};

#[derive(Clone)]
struct Shop {
    primary: Alias,
    replica: Alias,
}

const LIST: &str = "SELECT item FROM orders ORDER BY id";

type Answer<T> = Result<T, Response>;

fn failed(error: pgdetour::Error) -> Response {
    let (status, says) = match &error {
        error if error.is_read_only() => (StatusCode::SERVICE_UNAVAILABLE, "orders can be read but not placed now"),
        error if error.is_unavailable() || error.is_overloaded() => {
            (StatusCode::SERVICE_UNAVAILABLE, "come back later")
        }
        error if error.is_late() => (StatusCode::GATEWAY_TIMEOUT, "no answer in time"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong"),
    };
    let wait = error.retry_after().map_or(1, |wait| wait.as_secs() + 1);
    tracing::warn!(%error, "a request failed"); // its words name servers: not for clients
    (status, [(header::RETRY_AFTER, wait.to_string())], says).into_response()
}

async fn list(State(shop): State<Shop>) -> Answer<String> {
    let read = shop.replica.read(|client| async move { client.query(LIST, &[]).await });
    let rows = read.await.map_err(failed)?;
    Ok(rows.iter().map(|row| row.get(0)).collect::<Vec<&str>>().join("\n"))
}

async fn place(State(shop): State<Shop>, item: String) -> Answer<StatusCode> {
    let (insert, item) = ("INSERT INTO orders (item) VALUES ($1)", item.as_str());
    let write = shop.primary.write(|transaction| async move { transaction.execute(insert, &[&item]).await });
    write.await.map_err(failed)?;
    Ok(StatusCode::CREATED)
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let router = Router::from_file("pgdetour.toml").await?;
    let shop = Shop { primary: router.alias("primary")?, replica: router.alias("replica")? };
    let service = axum::Router::new().route("/orders", get(list).post(place)).with_state(shop);
    let listener = tokio::net::TcpListener::bind(env::var("LISTEN").unwrap_or("127.0.0.1:8080".into())).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, service).await?)
}
