//! Which router a command looks at: one that runs, over HTTP, or one of its own that is started from a configuration.

use std::path::PathBuf;

use pgdetour::{
    Config, Router,
    observe::{Chronicle, status::Status},
};

use crate::{exit::Exit, remote::Remote, trouble::Trouble};

/// The configuration that is read where nothing else is said.
const USUAL_FILE: &str = "pgdetour.toml";

/// Which router.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Subject {
    /// A configuration: a router of its own pings the servers from here. Default pgdetour.toml
    #[arg(value_name = "FILE", conflicts_with = "url")]
    file: Option<PathBuf>,

    /// The endpoints of a router that runs: of `pgdetour serve`, or where an application has nested them
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// A file with the bearer token, where the router shows its details to nobody else
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

/// All that is told about a router at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) status: Status,
    pub(crate) timeline: Chronicle,
}

impl Subject {
    /// The router that runs, if one was named.
    pub(crate) fn remote(&self) -> Result<Option<Remote>, Trouble> {
        self.url.as_ref().map(|url| Remote::new(url, self.token_file.as_deref())).transpose()
    }

    /// A router of its own, which has pinged each server once.
    pub(crate) async fn start(&self) -> Result<Router, Trouble> {
        let file = self.file.clone().unwrap_or_else(|| USUAL_FILE.into());
        let config = Config::from_file(&file).map_err(|error| {
            let hint =
                if self.file.is_none() && !file.exists() { "; or look at a router that runs: --url" } else { "" };
            Trouble::new(Exit::Usage, format_args!("{error}{hint}"))
        })?;
        Router::start(config).await.map_err(|error| Trouble::of(Exit::Environment, "no router", &error))
    }

    /// What is so now.
    pub(crate) async fn status(&self) -> Result<Status, Trouble> {
        if let Some(remote) = self.remote()? {
            return remote.status().await;
        }
        let router = self.start().await?;
        let status = router.status();
        router.shutdown().await;
        Ok(status)
    }
}
