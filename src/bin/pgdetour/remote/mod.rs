//! A router that runs in another process, over its endpoints: what it tells, and what it is asked to do.

mod http;
mod stream;

use std::{path::Path, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pgdetour::observe::{
    Chronicle,
    status::{Status, VERSION},
};
use serde::{Deserialize, de::DeserializeOwned};

use self::http::{Answer, Place};
pub(crate) use self::stream::{Stream, Told};
use crate::{exit::Exit, safe::safe, trouble::Trouble};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an action may: a ping is answered for when it has ended.
const PATIENCE_TO_ACT: Duration = Duration::from_secs(60);

/// A router that runs elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    place: Place,
}

/// What an action has come to.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Done {
    /// Whether anything is different now.
    pub(crate) changed: bool,
}

/// What a refusal says.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
}

impl Remote {
    /// The one at this address, asked with the token in this file.
    pub(crate) fn new(url: &str, token_file: Option<&Path>) -> Result<Self, Trouble> {
        Ok(Self { place: Place::new(url, token_file)? })
    }

    /// What is so now.
    pub(crate) async fn status(&self) -> Result<Status, Trouble> {
        self.get("/status").await
    }

    /// What happened lately.
    pub(crate) async fn timeline(&self) -> Result<Chronicle, Trouble> {
        self.get("/timeline").await
    }

    /// What is so, whenever that changes.
    pub(crate) async fn follow(&self) -> Result<Stream, Trouble> {
        let answer = self.place.ask("GET", "/events", PATIENCE).await?;
        if answer.status() != 200 {
            return Err(self.refused(&self.place.read(answer, PATIENCE).await?));
        }
        Ok(Stream::new(answer, self.place.to_string()))
    }

    /// Has something done with an alias.
    pub(crate) async fn act(&self, action: &str, alias: &str, query: &str) -> Result<Done, Trouble> {
        let path = format!("/actions/{action}/{}{query}", utf8_percent_encode(alias, NON_ALPHANUMERIC));
        let answer = self.place.ask("POST", &path, PATIENCE_TO_ACT).await?;
        let answer = self.place.read(answer, PATIENCE_TO_ACT).await?;
        match answer.status {
            200 => self.understood(&answer.body),
            404 => Err(self.nothing_there(alias).await),
            409 => Err(Trouble::new(Exit::Failed, refusal(&answer))),
            _ => Err(self.refused(&answer)),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let answer = self.place.ask("GET", path, PATIENCE).await?;
        let answer = self.place.read(answer, PATIENCE).await?;
        if answer.status == 200 { self.understood(&answer.body) } else { Err(self.refused(&answer)) }
    }

    fn understood<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Trouble> {
        serde_json::from_slice(body).map_err(|error| self.not_understood(body, &error))
    }

    fn not_understood(&self, body: &[u8], error: &serde_json::Error) -> Trouble {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let why = match serde_json::from_slice::<Versioned>(body) {
            Ok(Versioned { version }) if version > VERSION => {
                format!("{} writes version {version}, and this program reads {VERSION}: use a newer one", self.place)
            }
            _ => format!("what answers at {} is no pgdetour: {error}", self.place),
        };
        Trouble::new(Exit::Environment, why)
    }

    /// A refusal in words that say what to do.
    fn refused(&self, answer: &Answer) -> Trouble {
        let (place, says) = (&self.place, refusal(answer));
        let why = match answer.status {
            401 if place.has_token() => format!("{place} takes another token than that"),
            401 => format!("{place} wants the token: --token-file"),
            403 => format!("{place} refuses: {says}. Start it with --token-file, or --public for details alone"),
            404 => {
                format!("{place} has no endpoints of pgdetour; where an application nests them, the path is needed too")
            }
            421 => format!("{place} does not answer to that host name: name it where it is started (--host)"),
            status => format!("{place} answers {status}: {says}"),
        };
        Trouble::new(if answer.status == 400 { Exit::Usage } else { Exit::Environment }, why)
    }

    /// Why an action was not found: no such alias, no actions, or no pgdetour.
    async fn nothing_there(&self, alias: &str) -> Trouble {
        match self.status().await {
            Err(trouble) => trouble,
            Ok(status) if status.alias(alias).is_some() => {
                Trouble::new(Exit::Environment, format_args!("{} takes no actions: it has no token", self.place))
            }
            Ok(status) => no_alias(alias, &status),
        }
    }
}

/// That there is no such alias, and which there are.
pub(crate) fn no_alias(alias: &str, status: &Status) -> Trouble {
    let names: Vec<String> = status.aliases.iter().map(|alias| safe(&alias.name)).collect();
    Trouble::new(Exit::Usage, format_args!("there is no alias {alias:?}; there are {}", names.join(", ")))
}

fn refusal(answer: &Answer) -> String {
    let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
    if refusal.error.is_empty() { "without saying why".to_owned() } else { safe(&refusal.error) }
}
