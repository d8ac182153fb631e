//! TLS keeps its promises on a real server: what is to be verified is verified, and nothing falls back to plain text.

#![cfg(all(feature = "testkit", feature = "tls"))]

use std::{
    error::Error,
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use pgdetour::{
    config::{AliasKind, Config, PoolSettings, Role},
    pool::{Condition, Connected, Connector, Dial, Server},
    testkit::Cluster,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::{runtime::Handle, sync::Notify, time::timeout};

type Tested = Result<(), Box<dyn Error>>;

const PASSWORD: &str = "s3cr3t-over-tls";

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

/// The name in the server's certificate. The other name of the same server, 127.0.0.1, is not in it.
const RIGHT: &str = "localhost";
const WRONG: &str = "127.0.0.1";

/// A server that insists on TLS, an authority that signed for it, and one that did not.
struct Secure {
    cluster: Cluster,
    known: PathBuf,
    unknown: PathBuf,
    _files: tempfile::TempDir,
}

impl Secure {
    /// None, with a word about it, where PostgreSQL was built without TLS.
    async fn start() -> Result<Option<Self>, Box<dyn Error>> {
        let files = tempfile::tempdir()?;
        let (known, unknown) = (files.path().join("known.pem"), files.path().join("unknown.pem"));
        let authority = authority("known")?;
        std::fs::write(&known, authority.pem())?;
        std::fs::write(&unknown, self::authority("unknown")?.pem())?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([RIGHT.to_owned()])?.signed_by(&key, &authority)?;
        let started = Cluster::builder()
            .password(PASSWORD)
            .hba("hostnossl all all all reject")
            .tls(certificate.pem(), key.serialize_pem())
            .start()
            .await;
        match started {
            Ok(cluster) => Ok(Some(Self { cluster, known, unknown, _files: files })),
            Err(error) if error.to_string().contains("SSL is not supported by this build") => {
                eprintln!("skipped: this PostgreSQL was built without TLS");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn url(&self, host: &str, mode: &str, roots: Option<&Path>) -> String {
        let primary = self.cluster.primary();
        let roots = roots.map(|path| format!("&sslrootcert={}", path.display())).unwrap_or_default();
        format!("{}?sslmode={mode}{roots}", primary.url_at(host, primary.port()))
    }
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn connector(url: &str) -> Result<Connector, Box<dyn Error>> {
    let config = Config::builder().server("primary", Role::Primary, url).build()?;
    let alias = &config.aliases()[0];
    let AliasKind::Server(server) = &alias.kind else { unreachable!("one server is declared") };
    let shared = Server::new(alias.name.clone(), server.target.address(), Arc::new(Notify::new()));
    let pool = PoolSettings { connect_timeout: SOON, ..PoolSettings::default() };
    Ok(Connector::new(Arc::new(shared), Dial::new(&server.target)?, &pool, Handle::current()))
}

/// Whether the connection is encrypted, as the server sees it; or why there is none, with all causes.
async fn is_encrypted(url: &str) -> Result<bool, String> {
    let connector = connector(url).map_err(|error| format!("no connector: {error}"))?;
    let Connected { client, .. } = connector.connect_tapped().await.map_err(|error| causes(&error))?;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(client.query_one(sql, &[]).await.map_err(|error| error.to_string())?.get(0))
}

fn causes(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", causes(cause)))
}

#[tokio::test]
async fn each_mode_verifies_what_it_says_and_no_more() -> Tested {
    let Some(secure) = Secure::start().await? else { return Ok(()) };
    let (known, unknown) = (Some(secure.known.as_path()), Some(secure.unknown.as_path()));
    let accepted =
        [("require", RIGHT), ("require", WRONG), ("verify-ca", RIGHT), ("verify-ca", WRONG), ("verify-full", RIGHT)];
    for (mode, host) in accepted {
        let roots = known.filter(|_| mode != "require");
        assert_eq!(is_encrypted(&secure.url(host, mode, roots)).await, Ok(true), "{mode} to {host}");
    }
    let wrong_name = is_encrypted(&secure.url(WRONG, "verify-full", known)).await.unwrap_err();
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    for mode in ["verify-ca", "verify-full"] {
        let unknown_authority = is_encrypted(&secure.url(RIGHT, mode, unknown)).await.unwrap_err();
        assert!(unknown_authority.contains("UnknownIssuer"), "{mode}: {unknown_authority}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_without_tls_gets_no_connection_in_plain_text() -> Tested {
    let files = tempfile::tempdir()?;
    let roots = files.path().join("roots.pem");
    std::fs::write(&roots, authority("known")?.pem())?;
    let cluster = Cluster::start(0).await?;
    let url = cluster.primary().url();
    assert_eq!(is_encrypted(&format!("{url}?sslmode=disable")).await, Ok(false));
    for mode in ["require", "verify-ca", "verify-full"] {
        let roots = if mode == "require" { String::new() } else { format!("&sslrootcert={}", roots.display()) };
        let refused = is_encrypted(&format!("{url}?sslmode={mode}{roots}")).await.unwrap_err();
        assert!(refused.contains("server does not support TLS"), "{mode}: {refused}");
    }
    Ok(())
}

#[tokio::test]
async fn a_login_can_insist_on_channel_binding() -> Tested {
    let Some(secure) = Secure::start().await? else { return Ok(()) };
    let url = secure.url(RIGHT, "verify-full", Some(&secure.known));
    assert_eq!(is_encrypted(&format!("{url}&channel_binding=require")).await, Ok(true));
    Ok(())
}

#[tokio::test]
async fn an_encrypted_connection_tells_its_state_and_is_cancelled_over_tls() -> Tested {
    let Some(secure) = Secure::start().await? else { return Ok(()) };
    let connector = connector(&secure.url(RIGHT, "verify-full", Some(&secure.known)))?;
    let Connected { client, tap, .. } = connector.connect_tapped().await?;
    client.batch_execute("BEGIN").await?;
    assert_eq!(timeout(SOON, tap.settled()).await?, Condition::Dirty);
    client.batch_execute("ROLLBACK").await?;
    assert_eq!(timeout(SOON, tap.settled()).await?, Condition::Clean);
    let mut query = pin!(client.simple_query("SELECT pg_sleep(600)"));
    assert!(query.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(tap.condition(), Condition::Busy);
    // A request that overtakes the statement finds nothing to cancel.
    let cancelled = async {
        loop {
            connector.cancel_token(&client).cancel_query().await?;
            if let Ok(answer) = timeout(Duration::from_millis(100), query.as_mut()).await {
                return Ok::<_, tokio_postgres::Error>(answer.map(drop));
            }
        }
    };
    let error = timeout(SOON, cancelled).await??.expect_err("the statement is cancelled");
    assert_eq!(error.code().map(|state| state.code()), Some("57014"));
    Ok(())
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_named_before_anything_is_sent() -> Tested {
    let files = tempfile::tempdir()?;
    let (empty, missing) = (files.path().join("empty.pem"), files.path().join("missing.pem"));
    std::fs::write(&empty, "no certificate in here")?;
    for path in [empty, missing] {
        let url = format!("postgres://app@db.example/app?sslmode=verify-full&sslrootcert={}", path.display());
        let error = connector(&url).expect_err("there is nothing to trust").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    Ok(())
}
