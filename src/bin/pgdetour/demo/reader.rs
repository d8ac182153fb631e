//! The application of the demo: reads at a steady rate, and tries each once more if it fails.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use pgdetour::{Alias, health::Cause, router::DefaultBackend};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    News,
    story::{Place, Read},
};
use crate::clock;

/// Asks the server itself who it is.
const QUERY: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// Reads until it is dropped. No read waits for the one before: users do not either.
pub(super) async fn read_steadily(
    alias: Alias<DefaultBackend>,
    rate: u32,
    start: Instant,
    news: UnboundedSender<News>,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    loop {
        ticks.tick().await;
        let (alias, news) = (alias.clone(), news.clone());
        tokio::spawn(async move {
            let (served, retried) = match read(&alias).await {
                Ok(place) => (Ok(place), None),
                Err(first) => (read(&alias).await.map_err(|error| told(&*error)), Some(told(&*first))),
            };
            let ended = clock::now() - start;
            // An error says that the demo is over.
            let _ = news.send(News::Read(Read { ended, served, retried }));
        });
    }
}

async fn read(alias: &Alias<DefaultBackend>) -> Result<Place, Box<dyn Error + Send + Sync>> {
    let connection = alias.get().await?;
    let row = connection.query_one(QUERY, &[]).await?;
    Ok(if row.try_get(0)? { Place::Replica } else { Place::Primary })
}

fn told(error: &(dyn Error + 'static)) -> String {
    Cause::of(error).to_string()
}
