//! memcached: every node has to answer.

use pgdetour::service::Memcached;

use super::harness::{Server, Tested, Watch, directory, free_port, program, stopped_frozen_and_restarted};

fn node(port: u16) -> Tested<Server> {
    let mut server = Server::new(program("memcached")?, directory()?)?;
    let port = port.to_string();
    // As root it wants to be told of a user; otherwise it does not care.
    server.command().args(["-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-p", &port]);
    server.start()?;
    Ok(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memcached_that_stops_freezes_and_comes_back_is_seen_to() -> Tested {
    let mut watch = Watch::start().await?;
    let port = free_port();
    let mut server = node(port)?;
    watch.router.register(Memcached::new("cache", [format!("127.0.0.1:{port}")])?).await?;
    stopped_frozen_and_restarted(&mut watch, "cache", &mut server).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_nodes_the_dead_ones_are_named_whether_they_refuse_or_are_silent() -> Tested {
    let mut watch = Watch::start().await?;
    let ports = [free_port(), free_port(), free_port()];
    let mut servers = [node(ports[0])?, node(ports[1])?, node(ports[2])?];
    let nodes = ports.map(|port| format!("127.0.0.1:{port}"));
    watch.router.register(Memcached::new("cache", nodes.clone())?).await?;
    watch.until_up("cache").await?;

    servers[1].kill()?;
    let cause = watch.until_out("cache").await?.to_string();
    assert!(cause.starts_with(&format!("1 of 3 nodes: {}: ", nodes[1])) && cause.contains("refused"), "{cause}");
    servers[1].start()?;
    watch.until_up("cache").await?;

    servers[2].signal("STOP")?;
    let cause = watch.until_out("cache").await?.to_string();
    assert!(cause.starts_with(&format!("1 of 3 nodes: {}: no answer within", nodes[2])), "{cause}");
    servers[2].signal("CONT")?;
    watch.until_up("cache").await
}
