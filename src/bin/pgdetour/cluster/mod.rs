//! `pgdetour cluster`: servers for experiments of one's own. Held up until Ctrl-C, broken and repaired by name.

mod args;
mod hold;
mod socket;

use std::{
    fs,
    future::Future,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

pub(crate) use self::args::Cluster as Args;
use self::{args::Action, hold::Hold, socket::Socket};
use crate::{clock, drill, exit::Exit, log, safe::safe};

/// Holds a cluster up until somebody ends it, or tells one that is running what to do.
pub(crate) async fn run(args: &Args, interrupted: impl Future<Output = ()>) -> Exit {
    log::log_to_errors(clock::now());
    tokio::select! {
        exit = serve_or_tell(args) => exit,
        () = interrupted => Exit::Interrupted,
    }
}

async fn serve_or_tell(args: &Args) -> Exit {
    match args.action {
        Some(action) => tell(args, action).await,
        None => serve(args).await,
    }
}

async fn tell(args: &Args, action: Action) -> Exit {
    let server = match (&args.server, action) {
        (None, Action::Status) => "",
        (None, _) => return Exit::Usage.because(&format!("which server? For example: {} replica", action.name())),
        (Some(server), _) => server,
    };
    match socket::tell(&args.socket, &format!("{} {server}", action.name())).await {
        Ok(Ok(done)) => {
            say(&done);
            Exit::Fine
        }
        Ok(Err(why)) => Exit::Failed.because(&why),
        Err(error) => Exit::Environment
            .because(&format!("no cluster answers at {}: {error}; `pgdetour cluster` starts one", shown(&args.socket))),
    }
}

async fn serve(args: &Args) -> Exit {
    let hold = match Hold::start(args.replicas.into()).await {
        Ok(hold) => Arc::new(hold),
        Err(error) => return Exit::Environment.because(&error),
    };
    let configuration = hold.configuration(&drill::pings());
    if let Some(path) = &args.config
        && let Err(error) = fs::write(path, &configuration)
    {
        return Exit::Environment.because(&format!("{}: {error}", shown(path)));
    }
    let socket = match Socket::listen(&args.socket) {
        Ok(socket) => socket,
        Err(error) => return Exit::Environment.because(&format!("{}: {error}", shown(&args.socket))),
    };
    say(&configuration);
    eprintln!("pgdetour cluster: ready. `pgdetour cluster kill replica` breaks one, Ctrl-C ends all");
    Exit::Environment.because(&socket.serve(&hold).await)
}

fn shown(path: &Path) -> String {
    safe(&path.to_string_lossy())
}

fn say(text: &str) {
    // Who closed standard output does not want it.
    let _ = writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush());
}
