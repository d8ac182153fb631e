//! What becomes of requests and leases when the configuration changes or the router ends?

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::{Alias, Router, fake::FakePool};
use crate::config::{Config, PoolSettings, Role};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

/// A server that is up and has no room for a ping.
async fn full_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let words = b"SFATAL\0VFATAL\0C53300\0Mtoo many clients already\0\0";
    let length = u32::try_from(words.len() + 4).unwrap();
    let refusal = [b"E", &length.to_be_bytes()[..], words].concat();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let length = socket.read_u32().await.unwrap();
            socket.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
            socket.write_all(&refusal).await.unwrap();
        }
    });
    port
}

fn config(port: u16) -> Config {
    let pool = PoolSettings { max_size: 1, acquire_timeout: SOON, ..PoolSettings::default() };
    let url = format!("postgres://app@127.0.0.1:{port}/app?sslmode=disable");
    Config::builder().pool(pool).server("primary", Role::Primary, url).build().unwrap()
}

async fn router() -> (Router<FakePool>, Config) {
    let config = config(full_server().await);
    let router = Router::start_with(config.clone(), |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    (router, config)
}

/// A request that waits for a connection.
async fn waiting(alias: Alias<FakePool>) -> tokio::task::JoinHandle<Result<super::Lease<FakePool>, super::Error>> {
    let (line, get) = (alias.line.clone(), tokio::spawn(async move { alias.get().await }));
    let server = &line.route.own()[0].server;
    while server.cell.leases().out < 2 {
        tokio::task::yield_now().await;
    }
    get
}

#[tokio::test]
async fn a_request_that_waits_in_a_full_pool_is_served_across_a_reload() {
    let (router, config) = router().await;
    let alias = router.alias("primary").unwrap();
    let _all = alias.get().await.unwrap();
    let waiting = waiting(alias).await;
    router.reload(config).await.unwrap();
    timeout(SOON / 2, waiting).await.unwrap().unwrap().expect("the server is up, before and after");
}

#[tokio::test]
async fn a_request_that_waits_while_the_router_ends_learns_that() {
    let (router, _) = router().await;
    let alias = router.alias("primary").unwrap();
    let _all = alias.get().await.unwrap();
    let waiting = waiting(alias).await;
    router.shutdown().await;
    assert!(timeout(SOON / 2, waiting).await.unwrap().unwrap().unwrap_err().is_closed());
}

#[tokio::test]
async fn what_was_lent_before_a_reload_ends_with_the_router() {
    let (router, config) = router().await;
    // As a session of it would.
    let mut cuts = router.alias("primary").unwrap().line.route.own()[0].server.cuts();
    router.reload(config.clone()).await.unwrap();
    router.reload(config).await.unwrap();
    let ended = tokio::spawn(async move { router.shutdown().await });
    let cut = timeout(SOON / 2, cuts.wait_for(|cut| cut.closed)).await.map(|cut| cut.is_ok());
    assert_eq!(cut, Ok(true), "its session would live on");
    assert!(!ended.is_finished());
    drop(cuts);
    timeout(SOON / 2, ended).await.unwrap().unwrap();
}
