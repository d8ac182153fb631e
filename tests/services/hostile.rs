//! Whoever answers at a service's port may say anything: a ping takes a bounded time and a bounded part of it, and never panics.

use std::time::Duration;

use pgdetour::service::{Amqp, Http, Memcached, Redis, Service};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

use super::harness::Tested;

const LIMIT: Duration = Duration::from_secs(20);

/// A port at which everybody is answered so, `times` over.
async fn answering(bytes: Vec<u8>, times: usize) -> Tested<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                for _ in 0..times {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                // Closes properly, after what was sent to it is read.
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    Ok(port)
}

/// No ping finds this well.
async fn nobody_takes_it_for_well(bytes: Vec<u8>, times: usize) -> Tested {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let port = answering(bytes, times).await?;
    let place = format!("127.0.0.1:{port}");
    let (redis, amqp) = (Redis::new("a", &format!("redis://:x@{place}"))?, Amqp::new("b", &format!("amqp://{place}"))?);
    let (http, cache) = (Http::new("c", &format!("http://{place}"))?, Memcached::new("d", [place])?);
    let within = LIMIT;
    let told = [
        timeout(LIMIT, redis.ping(within)).await?,
        timeout(LIMIT, amqp.ping(within)).await?,
        timeout(LIMIT, http.ping(within)).await?,
        timeout(LIMIT, cache.ping(within)).await?,
    ];
    for (who, told) in ["redis", "amqp", "http", "memcached"].into_iter().zip(told) {
        let error = told.err().ok_or_else(|| format!("{who} takes {shown:?} for well"))?;
        let text = error.to_string();
        assert!(text.chars().count() < 300 && !text.contains(['\n', '\r', '\u{1b}']), "{who}: {text:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_floods_and_half_answers_are_survived_and_taken_for_no_answer() -> Tested {
    let frame = |kind: u8, size: u32, rest: &[u8]| [&[kind, 0, 0][..], &size.to_be_bytes(), rest].concat();
    let said: [(Vec<u8>, usize); 11] = [
        (vec![], 0),
        (b"\n".to_vec(), 1),
        (b"\x1b[31mred\r\n".to_vec(), 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), 1),
        (vec![b'x'; 4096], 10_000),
        (b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), 100_000),
        (frame(1, u32::MAX, b""), 1),
        (frame(1, 3, b"\0\x0a\0\xce"), 1),
        (frame(8, 0, b"\xce"), 100_000),
        (frame(1, 4, b"\0\x0a\0\x32\xce"), 1),
        (b"AMQP\0\x01\x01\0".to_vec(), 1),
    ];
    for (bytes, times) in said {
        nobody_takes_it_for_well(bytes, times).await?;
    }
    for seed in 0..200 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let length = chance.usize(1..300);
        let bytes = std::iter::repeat_with(|| chance.u8(..)).take(length).collect();
        nobody_takes_it_for_well(bytes, 1).await?;
    }
    Ok(())
}
