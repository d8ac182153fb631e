//! From what a URL asks for to sqlx's options, or a refusal: nothing that was asked for is left out silently.

use std::str;

use ::sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio_postgres::config::{ChannelBinding, Host, SslNegotiation, TargetSessionAttrs};

use crate::config::{Roots, Target, Tls};

/// How sqlx reaches this target.
pub(super) fn of(target: &Target) -> Result<PgConnectOptions, String> {
    let postgres = &target.postgres;
    let refused = [
        (postgres.get_target_session_attrs() != TargetSessionAttrs::Any, "target_session_attrs"),
        (postgres.get_channel_binding() == ChannelBinding::Require, "channel_binding=require"),
        (postgres.get_ssl_negotiation() == SslNegotiation::Direct, "sslnegotiation=direct"),
    ];
    if let Some((_, key)) = refused.into_iter().find(|(asked, _)| *asked) {
        return Err(format!("sqlx knows no {key}: leave it out of the URL, or use another back end"));
    }
    let mut options = host(PgConnectOptions::new_without_pgpass(), target)?;
    options = options.port(postgres.get_ports().first().copied().unwrap_or(5432));
    if let Some(user) = postgres.get_user() {
        options = options.username(user);
    }
    if let Some(password) = postgres.get_password() {
        let password = str::from_utf8(password).map_err(|_| "sqlx takes passwords in UTF-8 alone".to_owned())?;
        options = options.password(password);
    }
    if let Some(database) = postgres.get_dbname() {
        options = options.database(database);
    }
    if let Some(name) = postgres.get_application_name() {
        options = options.application_name(name);
    }
    for setting in postgres.get_options().map(settings).transpose()?.unwrap_or_default() {
        options = options.options([setting]);
    }
    Ok(secured(options, &target.tls))
}

fn host(options: PgConnectOptions, target: &Target) -> Result<PgConnectOptions, String> {
    match (target.postgres.get_hosts(), target.postgres.get_hostaddrs()) {
        ([Host::Tcp(name)], []) => Ok(options.host(name)),
        ([], [address]) => Ok(options.host(&address.to_string())),
        // The name is for the certificate alone, and nobody compares it.
        ([Host::Tcp(_)], [address]) if !matches!(target.tls, Tls::VerifyFull(_)) => {
            Ok(options.host(&address.to_string()))
        }
        #[cfg(unix)]
        ([Host::Unix(directory)], []) => Ok(options.socket(directory)),
        ([_], [_]) => Err("sqlx verifies the name that it connects to: leave hostaddr out of the URL".to_owned()),
        _ => Err("sqlx connects to one host: declare an alias for each, and a group over them".to_owned()),
    }
}

fn secured(options: PgConnectOptions, tls: &Tls) -> PgConnectOptions {
    let rooted = |options: PgConnectOptions, roots: &Roots| match roots {
        Roots::System => options,
        Roots::File(path) => options.ssl_root_cert(path),
    };
    match tls {
        Tls::Disable => options.ssl_mode(PgSslMode::Disable),
        Tls::Require => options.ssl_mode(PgSslMode::Require),
        Tls::VerifyCa(roots) => rooted(options.ssl_mode(PgSslMode::VerifyCa), roots),
        Tls::VerifyFull(roots) => rooted(options.ssl_mode(PgSslMode::VerifyFull), roots),
    }
}

/// `-c key=value`, `-ckey=value` and `--key=value`, as a server's command line has them.
fn settings(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut words = text.split_whitespace();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next(),
            other => other,
        };
        let pair = setting.filter(|setting| !setting.contains('\\')).and_then(|setting| setting.split_once('='));
        let (key, value) = pair.ok_or("of a URL's options sqlx takes -c key=value alone, without backslashes")?;
        found.push((key.to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AliasKind, Config as Configured, Role};

    fn target(url: &str) -> Target {
        let config = Configured::builder().server("primary", Role::Primary, url).build().unwrap();
        let AliasKind::Server(server) = &config.aliases()[0].kind else { unreachable!("one server is declared") };
        server.target.clone()
    }

    #[test]
    fn what_a_url_says_reaches_sqlx() {
        let url =
            "postgres://me:secret@127.0.0.1:5433/shop?application_name=till&options=-c%20geqo%3Doff%20--work_mem%3D8MB";
        let options = of(&target(url)).unwrap();
        assert_eq!((options.get_host(), options.get_port(), options.get_username()), ("127.0.0.1", 5433, "me"));
        assert_eq!((options.get_database(), options.get_application_name()), (Some("shop"), Some("till")));
        assert_eq!(options.get_options(), Some("-c geqo=off -c work_mem=8MB"));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::Disable));
    }

    #[test]
    fn a_host_elsewhere_is_reached_by_a_verified_certificate_and_never_less() {
        let modes = [("", "VerifyFull"), ("?sslmode=require", "Require")];
        for (mode, wanted) in modes {
            let options = of(&target(&format!("postgres://me@db.example/shop{mode}"))).unwrap();
            assert_eq!(format!("{:?}", options.get_ssl_mode()), wanted);
        }
    }

    #[test]
    fn what_sqlx_cannot_do_is_refused_by_name() {
        let refused = [
            ("postgres://me@127.0.0.1/shop?options=-F", "options"),
            ("postgres://me@db.example/shop?hostaddr=10.0.0.1", "hostaddr"),
        ];
        for (url, what) in refused {
            let why = of(&target(url)).unwrap_err();
            assert!(why.contains(what), "{url}: {why}");
        }
    }
}
