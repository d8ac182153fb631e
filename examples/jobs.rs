//! Jobs that go to RabbitMQ, and run in place while it is out.
//!
//! ```sh
//! cargo run --example jobs -- pgdetour.toml
//! ```
//!
//! With `[service.jobs]` in the file, beside its aliases:
//!
//! ```toml
//! [service.jobs]
//! kind = "amqp"
//! url = "amqp://guest:guest@localhost:5672"
//! ```
//!
//! Each line of standard input is a job. A job whose answer was lost is run in place too, so it may be done twice.

use std::{
    error::Error,
    io::{self, BufRead},
    time::Duration,
};

use amqprs::{
    BasicProperties,
    channel::{BasicPublishArguments, Channel, QueueDeclareArguments},
    connection::{Connection, OpenConnectionArguments},
};
use pgdetour::{Router, ServiceHandle, Switch};
use tokio::{sync::Mutex, time::timeout};

/// How long a broker may take for one job before that is run in place.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The broker has it, on its disk.
    Queued,
    /// It was run here.
    InPlace,
}

/// Where jobs are left.
pub(crate) struct Jobs {
    broker: Mutex<Option<Broker>>,
    login: OpenConnectionArguments,
    service: ServiceHandle,
    in_place: Switch<bool>,
    run: fn(&str),
}

/// A connection to RabbitMQ. It ends when it is dropped.
struct Broker {
    channel: Channel,
    _connection: Connection,
}

impl Jobs {
    /// Jobs for the service `jobs` of this router; those that run in place are given to `run`.
    pub(crate) fn new(router: &Router, login: OpenConnectionArguments, run: fn(&str)) -> Result<Self, pgdetour::Error> {
        let (service, in_place) = (router.service("jobs")?, router.switch_on_service("jobs", false, true)?);
        Ok(Self { broker: Mutex::new(None), login, service, in_place, run })
    }

    /// Leaves a job with RabbitMQ. While that is out, or does not answer, runs it here.
    pub(crate) async fn submit(&self, job: &str) -> Done {
        // While it is known to be out nobody waits for it.
        if !*self.in_place.get() {
            match timeout(PATIENCE, self.publish(job)).await {
                Ok(Ok(())) => return Done::Queued,
                // Whatever it is, a ping finds out what it means.
                Ok(Err(error)) => drop(self.service.report(&error)),
                Err(late) => drop(self.service.report(&late)),
            }
        }
        (self.run)(job);
        Done::InPlace
    }

    /// Returns when the broker has stored the job: a transaction of one message is the shortest way to be told.
    async fn publish(&self, job: &str) -> Result<(), amqprs::error::Error> {
        let mut kept = self.broker.lock().await;
        // Taken out: what fails or is dropped on the way is not used again.
        let broker = match kept.take() {
            Some(broker) => broker,
            None => Broker::connect(&self.login).await?,
        };
        let lasting = BasicProperties::default().with_persistence(true).finish();
        let to_jobs = BasicPublishArguments::new("", "jobs");
        broker.channel.basic_publish(lasting, job.as_bytes().to_vec(), to_jobs).await?;
        broker.channel.tx_commit().await?;
        *kept = Some(broker);
        Ok(())
    }
}

impl Broker {
    async fn connect(login: &OpenConnectionArguments) -> Result<Self, amqprs::error::Error> {
        let connection = Connection::open(login).await?;
        let channel = connection.open_channel(None).await?;
        channel.queue_declare(QueueDeclareArguments::durable_client_named("jobs")).await?;
        channel.tx_select().await?;
        Ok(Self { channel, _connection: connection })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = std::env::args().nth(1).ok_or("name a configuration file")?;
    let router: Router = Router::from_file(config).await?;
    let login = OpenConnectionArguments::new("localhost", 5672, "guest", "guest");
    let jobs = Jobs::new(&router, login, |job| println!("run in place: {job}"))?;
    for job in io::stdin().lock().lines() {
        println!("{:?}; {}", jobs.submit(&job?).await, router.service("jobs")?.explain());
    }
    router.shutdown().await;
    Ok(())
}
