//! Reads from the pair of docker-compose.yml ten times a second and tells where the reads go: `cargo run --example compose`.
//!
//! Then, in another terminal, `docker compose kill replica`, and after a while `docker compose start replica`.

use std::{error::Error, time::Duration};

use pgdetour::{Alias, Router};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_target(false).init();
    let router = Router::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/compose.toml")).await?;
    let replica = router.alias("replica")?;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let (mut route, mut count) = (String::new(), 0_u64);
    loop {
        tick.tick().await;
        // One retry: a read that is under way on a server that dies is lost with it.
        let now = match read(&replica).await {
            Err(_) => read(&replica).await,
            answered => answered,
        };
        let now = now.map_or_else(|error| format!("nowhere: {error}"), |server| format!("to the {server}"));
        if now != route {
            println!("reads go {now}{}", if count > 0 { format!(", after {count} {route}") } else { String::new() });
            (route, count) = (now, 0);
        }
        count += 1;
    }
}

async fn read(replica: &Alias) -> Result<&'static str, Box<dyn Error>> {
    let client = replica.get().await?;
    let row = client.query_one("SELECT pg_is_in_recovery(), count(*) FROM orders", &[]).await?;
    Ok(if row.get(0) { "replica" } else { "primary" })
}
