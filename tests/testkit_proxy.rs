//! The proxy does to connections what its fault says, against an echo server and against PostgreSQL.

#![cfg(feature = "testkit")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use pgdetour::testkit::{Cluster, Direction, Fault, Proxy, TestkitError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

/// How long silence has to last to be believed.
const SILENCE: Duration = Duration::from_millis(100);

/// A server that sends back what it gets, and a proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let addr = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Proxy::start(addr).await.expect("the proxy starts")
}

async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.expect("it accepts")
}

/// Sends a text and reads as many bytes back.
async fn answered(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    let mut back = vec![0; text.len()];
    timeout(SOON, stream.read_exact(&mut back)).await.expect("it answers in time")?;
    assert_eq!(back, text);
    Ok(())
}

/// What ends a connection: the bytes that still came, and the error if it was one.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let end = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    (bytes, end.err().map(|error| error.kind()))
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(SILENCE, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn without_a_fault_bytes_pass_and_an_end_passes_too() {
    let proxy = echo().await;
    let mut stream = connect(proxy.addr()).await;
    answered(&mut stream, &vec![7; 300_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, (vec![], None));
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn refuse_closes_the_port_keeps_connections_and_opens_the_same_port_again() {
    let proxy = echo().await;
    let mut old = connect(proxy.addr()).await;
    answered(&mut old, b"before").await.unwrap();
    proxy.set(Fault::Refuse).await.unwrap();
    assert_eq!(TcpStream::connect(proxy.addr()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    answered(&mut old, b"meanwhile").await.unwrap();
    proxy.set(Fault::None).await.unwrap();
    answered(&mut connect(proxy.addr()).await, b"after").await.unwrap();
}

#[tokio::test]
async fn reset_resets_connections_old_and_new() {
    let proxy = echo().await;
    let mut old = connect(proxy.addr()).await;
    answered(&mut old, b"before").await.unwrap();
    proxy.set(Fault::Reset).await.unwrap();
    assert_eq!(rest(&mut old).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(rest(&mut connect(proxy.addr()).await).await.1, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn present_connections_are_reset_alone() {
    let proxy = echo().await;
    let mut old = connect(proxy.addr()).await;
    answered(&mut old, b"before").await.unwrap();
    for _ in 0..2 {
        proxy.set(Fault::ResetPresent).await.unwrap();
        assert_eq!(rest(&mut old).await.1, Some(ErrorKind::ConnectionReset));
        old = connect(proxy.addr()).await;
        answered(&mut old, b"after").await.unwrap();
    }
}

#[tokio::test]
async fn present_connections_end_and_what_their_clients_still_send_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    let mut client = connect(proxy.addr()).await;
    let (mut server, _) = listener.accept().await.unwrap();
    proxy.set(Fault::EndPresent).await.unwrap();
    assert_eq!(rest(&mut client).await, (vec![], None));
    server.write_all(b"an answer that nobody gets").await.unwrap();
    client.write_all(b"still").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut server).await, (b"still".to_vec(), None));

    let mut new = connect(proxy.addr()).await;
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"x").await.unwrap();
    assert_eq!(timeout(SOON, new.read_u8()).await.expect("it arrives").unwrap(), b'x');
}

#[tokio::test]
async fn ignore_answers_no_connect_keeps_connections_and_serves_whoever_goes_on_trying() {
    let proxy = echo().await;
    let mut old = connect(proxy.addr()).await;
    answered(&mut old, b"before").await.unwrap();
    for _ in 0..2 {
        proxy.set(Fault::Ignore).await.unwrap();
        let mut trying = Box::pin(TcpStream::connect(proxy.addr()));
        assert!(timeout(SILENCE, trying.as_mut()).await.is_err(), "it is neither made nor refused");
        answered(&mut old, b"meanwhile").await.unwrap();
        proxy.set(Fault::None).await.unwrap();
        // The kernel tries again after a second.
        let mut new = timeout(SOON, trying).await.expect("it is made").unwrap();
        answered(&mut new, b"after").await.unwrap();
    }
    proxy.set(Fault::Ignore).await.unwrap();
    proxy.set(Fault::Refuse).await.unwrap();
    assert_eq!(TcpStream::connect(proxy.addr()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_is_garbled_is_what_the_server_sends() {
    let proxy = echo().await;
    let mut stream = connect(proxy.addr()).await;
    proxy.set(Fault::Garble).await.unwrap();
    stream.write_all(&[0x00, 0x5a]).await.unwrap();
    assert_eq!(timeout(SOON, stream.read_u16()).await.expect("it arrives").unwrap(), 0xffa5);
}

#[tokio::test]
async fn hang_never_answers_new_connections_until_it_ends() {
    let proxy = echo().await;
    let mut old = connect(proxy.addr()).await;
    answered(&mut old, b"before").await.unwrap();
    proxy.set(Fault::Hang).await.unwrap();
    let mut new = connect(proxy.addr()).await;
    new.write_all(b"x").await.unwrap();
    assert!(is_silent(&mut new).await);
    answered(&mut old, b"meanwhile").await.unwrap();
    proxy.set(Fault::None).await.unwrap();
    assert_eq!(timeout(SOON, new.read_u8()).await.expect("it is served").unwrap(), b'x');
}

#[tokio::test]
async fn accept_close_ends_new_connections_alone() {
    let proxy = echo().await;
    let mut old = connect(proxy.addr()).await;
    answered(&mut old, b"before").await.unwrap();
    proxy.set(Fault::AcceptClose).await.unwrap();
    assert_eq!(rest(&mut connect(proxy.addr()).await).await, (vec![], None));
    answered(&mut old, b"after").await.unwrap();
}

#[tokio::test]
async fn a_black_hole_swallows_its_direction_and_gives_back_when_it_ends() {
    for direction in [Direction::Up, Direction::Down, Direction::Both] {
        let proxy = echo().await;
        let mut stream = connect(proxy.addr()).await;
        answered(&mut stream, b"before").await.unwrap();
        proxy.set(Fault::BlackHole { direction }).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert!(is_silent(&mut stream).await, "{direction:?}");
        assert_eq!(proxy.open(), 1);
        proxy.set(Fault::None).await.unwrap();
        assert_eq!(timeout(SOON, stream.read_u8()).await.expect("it arrives").unwrap(), b'x');
    }
}

#[tokio::test]
async fn a_delay_is_suffered_in_each_direction_and_ends_at_once() {
    let proxy = echo().await;
    let mut stream = connect(proxy.addr()).await;
    proxy.set(Fault::Delay(Duration::from_millis(50))).await.unwrap();
    let asked = now();
    answered(&mut stream, b"late").await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(100), "{:?}", asked.elapsed());
    proxy.set(Fault::Delay(SOON * 10)).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert!(is_silent(&mut stream).await);
    proxy.set(Fault::None).await.unwrap();
    assert_eq!(timeout(SOON, stream.read_u8()).await.expect("it arrives").unwrap(), b'x');
}

#[tokio::test]
async fn a_throttle_passes_no_more_than_its_speed() {
    let proxy = echo().await;
    let mut stream = connect(proxy.addr()).await;
    proxy.set(Fault::Throttle { bytes_per_second: 10_000 }).await.unwrap();
    let asked = now();
    answered(&mut stream, &[1; 2_000]).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(200), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn slices_arrive_whole_in_the_end() {
    let proxy = echo().await;
    let mut stream = connect(proxy.addr()).await;
    proxy.set(Fault::Slice { bytes: 1 }).await.unwrap();
    answered(&mut stream, b"one byte at a time").await.unwrap();
}

#[tokio::test]
async fn a_cut_lets_exactly_its_bytes_pass_and_counts_anew_when_set_again() {
    let proxy = echo().await;
    for _ in 0..2 {
        let mut stream = connect(proxy.addr()).await;
        answered(&mut stream, b"before").await.unwrap();
        proxy.set(Fault::CutAfter { bytes: 5, direction: Direction::Down }).await.unwrap();
        answered(&mut stream, b"abc").await.unwrap();
        proxy.set(Fault::CutAfter { bytes: 5, direction: Direction::Down }).await.unwrap();
        stream.write_all(b"defghijk").await.unwrap();
        assert_eq!(rest(&mut stream).await.0, b"defgh");
        proxy.set(Fault::None).await.unwrap();
    }
    proxy.set(Fault::CutAfter { bytes: 0, direction: Direction::Up }).await.unwrap();
    let mut stream = connect(proxy.addr()).await;
    stream.write_all(b"nothing passes").await.unwrap();
    assert_eq!(rest(&mut stream).await.0, b"");
}

#[tokio::test]
async fn a_cut_at_something_cuts_the_first_that_says_it_and_lets_nobody_in_until_it_is_over() {
    let proxy = echo().await;
    for direction in [Direction::Up, Direction::Down] {
        let mut streams = [connect(proxy.addr()).await, connect(proxy.addr()).await];
        proxy.set(Fault::CutAt { bytes: b"STOP", direction }).await.unwrap();
        let [first, other] = &mut streams;
        answered(first, b"STO").await.unwrap();
        answered(other, b"GO ON. ST").await.unwrap();
        assert!(timeout(SILENCE, proxy.until_cut()).await.is_err(), "neither has said it");
        first.write_all(b"PED").await.unwrap();
        assert_eq!(rest(first).await.0, b"");
        timeout(SOON, proxy.until_cut()).await.expect("it was cut").unwrap();
        answered(other, b"OP, and STOP again").await.unwrap();

        let mut new = connect(proxy.addr()).await;
        new.write_all(b"x").await.unwrap();
        assert!(is_silent(&mut new).await);
        proxy.set(Fault::None).await.unwrap();
        assert_eq!(timeout(SOON, new.read_u8()).await.expect("it is served").unwrap(), b'x');
    }
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_connections_and_its_port() {
    let proxy = echo().await;
    let addr = proxy.addr();
    let mut stream = connect(addr).await;
    answered(&mut stream, b"before").await.unwrap();
    drop(proxy);
    rest(&mut stream).await;
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_session_with_postgresql_goes_through_in_slices_and_dies_by_a_reset() -> Result<(), TestkitError> {
    let cluster = Cluster::start(0).await?;
    let server = cluster.primary();
    let proxy = Proxy::start((server.host(), server.port())).await?;
    let url = server.url_at("127.0.0.1", proxy.addr().port());
    proxy.set(Fault::Slice { bytes: 1 }).await?;
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let end = tokio::spawn(connection);
    let row = client.query_one("SELECT repeat('x', 1000)", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0).len(), 1000);
    proxy.set(Fault::Reset).await?;
    assert!(timeout(SOON, end).await.expect("it ends").unwrap().is_err());
    assert!(client.query_one("SELECT 1", &[]).await.unwrap_err().is_closed());
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a test with real sockets measures real time")]
fn now() -> Instant {
    Instant::now()
}
