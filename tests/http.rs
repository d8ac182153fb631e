//! The endpoints over a real socket: what strangers, balancers, browsers of other origins and hostile servers get to see.

use std::{error::Error, net::SocketAddr, time::Duration};

use pgdetour::{
    Config, Mode, Router,
    config::{Pings, Role},
    http::{self, Details, HttpOptions, Listening, Token},
    testkit::Cluster,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

type Tested<T = ()> = Result<T, Box<dyn Error>>;

const SOON: Duration = Duration::from_secs(25);
const TOKEN: &str = "only-for-this-test-0123456789";
const WRONG: &str = "only-for-this-test-012345678X";

/// An answer, as it came over the wire.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn json(&self) -> Tested<Value> {
        Ok(serde_json::from_str(&self.body)?)
    }
}

/// One request, with these lines in its head.
async fn ask(at: SocketAddr, request: &str, lines: &[&str]) -> Tested<Answer> {
    let mut stream = TcpStream::connect(at).await?;
    let host = if lines.iter().any(|line| line.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("{request} HTTP/1.1\r\n{host}Connection: close\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await??;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

fn bearing(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// A server that nobody is: connections to it are refused.
async fn nobody() -> Tested<String> {
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    Ok(format!("postgres://app@127.0.0.1:{port}/app?sslmode=disable"))
}

/// A router over this primary and replica.
async fn route(primary: &str, replica: &str) -> Tested<Router> {
    let config = Config::builder()
        .pings(Pings { ping_timeout: Duration::from_millis(500), ..Pings::brisk() })
        .server("primary", Role::Primary, primary)
        .server("replica", Role::Replica, replica)
        .build()?;
    Ok(Router::start(config).await?)
}

async fn serve(router: &Router, options: HttpOptions) -> Tested<SocketAddr> {
    let listening = Listening::bind(([127, 0, 0, 1], 0).into()).await?;
    let at = listening.address()?;
    tokio::spawn(http::serve(listening, http::router(router, options), std::future::pending()));
    Ok(at)
}

fn public() -> HttpOptions {
    HttpOptions::default().details(Details::Public)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_databases_are_all_out_lives_and_is_not_ready() -> Tested {
    let router = route(&nobody().await?, &nobody().await?).await?;
    let at = serve(&router, public()).await?;
    let alive = ask(at, "GET /livez", &[]).await?;
    assert_eq!((alive.status, alive.body.as_str()), (200, r#"{"live":true}"#));
    let ready = ask(at, "GET /readyz", &[]).await?;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body, r#"{"ready":false,"mode":"down","reads":false,"writes":false}"#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_degraded_or_read_only_is_ready_for_what_it_can_do() -> Tested {
    let cluster = Cluster::start(1).await?;
    let router = route(&cluster.primary().url(), &cluster.replica(0).url()).await?;
    let at = serve(&router, public()).await?;
    let probe = async |query: &str| {
        let answer = ask(at, &format!("GET /readyz{query}"), &[]).await?;
        Tested::Ok((answer.status, answer.json()?["mode"].as_str().unwrap_or_default().to_owned()))
    };
    let said = |status, mode: &str| (status, mode.to_owned());
    assert_eq!((probe("").await?, probe("?need=writes").await?), (said(200, "normal"), said(200, "normal")));
    assert_eq!(probe("?need=magic").await?.0, 400);

    cluster.replica(0).kill().await?;
    until(&router, Mode::Degraded).await?;
    assert_eq!((probe("").await?, probe("?need=writes").await?), (said(200, "degraded"), said(200, "degraded")));
    cluster.replica(0).start().await?;
    until(&router, Mode::Normal).await?;

    cluster.primary().kill().await?;
    until(&router, Mode::ReadOnly).await?;
    assert_eq!(
        (probe("?need=reads").await?, probe("?need=writes").await?),
        (said(200, "read-only"), said(503, "read-only"))
    );
    Ok(())
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

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_whether_it_is_ready_and_nothing_else() -> Tested {
    let router = route(&nobody().await?, &nobody().await?).await?;
    let closed = serve(&router, HttpOptions::default().metrics(|| "up 1\n".to_owned())).await?;
    let locked = HttpOptions::default().token(Token::new(TOKEN)?).metrics(|| "up 1\n".to_owned());
    let locked = serve(&router, locked).await?;
    let (right, wrong) = (bearing(TOKEN), bearing(WRONG));
    for path in ["/status", "/timeline", "/events", "/metrics"] {
        let request = format!("GET {path}");
        assert_eq!(ask(closed, &request, &[]).await?.status, 403, "{path}");
        assert_eq!(ask(closed, &request, &[&right]).await?.status, 403, "{path}");
        for lines in [&[][..], &[wrong.as_str()]] {
            let refused = ask(locked, &request, lines).await?;
            assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{path}");
            assert!(!refused.body.contains("replica"), "{refused:?}");
        }
    }
    for path in ["/status", "/timeline", "/metrics"] {
        assert_eq!(ask(locked, &format!("GET {path}"), &[&right]).await?.status, 200, "{path}");
    }
    assert_eq!(ask(locked, "GET /readyz", &[]).await?.body, r#"{"ready":false}"#);
    assert_eq!(ask(locked, "GET /readyz", &[&wrong]).await?.body, r#"{"ready":false}"#);
    assert!(ask(locked, "GET /readyz", &[&right]).await?.body.contains("down"));
    let page = ask(locked, "GET /", &[]).await?;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("replica") && !page.body.contains("127.0.0.1"), "the page holds no data");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_keeps_browsers_careful_and_another_host_name_gets_nothing() -> Tested {
    let router = route(&nobody().await?, &nobody().await?).await?;
    let at = serve(&router, public().hosts(http::loopback_names())).await?;
    for path in ["/", "/status", "/readyz", "/nothing"] {
        let answer = ask(at, &format!("GET {path}"), &[]).await?;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        let rebound = ask(at, &format!("GET {path}"), &["Host: evil.example"]).await?;
        assert_eq!(rebound.status, 421, "{path}");
        assert!(!rebound.body.contains("127.0.0.1"), "{path}");
    }
    assert_eq!(ask(at, "GET /status", &["Host: 127.0.0.1:8430"]).await?.status, 200);
    assert_eq!(ask(at, "GET /livez", &["Host: 10.0.0.7"]).await?.status, 200, "a probe asks for the address");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_follow_the_events_than_may_and_who_leaves_makes_room() -> Tested {
    let router = route(&nobody().await?, &nobody().await?).await?;
    let at = serve(&router, public().most_streams(2)).await?;
    let (first, _second) = (follow(at).await?, follow(at).await?);
    let refused = ask(at, "GET /events", &[]).await?;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    drop(first);
    let room = async { while follow(at).await.is_err() {} };
    Ok(timeout(SOON, room).await?)
}

/// A follower who has got the first status.
async fn follow(at: SocketAddr) -> Tested<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut some = String::new();
    while !some.contains("event: status\n") {
        let mut bytes = [0; 4096];
        match timeout(SOON, stream.read(&mut bytes)).await?? {
            0 => return Err("closed".into()),
            read => some.push_str(&String::from_utf8_lossy(&bytes[..read])),
        }
        if some.starts_with("HTTP/1.1 503") {
            return Err("full".into());
        }
    }
    Ok(stream)
}

/// What no server of one's own would say.
const HOSTILE: &str =
    "</script><img src=x onerror=alert(1)>\"'`${1}\u{1b}[31m\r\nX-Injected: yes\n\ndata: forged\u{2028}";

/// Accepts, and fails every login with words of its own.
async fn hostile() -> Tested<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        let fields = format!("SFATAL\0VFATAL\0C57P03\0M{HOSTILE}\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap_or_default();
        let message = [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut startup = [0; 1024];
            // A peer that has gone is told nothing.
            let _ = stream.read(&mut startup).await;
            let _ = stream.write_all(&message).await;
        }
    });
    Ok(format!("postgres://app@127.0.0.1:{port}/app?sslmode=disable"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hostile_server_says_reaches_json_as_data_and_no_header() -> Tested {
    let router = route(&hostile().await?, &nobody().await?).await?;
    let at = serve(&router, public()).await?;
    for path in ["/status", "/timeline"] {
        let answer = ask(at, &format!("GET {path}"), &[]).await?;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-injected"), None);
        let told = answer.json()?.to_string();
        assert!(told.contains("onerror"), "{path}: its words are told: {told}");
        assert!(!answer.body.contains('\u{1b}') && !answer.body.contains("\\u001b"), "{path}: no escape of a terminal");
    }
    let mut stream = follow(at).await?;
    let mut bytes = [0; 65_536];
    let read = timeout(SOON, stream.read(&mut bytes)).await??;
    let told = String::from_utf8_lossy(&bytes[..read]);
    assert!(!told.lines().any(|line| line.starts_with("data: forged")), "one event is one event: {told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_into_an_application_it_answers_below_its_path() -> Tested {
    let router = route(&nobody().await?, &nobody().await?).await?;
    let application = axum::Router::new().nest("/pgdetour", http::router(&router, public()));
    let listening = Listening::bind(([127, 0, 0, 1], 0).into()).await?;
    let at = listening.address()?;
    tokio::spawn(http::serve(listening, application, std::future::pending()));
    assert_eq!(ask(at, "GET /pgdetour/livez", &[]).await?.status, 200);
    assert_eq!(ask(at, "GET /pgdetour", &[]).await?.status, 200);
    assert_eq!(ask(at, "GET /pgdetour/status", &[]).await?.json()?["mode"], "down");
    assert_eq!(ask(at, "GET /livez", &[]).await?.status, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changes_for_who_has_no_token_or_comes_from_another_site() -> Tested {
    let cluster = Cluster::start(1).await?;
    let router = route(&cluster.primary().url(), &cluster.replica(0).url()).await?;
    let mut events = router.events();
    let without = serve(&router, public()).await?;
    let at = serve(&router, public().token(Token::new(TOKEN)?)).await?;
    let (right, wrong) = (bearing(TOKEN), bearing(WRONG));
    let right = right.as_str();
    for action in ["drain/replica", "undrain/replica", "ping/replica", "end-hold/replica"] {
        let request = format!("POST /actions/{action}");
        assert_eq!(ask(without, &request, &[right]).await?.status, 404, "without a token there is no {action}");
        assert_eq!(ask(at, &request, &[]).await?.status, 401, "{action}");
        assert_eq!(ask(at, &request, &[&wrong]).await?.status, 401, "{action}");
        for site in
            ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"]
        {
            assert_eq!(ask(at, &request, &[right, site]).await?.status, 403, "{action} {site}");
        }
        assert_eq!(ask(at, &format!("GET /actions/{action}"), &[right]).await?.status, 405, "{action}");
    }
    for (request, status) in [
        ("POST /actions/drain/nobody", 404),
        ("POST /actions/drop/replica", 404),
        ("POST /actions/drain/replica?for=25h", 400),
        ("POST /actions/drain/replica?for=0s", 400),
        ("POST /actions/drain/primary?for=1m", 409),
        ("POST /actions/drain/%3Cscript%3E%0D%0AX-Injected:%20yes", 404),
    ] {
        let refused = ask(at, request, &[right]).await?;
        assert_eq!((refused.status, refused.header("x-injected")), (status, None), "{request}");
        assert!(!refused.body.contains("script"), "{refused:?}");
    }
    assert!(router.status().server("replica").is_some_and(|replica| replica.drained.is_none()));

    // And with it they do what they say, and an event tells of it.
    let done = ask(at, "POST /actions/drain/replica?for=10m", &[right, "Origin: http://localhost"]).await?;
    assert_eq!((done.status, &done.json()?["changed"]), (200, &Value::Bool(true)), "{done:?}");
    assert_eq!(
        timeout(SOON, events.next()).await?.map(|event| event.kind.name()),
        Some("drained"),
        "nothing before it"
    );
    let drained = router.status().server("replica").and_then(|replica| replica.drained.clone());
    assert!(drained.is_some_and(|drained| drained.by == "127.0.0.1" && drained.left_ms <= 600_000));
    let body = "x".repeat(1 << 20);
    let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    // Whoever sends much is answered, or cut off, before it has been taken in.
    let _ = ask(at, "POST /actions/undrain/replica", &[right, &length]).await;
    assert_eq!(ask(at, "POST /actions/undrain/replica", &[right]).await?.status, 200);
    assert_eq!(ask(at, "POST /actions/ping/replica", &[right]).await?.status, 200);
    assert_eq!(ask(at, "POST /actions/end-hold/replica", &[right]).await?.json()?["changed"], false);
    assert!(router.status().server("replica").is_some_and(|replica| replica.drained.is_none()));
    Ok(())
}
