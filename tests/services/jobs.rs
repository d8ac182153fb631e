//! examples/jobs.rs on the broker of this file.

use std::sync::atomic::{AtomicUsize, Ordering};

use amqprs::{
    channel::BasicGetArguments,
    connection::{Connection, OpenConnectionArguments},
};
use tokio::time::timeout;

use super::{
    harness::{SOON, Tested, Watch},
    rabbitmq::{Broker, PASSWORD},
};

#[expect(dead_code, reason = "its `main` reads standard input")]
#[path = "../../examples/jobs.rs"]
mod example;

use self::example::{Done, Jobs};

static RUN: AtomicUsize = AtomicUsize::new(0);

fn count(_: &str) {
    RUN.fetch_add(1, Ordering::SeqCst);
}

/// Takes all jobs that the broker has.
async fn taken(broker: &Broker) -> Tested<Vec<String>> {
    let connection = Connection::open(&login(broker)).await?;
    let channel = connection.open_channel(None).await?;
    let mut jobs = Vec::new();
    while let Some((_, _, body)) = channel.basic_get(BasicGetArguments::new("jobs").no_ack(true).finish()).await? {
        jobs.push(String::from_utf8(body)?);
    }
    Ok(jobs)
}

fn login(broker: &Broker) -> OpenConnectionArguments {
    OpenConnectionArguments::new("127.0.0.1", broker.port(), "app", PASSWORD)
}

pub(crate) async fn go_to_the_broker_and_run_in_place_while_it_is_out(
    watch: &mut Watch,
    broker: &mut Broker,
) -> Tested {
    let jobs = Jobs::new(&watch.router, login(broker), count)?;
    for job in ["one", "two"] {
        assert_eq!(timeout(SOON, jobs.submit(job)).await?, Done::Queued, "{job}");
    }
    assert_eq!((taken(broker).await?, RUN.load(Ordering::SeqCst)), (vec!["one".to_owned(), "two".to_owned()], 0));

    // The first job that gets no answer finds the outage; those after it do not wait.
    broker.server.signal("STOP")?;
    assert_eq!(timeout(SOON, jobs.submit("three")).await?, Done::InPlace);
    let out = async {
        while !watch.router.service("jobs")?.is_out() {
            watch.events.next().await.ok_or("the router has ended")?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    timeout(SOON, out).await??;
    for job in 0..1000 {
        assert_eq!(jobs.submit(&job.to_string()).await, Done::InPlace);
    }
    assert_eq!(RUN.load(Ordering::SeqCst), 1001);

    broker.server.signal("CONT")?;
    watch.until_up("jobs").await?;
    assert_eq!(timeout(SOON, jobs.submit("four")).await?, Done::Queued);
    // The third may have arrived after all.
    let left: Vec<_> = taken(broker).await?.into_iter().filter(|job| job != "three").collect();
    assert_eq!((left, RUN.load(Ordering::SeqCst)), (vec!["four".to_owned()], 1001));
    Ok(())
}
