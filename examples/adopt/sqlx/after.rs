//! A small service: pages are read from the replica, orders go to the primary. See docs/adopt.

use std::{env, error::Error};

use axum::{extract::State, http::StatusCode, routing::get};
use pgdetour::{Alias, Router, pool::Sqlx};

#[derive(Clone)]
struct Shop {
    primary: Alias<Sqlx>,
    replica: Alias<Sqlx>,
}

const LIST: &str = "SELECT item FROM orders ORDER BY id";

type Answer<T> = Result<T, (StatusCode, String)>;

fn failed(error: impl Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn list(State(shop): State<Shop>) -> Answer<String> {
    let items: Vec<String> = sqlx::query_scalar(LIST).fetch_all(&shop.replica).await.map_err(failed)?;
    Ok(items.join("\n"))
}

async fn place(State(shop): State<Shop>, item: String) -> Answer<StatusCode> {
    sqlx::query("INSERT INTO orders (item) VALUES ($1)").bind(item).execute(&shop.primary).await.map_err(failed)?;
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
