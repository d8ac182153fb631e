//! HTTP: a status, as an axum service answers it; and TCP, which anything is that takes a connection.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use axum::{http::StatusCode, routing::get};
use pgdetour::service::{Http, Tcp};

use super::harness::{Tested, Watch};

#[tokio::test(flavor = "multi_thread")]
async fn an_http_service_is_out_while_its_status_is_another() -> Tested {
    let status = Arc::new(AtomicU16::new(204));
    let answer = Arc::clone(&status);
    let up = get(move || async move { StatusCode::from_u16(answer.load(Ordering::Relaxed)).expect("a status") });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(axum::serve(listener, axum::Router::new().route("/up", up)).into_future());
    let mut watch = Watch::start().await?;
    let url = format!("http://{address}/up?now");
    watch.router.register(Http::new("shop", &url)?).await?;
    watch.router.register(Http::new("exact", &url)?.expecting(204)).await?;
    watch.router.register(Tcp::new("port", &address.to_string())?).await?;
    assert!(watch.router.services().iter().all(|service| !service.is_out() && service.inconclusive.is_none()));

    status.store(200, Ordering::Relaxed);
    let cause = watch.until_out("exact").await?.to_string();
    assert_eq!(cause, "HTTP/1.1 200 OK");
    assert!(!watch.router.service("shop")?.is_out());

    status.store(503, Ordering::Relaxed);
    let cause = watch.until_out("shop").await?.to_string();
    assert_eq!(cause, "HTTP/1.1 503 Service Unavailable");
    assert!(!watch.router.service("port")?.is_out(), "it takes connections");

    status.store(204, Ordering::Relaxed);
    watch.until_up("shop").await?;
    server.abort();
    assert!(server.await.is_err());
    let cause = watch.until_out("port").await?.to_string();
    assert!(cause.contains("refused"), "{cause}");
    Ok(())
}
