//! A pool of one's own behind the router: what its builder is told.

use std::{
    error::Error,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use pgdetour::{
    Config, Router,
    config::Role,
    pool::{AcquireError, AcquireErrorKind, Backend, Connected, Connector, PoolSpec, PoolStatus},
};

/// Connects for each lease.
struct Direct(Connector);

fn failed(error: tokio_postgres::Error) -> AcquireError {
    AcquireError::new(AcquireErrorKind::Connect, error)
}

impl Backend for Direct {
    type Connection = Connected;
    type Error = AcquireError;

    async fn acquire(&self) -> Result<Connected, AcquireError> {
        self.0.connect_tapped().await.map_err(failed)
    }

    async fn verify(connection: &Connected) -> Result<(), AcquireError> {
        connection.client.check_connection().await.map_err(failed)
    }

    fn is_closed(connection: &Connected) -> bool {
        connection.client.is_closed()
    }

    fn discard(connection: Connected) {
        connection.task.abort();
    }

    fn evict(&self) {}

    fn status(&self) -> PoolStatus {
        PoolStatus::default()
    }

    fn close(&self) {}
}

/// The URL of a port where nobody listens.
fn nobody() -> Result<String, Box<dyn Error>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(format!("postgres://app@127.0.0.1:{port}/app"))
}

#[tokio::test]
async fn the_pool_of_a_detour_is_told_the_server_it_leads_to() -> Result<(), Box<dyn Error>> {
    let config = Config::builder()
        .server("primary", Role::Primary, nobody()?)
        .server("replica", Role::Replica, nobody()?)
        .build()?;
    let built = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&built);
    let router = Router::start_with(config, move |spec: PoolSpec| {
        let pool = (spec.alias.to_string(), spec.server().to_string(), spec.max_size);
        told.lock().expect("nobody panics with it").push(pool);
        Ok(Direct(spec.connector))
    })
    .await?;
    let own = |name: &str| (name.to_owned(), name.to_owned(), 16);
    let detour = ("replica".to_owned(), "primary".to_owned(), 8);
    assert_eq!(*built.lock().expect("nobody panics with it"), [own("primary"), own("replica"), detour]);
    let error = router.alias("replica")?.get().await.expect_err("nobody listens");
    assert!(error.is_unavailable(), "{error}");
    Ok(())
}
