//! Connections are made within a deadline, tell their state without a query, end when they are cut, and can be cancelled.

#![cfg(feature = "testkit")]

use std::{error::Error, sync::Arc, time::Duration};

use pgdetour::{
    config::{AliasKind, Config, Role},
    health::Need,
    pool::{Connected, Connector, Dial, Server, Standing},
    testkit::Cluster,
};
use tokio::{runtime::Handle, sync::Notify, time::timeout};

type Tested = Result<(), Box<dyn Error>>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

fn connector(url: &str, within: Duration) -> Result<Connector, Box<dyn Error>> {
    let config = Config::builder().server("primary", Role::Primary, url).build()?;
    let alias = &config.aliases[0];
    let AliasKind::Server(server) = &alias.kind else { unreachable!("one server is declared") };
    let shared = Server::new(alias.name.clone(), server.target.address(), Arc::new(Notify::new()));
    Ok(Connector::new(Arc::new(shared), Dial::new(&server.target)?, within, Handle::current()))
}

async fn connected(cluster: &Cluster) -> Result<(Connector, Connected), Box<dyn Error>> {
    let connector = connector(&cluster.primary().url(), SOON)?;
    let made = connector.connect_tapped().await?;
    Ok((connector, made))
}

#[tokio::test]
async fn a_connection_answers_and_is_clean_after_it() -> Tested {
    let cluster = Cluster::start(0).await?;
    let (connector, Connected { client, tap, .. }) = connected(&cluster).await?;
    assert_eq!(client.query_one("SELECT 7", &[]).await?.get::<_, i32>(0), 7);
    assert_eq!(timeout(SOON, tap.settled()).await?, Standing::Clean);
    assert!(connector.server().cell.belief().is_clear(Need::Reads));
    Ok(())
}
