//! `pgdetour serve`: watches the servers of a configuration, and tells about them over HTTP.

use std::{
    future::Future,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use pgdetour::{
    Config, Router,
    http::{self, Details, HttpOptions, Listening, Token},
    metrics,
};

use crate::{args, exit::Exit, log};

/// How often the histograms are tidied.
const TIDY: Duration = Duration::from_secs(5);

/// Serves until interrupted.
pub(crate) async fn run(args: &args::Serve, interrupted: impl Future<Output = ()> + Send + 'static) -> Exit {
    log::log_as_a_service();
    let started = match start(args).await {
        Ok(started) => started,
        Err(exit) => return exit,
    };
    let (listening, endpoints, router) = started;
    let served = http::serve(listening, endpoints, interrupted).await;
    router.shutdown().await;
    match served {
        Ok(()) => Exit::Fine,
        Err(error) => Exit::Environment.because(&error),
    }
}

async fn start(args: &args::Serve) -> Result<(Listening, axum::Router, Router), Exit> {
    let address = args.listen;
    if !address.ip().is_loopback() && !args.allow_remote {
        let why = format!("{address} can be reached from other machines: if that is meant, add --allow-remote");
        return Err(Exit::Usage.because(&why));
    }
    let options = options(args)?;
    let config = Config::from_file(&args.file).map_err(|error| Exit::Usage.because(&error))?;
    // Before the servers are asked: whoever looks at the port finds it, and a port that is taken is told at once.
    let listening = Listening::bind(address)
        .await
        .map_err(|error| Exit::Environment.because(&format!("cannot listen on {address}: {error}")))?;
    let router: Router = Router::start(config).await.map_err(|error| Exit::Environment.because(&error))?;
    let at = listening.address().map_err(|error| Exit::Environment.because(&error))?;
    let options = with_metrics(options, &router).map_err(|error| Exit::Environment.because(&error))?;
    say(at, args);
    Ok((listening, http::router(&router, options), router))
}

/// What `/metrics` answers: read when it is asked for.
fn with_metrics(options: HttpOptions, router: &Router) -> Result<HttpOptions, BuildError> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &metrics::SECONDS)?.build_recorder();
    let handle = recorder.handle();
    let observed = metrics::observe_with(router, Arc::new(recorder));
    let kept = handle.clone();
    tokio::spawn(async move {
        // What the histograms were given is held until somebody asks or this is called.
        let mut ticks = tokio::time::interval(TIDY);
        loop {
            ticks.tick().await;
            kept.run_upkeep();
        }
    });
    Ok(options.metrics(move || {
        observed.refresh();
        handle.render()
    }))
}

fn options(args: &args::Serve) -> Result<HttpOptions, Exit> {
    let details = if args.public { Details::Public } else { Details::Token };
    let mut options = HttpOptions::default().details(details);
    if let Some(file) = &args.token_file {
        options = options.token(Token::from_file(file).map_err(|error| Exit::Usage.because(&error))?);
    }
    let loopback = http::loopback_names().into_iter().filter(|_| args.listen.ip().is_loopback());
    let names: Vec<String> = loopback.map(str::to_owned).chain(args.host.iter().cloned()).collect();
    Ok(options.hosts(names))
}

fn say(at: SocketAddr, args: &args::Serve) {
    let host = match at.ip() {
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let seen = match (args.public, &args.token_file) {
        (true, Some(_)) => "everybody who can connect sees the details; actions need the token",
        (true, None) => "everybody who can connect sees the details; there are no actions without --token-file",
        (false, Some(_)) => "details and actions need the token",
        (false, None) => "nobody sees details: give --token-file, or --public",
    };
    // Who closed standard output does not want it.
    let _ = writeln!(io::stdout(), "http://{host}:{}/ ({seen})", at.port());
}
