//! A small service: pages are read from the replica, orders go to the primary. See docs/adopt.

use std::{env, error::Error};

use axum::{extract::State, http::StatusCode, routing::get};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, deadpool::Pool};

mod schema {
    diesel::table! {
        orders (id) {
            id -> BigInt,
            item -> Text,
        }
    }
}

use schema::orders;

#[derive(Clone)]
struct Shop {
    primary: Pool<diesel_async::AsyncPgConnection>,
    replica: Pool<diesel_async::AsyncPgConnection>,
}

type Answer<T> = Result<T, (StatusCode, String)>;

fn failed(error: impl Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn list(State(shop): State<Shop>) -> Answer<String> {
    let mut conn = shop.replica.get().await.map_err(failed)?;
    let select = orders::table.select(orders::item).order(orders::id);
    let items: Vec<String> = select.load(&mut conn).await.map_err(failed)?;
    Ok(items.join("\n"))
}

async fn place(State(shop): State<Shop>, item: String) -> Answer<StatusCode> {
    let mut conn = shop.primary.get().await.map_err(failed)?;
    let order = diesel::insert_into(orders::table).values(orders::item.eq(item));
    order.execute(&mut conn).await.map_err(failed)?;
    Ok(StatusCode::CREATED)
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let pool = |url| Pool::builder(AsyncDieselConnectionManager::new(env::var(url).unwrap_or_default())).build();
    let shop = Shop { primary: pool("PRIMARY_URL")?, replica: pool("REPLICA_URL")? };
    let service = axum::Router::new().route("/orders", get(list).post(place)).with_state(shop);
    let listener = tokio::net::TcpListener::bind(env::var("LISTEN").unwrap_or("127.0.0.1:8080".into())).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, service).await?)
}
