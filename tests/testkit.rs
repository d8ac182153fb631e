//! The test kit keeps its own promises: what it says it did to a server was done.

#![cfg(feature = "testkit")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgdetour::testkit::{Cluster, Server, Stop, TestkitError};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

type Tested = Result<(), TestkitError>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

async fn number(client: &Client, sql: &str) -> Result<i32, tokio_postgres::Error> {
    client.query_one(sql, &[]).await.map(|row| row.get(0))
}

fn refuses(server: &Server) -> bool {
    TcpStream::connect((server.host(), server.port())).is_err()
}

/// Waits for the end of a session, by asking it something until it cannot answer.
async fn ended(client: &Client) -> tokio_postgres::Error {
    let end = async {
        loop {
            if let Err(error) = number(client, "SELECT 1").await {
                return error;
            }
        }
    };
    timeout(SOON, end).await.expect("the session ends")
}

#[tokio::test]
async fn a_replica_replays_what_the_primary_writes() -> Tested {
    let cluster = Cluster::start(2).await?;
    cluster.primary().execute("CREATE TABLE t AS SELECT 7 AS n").await?;
    cluster.wait_for_replay().await?;
    for replica in cluster.replicas() {
        assert!(replica.is_replica().await?);
        assert_eq!(number(&replica.connect().await?, "SELECT n FROM t").await.unwrap(), 7);
    }
    assert!(!cluster.primary().is_replica().await?);
    Ok(())
}

#[tokio::test]
async fn a_killed_server_is_gone_and_comes_back_on_its_port() -> Tested {
    let cluster = Cluster::start(1).await?;
    let replica = cluster.replica(0);
    let (client, port, pid) = (replica.connect().await?, replica.port(), replica.pid());
    replica.kill().await?;
    assert!(refuses(replica) && !replica.is_running());
    let error = ended(&client).await;
    assert!(error.code().is_none(), "no process had the time to say anything: {error:?}");
    assert!(replica.kill().await.is_err(), "nothing is left to kill");
    replica.start().await?;
    assert_eq!(replica.port(), port);
    assert_ne!(replica.pid(), pid);
    cluster.primary().execute("CREATE TABLE t AS SELECT 8 AS n").await?;
    cluster.wait_for_replay().await?;
    assert_eq!(number(&replica.connect().await?, "SELECT n FROM t").await.unwrap(), 8);
    Ok(())
}

#[tokio::test]
async fn a_server_whose_postmaster_alone_was_killed_starts_again() -> Tested {
    let cluster = Cluster::start(0).await?;
    let server = cluster.primary();
    let client = server.connect().await?;
    server.kill_postmaster().await?;
    assert!(refuses(server));
    ended(&client).await;
    server.start().await?;
    assert_eq!(number(&server.connect().await?, "SELECT 9").await.unwrap(), 9);
    Ok(())
}

#[tokio::test]
async fn each_way_to_stop_ends_the_server() -> Tested {
    let cluster = Cluster::start(0).await?;
    let server = cluster.primary();
    for how in [Stop::Fast, Stop::Immediate] {
        let client = server.connect().await?;
        server.stop(how).await?;
        assert!(refuses(server), "after {how:?}");
        ended(&client).await;
        server.start().await?;
    }
    server.stop(Stop::Smart).await?;
    assert!(refuses(server));
    server.restart().await?;
    server.restart().await?;
    assert!(server.start().await.is_err(), "it runs already");
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_keeps_its_sessions_and_answers_after_the_thaw() -> Tested {
    let cluster = Cluster::start(0).await?;
    let server = cluster.primary();
    let client = server.connect().await?;
    server.freeze().await?;
    let answer = number(&client, "SELECT 3");
    tokio::pin!(answer);
    assert!(timeout(Duration::from_millis(200), &mut answer).await.is_err(), "a frozen server is silent");
    assert!(!refuses(server) && server.is_running());
    server.thaw().await?;
    assert_eq!(timeout(SOON, answer).await.expect("it answers").unwrap(), 3);
    Ok(())
}

#[tokio::test]
async fn with_the_postmaster_frozen_old_sessions_work_and_new_ones_hang() -> Tested {
    let cluster = Cluster::start(0).await?;
    let server = cluster.primary();
    let client = server.connect().await?;
    server.freeze_postmaster().await?;
    assert_eq!(number(&client, "SELECT 4").await.unwrap(), 4);
    assert!(timeout(Duration::from_millis(200), server.connect()).await.is_err(), "new sessions hang");
    server.thaw().await?;
    assert_eq!(number(&server.connect().await?, "SELECT 5").await.unwrap(), 5);
    Ok(())
}

#[tokio::test]
async fn a_promoted_replica_takes_writes() -> Tested {
    let cluster = Cluster::start(1).await?;
    let replica = cluster.replica(0);
    assert!(replica.execute("CREATE TABLE t ()").await.is_err());
    cluster.primary().kill().await?;
    replica.promote().await?;
    replica.execute("CREATE TABLE t ()").await?;
    assert!(replica.promote().await.is_err(), "it is no replica any more");
    Ok(())
}

#[tokio::test]
async fn terminated_sessions_end_and_the_server_goes_on() -> Tested {
    let cluster = Cluster::start(0).await?;
    let server = cluster.primary();
    let clients = [server.connect().await?, server.connect().await?];
    assert_eq!(server.terminate_backends().await?, 2);
    for client in &clients {
        ended(client).await;
    }
    assert_eq!(number(&server.connect().await?, "SELECT 6").await.unwrap(), 6);
    Ok(())
}

#[tokio::test]
async fn a_killed_backend_takes_all_sessions_with_it_and_the_server_recovers() -> Tested {
    let cluster = Cluster::start(0).await?;
    let server = cluster.primary();
    let postmaster = server.pid();
    let clients = [server.connect().await?, server.connect().await?];
    server.kill_one_backend().await?;
    for client in &clients {
        ended(client).await;
    }
    let recovered = async {
        while server.connect().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, recovered).await.expect("it recovers");
    assert_eq!(server.pid(), postmaster);
    Ok(())
}

#[tokio::test]
async fn a_password_is_asked_for_and_the_url_knows_it() -> Tested {
    let cluster = Cluster::builder().replicas(1).user("app").password("p@ss/'w:rd").database("shop").start().await?;
    for server in [cluster.primary(), cluster.replica(0)] {
        assert!(tokio_postgres::connect(&server.url(), NoTls).await.is_ok());
        let without = format!("postgres://app@{}:{}/shop", server.host(), server.port());
        assert!(tokio_postgres::connect(&without, NoTls).await.is_err());
        let client = server.connect().await?;
        let printed = format!("{cluster:?}");
        assert!(!printed.contains("w:rd"), "a password is never printed: {printed}");
        assert_eq!(
            client.query_one("SELECT current_user || current_database()", &[]).await.unwrap().get::<_, String>(0),
            "appshop"
        );
    }
    Ok(())
}

#[tokio::test]
async fn settings_reach_the_servers_they_are_for() -> Tested {
    let builder = Cluster::builder().replicas(1).max_connections(33).setting("work_mem", "1234kB");
    let cluster = builder.primary_setting("lock_timeout", "3s").replica_setting("lock_timeout", "4s").start().await?;
    for (server, lock_timeout) in [(cluster.primary(), "3s"), (cluster.replica(0), "4s")] {
        let client = server.connect().await?;
        for (name, value) in [("max_connections", "33"), ("work_mem", "1234kB"), ("lock_timeout", lock_timeout)] {
            let row = client.query_one(&format!("SHOW {name}"), &[]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), value, "{name} of {}", server.name());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_with_a_certificate_speaks_tls() -> Tested {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cluster = match Cluster::builder().tls(made.cert.pem(), made.signing_key.serialize_pem()).start().await {
        Err(error) if error.to_string().contains("SSL is not supported by this build") => {
            eprintln!("skipped: this PostgreSQL was built without TLS");
            return Ok(());
        }
        started => started?,
    };
    let mut stream = TcpStream::connect((cluster.primary().host(), cluster.primary().port())).unwrap();
    // SSLRequest (PostgreSQL manual, "Message Formats"), answered by one byte.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_come_up_is_reported_with_its_log() {
    let error = Cluster::builder().setting("shared_buffers", "nonsense").start().await.unwrap_err().to_string();
    assert!(error.contains("invalid value for parameter \"shared_buffers\""), "{error}");
}

#[tokio::test]
async fn nothing_is_left_of_a_dropped_cluster_even_frozen_or_half_killed() -> Tested {
    let cluster = Cluster::start(2).await?;
    let ports = [cluster.primary(), cluster.replica(0), cluster.replica(1)].map(Server::port);
    let data = cluster.primary().data_dir().to_owned();
    cluster.primary().freeze().await?;
    cluster.replica(0).kill_postmaster().await?;
    drop(cluster);
    assert!(!data.exists());
    assert!(ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()));
    #[cfg(target_os = "linux")]
    assert!(!mentioned(&data), "a process of it is still there");
    Ok(())
}

/// Set in the process that the next test starts, whose own run of the same test is a sudden death.
const DIES: &str = "PGDETOUR_TESTKIT_DIES";

#[tokio::test]
async fn servers_end_when_the_process_that_started_them_dies_suddenly() -> Tested {
    if std::env::var_os(DIES).is_some() {
        let cluster = Cluster::start(1).await?;
        cluster.primary().freeze().await?;
        println!("\ndata={}", cluster.primary().data_dir().display());
        std::process::abort();
    }
    let mut again = Command::new(std::env::current_exe().expect("the test runs"));
    again.args(["--exact", "--nocapture", "servers_end_when_the_process_that_started_them_dies_suddenly"]);
    let output = again.env(DIES, "1").output().expect("the test runs again");
    let said = String::from_utf8_lossy(&output.stdout);
    let data = said.lines().find_map(|line| line.strip_prefix("data=")).expect("it tells its directory before it dies");
    let data = Path::new(data);
    assert!(!output.status.success());
    let gone = async {
        while data.exists() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("the guard removes the directory");
    #[cfg(target_os = "linux")]
    assert!(!mentioned(data), "a process of it is still there");
    Ok(())
}

/// Whether any process was started for this data directory.
#[cfg(target_os = "linux")]
fn mentioned(data: &Path) -> bool {
    let data = data.to_str().expect("it is a temporary directory's name");
    let processes = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(data))
}
