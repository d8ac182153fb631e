//! The layers for tower, under axum and under hyper: what a client is told while a part of a service is closed, and when pings go out.

#[path = "support/full.rs"]
mod full;

use std::{
    convert::Infallible,
    error::Error,
    future::{Ready, poll_fn, ready},
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, routing::get};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use pgdetour::{
    Config, Mode, Router,
    config::{ConfigBuilder, Monitoring, Pings, Role},
    layer::{MonitoredLayer, OutageLayer},
    service::Tcp,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::UnboundedReceiver,
    time::timeout,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Tested<T = ()> = Result<T, Box<dyn Error>>;
type Request<B = Body> = axum::http::Request<B>;
type Response<B = Body> = axum::http::Response<B>;

const SOON: Duration = Duration::from_secs(20);

/// Where nobody listens.
async fn nobody() -> Tested<String> {
    Ok(full::url(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port()))
}

/// A primary that is up, and the server of the reports, which is not.
async fn without_reports() -> Tested<ConfigBuilder> {
    let config = Config::builder().server("primary", Role::Primary, full::server().await?.0);
    Ok(config.server("reports", Role::Replica, nobody().await?))
}

async fn router() -> Tested<Router> {
    Ok(Router::start(without_reports().await?.build()?).await?)
}

/// Closes the reports while their server is out.
fn outages<Q: 'static, A: From<String> + 'static>(
    router: &Router,
) -> Result<OutageLayer<pgdetour::pool::DeadpoolPostgres, Q, A>, pgdetour::Error> {
    OutageLayer::new(router).when_out(
        "reports",
        |request| request.uri().path().starts_with("/reports"),
        |outage| outage.response(),
    )
}

/// What is answered to a request over a connection of its own, as it stands on the wire.
async fn ask(port: u16, path: &str) -> Tested<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(SOON, socket.read_to_string(&mut answer)).await??;
    Ok(answer)
}

fn is_closed_with_a_time_to_come_back(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let after = answer.lines().find_map(|line| line.strip_prefix("retry-after: ")).expect("a header");
    let after: u64 = after.parse().expect("whole seconds");
    assert!((1..=30).contains(&after), "the next ping is due within 30 s: {after}");
    assert!(!answer.contains("127.0.0.1") && !answer.contains("replica"), "it names no server: {answer}");
}

#[tokio::test]
async fn a_section_is_closed_while_a_service_is_out_and_opens_with_it() -> Tested {
    let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let often = Pings { outage_ping_frequency: Duration::from_millis(20), ..Pings::default() };
    let config = Config::builder().pings(often).server("primary", Role::Primary, full::server().await?.0);
    let router: Router = Router::start(config.build()?).await?;
    let cart = router.register(Tcp::new("carts", &free.to_string())?).await?;
    timeout(SOON, async {
        while !cart.is_out() {
            tokio::task::yield_now().await;
        }
    })
    .await?;
    let outages = OutageLayer::new(&router).when_out("carts", |_: &Request| true, |outage| outage.response())?;
    let service = outages.layer(service_fn(async |_: Request| Ok::<_, Infallible>(Response::new(Body::empty()))));
    let closed = service.clone().oneshot(Request::default()).await?;
    assert_eq!(closed.status(), 503);
    assert!(closed.headers().contains_key("retry-after"));
    let _carts = TcpListener::bind(free).await?;
    timeout(SOON, async {
        while cart.is_out() {
            tokio::task::yield_now().await;
        }
    })
    .await?;
    assert_eq!(service.oneshot(Request::default()).await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn under_axum_a_section_is_closed_while_its_server_is_out_and_the_rest_stays_open() -> Tested {
    let router = router().await?;
    let service = axum::Router::new()
        .route("/orders", get(async || "two apples"))
        .route("/reports/today", get(async || "numbers"))
        .layer(outages(&router)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move { axum::serve(listener, service).await });
    is_closed_with_a_time_to_come_back(&ask(port, "/reports/today").await?);
    let open = ask(port, "/orders").await?;
    assert!(open.starts_with("HTTP/1.1 200 ") && open.ends_with("two apples"), "{open}");
    Ok(())
}

#[tokio::test]
async fn under_hyper_a_section_is_closed_while_its_server_is_out_and_the_rest_stays_open() -> Tested {
    let router = router().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let open = service_fn(async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"two apples"))))
    });
    let service = ServiceBuilder::new().layer(outages(&router)?).service(open);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            tokio::spawn(connection);
        }
    });
    is_closed_with_a_time_to_come_back(&ask(port, "/reports/today").await?);
    let open = ask(port, "/orders").await?;
    assert!(open.starts_with("HTTP/1.1 200 ") && open.ends_with("two apples"), "{open}");
    Ok(())
}

#[tokio::test]
async fn an_alias_that_is_not_there_is_an_error_when_the_layer_is_made_and_names_the_nearest() -> Tested {
    let made = OutageLayer::<_, (), ()>::new(&router().await?).when_out("report", |_| true, |_| unreachable!());
    assert!(made.unwrap_err().to_string().contains(r#"did you mean "reports"?"#));
    Ok(())
}

/// What a service is told that answers all requests, through this layer.
async fn through<S>(layer: &impl Layer<Open, Service = S>) -> Tested<Response>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    Ok(layer.layer(Open::default()).oneshot(Request::new(Body::empty())).await?)
}

#[tokio::test]
async fn an_alias_whose_reads_are_on_a_detour_is_out_and_is_served_and_rules_for_a_mode_hold_from_there_on() -> Tested {
    let router = router().await?;
    assert_eq!(router.mode(), Mode::Degraded);
    let all = |_: &Request| true;
    let new = || OutageLayer::new(&router);
    let out = new().when_out("reports", all, |outage| outage.response())?;
    assert_eq!(through(&out).await?.status(), 503);
    let primary = new().when_out("primary", all, |outage| outage.response())?;
    assert_eq!(through(&primary).await?.status(), 200);
    let unserved = new().when_unserved("reports", all, |outage| outage.response())?;
    assert_eq!(through(&unserved).await?.status(), 200, "the primary stands in");
    let degraded = new().when_mode(Mode::Degraded, all, |outage| outage.response());
    assert_eq!(through(&degraded).await?.status(), 503);
    let read_only = new().when_mode(Mode::ReadOnly, all, |outage| outage.response());
    assert_eq!(through(&read_only).await?.status(), 200);
    router.shutdown().await;
    assert_eq!(through(&read_only).await?.status(), 503, "after a shutdown nothing is possible");
    Ok(())
}

#[tokio::test]
async fn the_first_rule_that_matches_answers_in_words_of_the_applications_own_or_with_a_problem() -> Tested {
    let layer = OutageLayer::new(&router().await?)
        .when_mode(Mode::Degraded, |request: &Request| request.method() == "POST", |_| unreachable!("it is a GET"))
        .when_out("reports", |_| true, |outage| outage.problem())?
        .when_out("reports", |_| true, |_| unreachable!("another has answered"))?;
    let answer = through(&layer).await?;
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let after = answer.headers()["retry-after"].to_str()?.to_owned();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await?;
    let problem: serde_json::Value = serde_json::from_slice(&body)?;
    assert_eq!((&problem["status"], &problem["title"]), (&503.into(), &"Service Unavailable".into()));
    assert_eq!(problem["retry_after"].to_string(), after);
    Ok(())
}

/// Answers all requests, if it was ready. A clone is not, as `tower` says of services.
#[derive(Debug, Default)]
struct Open {
    ready: bool,
}

impl Clone for Open {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Request> for Open {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "it was called before it was ready");
        ready(Ok(Response::new(Body::empty())))
    }
}

/// A word for each ping of a server.
type Asked = UnboundedReceiver<()>;

/// A router that is pinged on demand, some times a second.
async fn on_demand() -> Tested<(Router, Asked)> {
    let tenth = Duration::from_millis(100);
    let pings = Pings {
        monitoring_ping_frequency: tenth,
        outage_ping_frequency: tenth,
        error_ping_frequency: tenth,
        ping_timeout: tenth,
        ..Pings::default()
    };
    let (url, asked) = full::server().await?;
    let config = Config::builder().monitoring(Monitoring::OnDemand).pings(pings).server("primary", Role::Primary, url);
    Ok((Router::start(config.build()?).await?, asked))
}

/// Sends requests until two of them have had a server pinged; how many there were.
async fn requests_until_pinged<S>(mut service: S, asked: &mut Asked) -> Tested<usize>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let (mut requests, mut pings) = (0, 0);
    let pinged = async {
        while pings < 2 {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            assert_eq!(service.call(Request::new(Body::empty())).await?.status(), 200);
            requests += 1;
            pings += usize::from(asked.try_recv().is_ok());
            tokio::task::yield_now().await;
        }
        Tested::Ok(())
    };
    timeout(SOON, pinged).await??;
    Ok(requests)
}

#[tokio::test]
async fn on_demand_a_request_waits_for_the_pings_that_are_due_and_is_handled_by_the_service_that_was_ready() -> Tested {
    let (router, mut asked) = on_demand().await?;
    let monitored = MonitoredLayer::new(&router).layer(Open::default());
    assert!(requests_until_pinged(monitored, &mut asked).await? > 2, "most have nothing to wait for");
    let outages = OutageLayer::new(&router).monitored().when_out("primary", |_| true, |outage| outage.response())?;
    requests_until_pinged(ServiceBuilder::new().layer(outages).service(Open::default()), &mut asked).await?;
    Ok(())
}
