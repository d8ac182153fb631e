//! Redis: with a password, as a user of its own, over TLS, and with a wrong password.

use pgdetour::service::Redis;

use super::harness::{Server, Tested, Watch, config_with, directory, free_port, program, stopped_frozen_and_restarted};

const PASSWORD: &str = "r3dis-w0rd-of-the-tests";

fn server(port: u16, more: &str) -> Tested<Server> {
    let directory = directory()?;
    let mut server = Server::new(program("redis")?, directory)?;
    server.command().arg("-");
    server.input(format!(
        "bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\nrequirepass {PASSWORD}\nuser app on >{PASSWORD} +@all ~*\n{more}\n"
    ));
    Ok(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stops_freezes_and_comes_back_is_seen_to() -> Tested {
    let port = free_port();
    let mut server = server(port, "")?;
    server.start()?;
    let secret = server.directory.path().join("password");
    std::fs::write(&secret, PASSWORD)?;
    let declared = format!(
        "[service.sessions]\nkind = \"redis\"\nurl = \"redis://app@127.0.0.1:{port}\"\npassword_file = {secret:?}\n"
    );
    let mut watch = Watch::with(config_with(&declared)?).await?;
    stopped_frozen_and_restarted(&mut watch, "sessions", &mut server).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_tells_nothing_of_redis_and_is_not_printed() -> Tested {
    let port = free_port();
    let mut server = server(port, "")?;
    server.start()?;
    let mut watch = Watch::start().await?;
    // The default user has the same password.
    let url = |login: &str| format!("redis://{login}@127.0.0.1:{port}");
    watch.router.register(Redis::new("right", &url(&format!(":{PASSWORD}")))?).await?;
    watch.until_up("right").await.map_err(|error| format!("{error}\n{}", server.log()))?;
    watch.router.register(Redis::new("wrong", &url(&format!("app:not-{PASSWORD}")))?).await?;
    let cause = watch.until_inconclusive("wrong").await?.to_string();
    assert!(cause.contains("WRONGPASS") && !cause.contains(PASSWORD), "{cause}");
    watch.router.register(Redis::new("none", &format!("redis://127.0.0.1:{port}"))?).await?;
    let cause = watch.until_inconclusive("none").await?.to_string();
    assert!(cause.contains("NOAUTH"), "{cause}");
    assert!(!format!("{:?}", watch.router.services()).contains(PASSWORD));
    Ok(())
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_redis_is_asked_whose_certificate_is_trusted_and_no_other() -> Tested {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let directory = directory()?;
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let (plain, port) = (free_port(), free_port());
    let tls = format!(
        "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-auth-clients no",
        certificate.display(),
        key.display()
    );
    let mut server = server(plain, &tls)?;
    server.start()?;
    let url = format!("url = \"rediss://:{PASSWORD}@127.0.0.1:{port}\"");
    let declared = format!(
        "[service.trusted]\nkind = \"redis\"\n{url}\nsslrootcert = {certificate:?}\n[service.unknown]\nkind = \"redis\"\n{url}\n\
         sslrootcert = {:?}\n",
        other_authority(directory.path())?
    );
    // What tells nothing closes no outage either: the server has to be there before it is asked.
    let mut watch = Watch::start().await?;
    watch.router.register(Redis::new("plain", &format!("redis://:{PASSWORD}@127.0.0.1:{plain}"))?).await?;
    watch.until_up("plain").await.map_err(|error| format!("{error}\n{}", server.log()))?;
    watch.router.reload(config_with(&declared)?).await?;
    let trusted = watch.router.service("trusted")?.explain();
    assert!(!trusted.is_out() && trusted.inconclusive.is_none(), "{trusted}");
    let cause = watch.until_inconclusive("unknown").await?.to_string();
    assert!(cause.contains("no TLS as asked for"), "{cause}");
    server.kill()?;
    watch.until_out("trusted").await.map(drop)
}

#[cfg(feature = "tls")]
fn other_authority(directory: &std::path::Path) -> Tested<std::path::PathBuf> {
    let path = directory.join("other.pem");
    std::fs::write(&path, rcgen::generate_simple_self_signed(["elsewhere".to_owned()])?.cert.pem())?;
    Ok(path)
}
