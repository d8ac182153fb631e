//! `pgdetour drain`, `undrain`, `ping` and `end-hold`: has a running router do something with an alias.

mod args;

use std::{future::Future, time::Duration};

use serde_json::json;

pub(crate) use self::args::{Drain, EndHold, On, Ping, Undrain};
use crate::{exit::Exit, remote::Remote, safe::safe, say::say, trouble::Trouble};

/// One of the things that it can be asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Drain(Duration),
    Undrain,
    Ping,
    EndHold,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Drain(_) => "drain",
            Self::Undrain => "undrain",
            Self::Ping => "ping",
            Self::EndHold => "end-hold",
        }
    }

    fn query(self) -> String {
        match self {
            Self::Drain(lasting) => format!("?for={}ms", lasting.as_millis()),
            Self::Undrain | Self::Ping | Self::EndHold => String::new(),
        }
    }

    /// What has come of it.
    fn told(self, alias: &str, changed: bool) -> String {
        match self {
            Self::Drain(lasting) => {
                let lasting = humantime::format_duration(lasting);
                format!("{alias} is drained for {lasting}; `pgdetour undrain {alias}` ends it before")
            }
            Self::Undrain if changed => format!("{alias} is drained no more"),
            Self::Undrain => format!("{alias} was not drained"),
            Self::Ping => format!("{alias} has been pinged; `pgdetour explain {alias}` tells what came of it"),
            Self::EndHold if changed => {
                format!("the hold of {alias}'s breaker has ended: a request goes there on trial")
            }
            Self::EndHold => format!("no breaker of {alias} was held"),
        }
    }
}

/// Asks for it, until it is done or interrupted.
pub(crate) async fn run(on: &On, action: Action, interrupted: impl Future<Output = ()>) -> Exit {
    tokio::select! {
        done = act(on, action) => match done {
            Ok(()) => Exit::Fine,
            Err(trouble) => trouble.tell(on.json),
        },
        () = interrupted => Exit::Interrupted,
    }
}

async fn act(on: &On, action: Action) -> Result<(), Trouble> {
    let remote = Remote::new(&on.url, Some(&on.token_file))?;
    let done = remote.act(action.name(), &on.alias, &action.query()).await?;
    if on.json {
        let done = json!({ "done": action.name(), "alias": on.alias, "changed": done.changed });
        say(&format!("{done:#}"));
    } else {
        say(&action.told(&safe(&on.alias), done.changed));
    }
    Ok(())
}
