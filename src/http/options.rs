//! What may be seen over HTTP, and by whom.

use std::{fmt, sync::Arc};

use super::token::Token;

/// Where the text of the metrics comes from.
pub(super) type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Who is told more than that the router is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Details {
    /// Who has the token. Without a token: nobody.
    #[default]
    Token,
    /// Everybody who can connect: names and addresses of servers, and the errors of their pings. No password is among them.
    Public,
}

/// What is served, and to whom. The default tells strangers whether the router is ready, and nothing else, and lets nobody act.
#[derive(Clone)]
pub struct HttpOptions {
    pub(super) token: Option<Token>,
    pub(super) details: Details,
    pub(super) hosts: Vec<String>,
    pub(super) most_streams: usize,
    pub(super) metrics: Option<Metrics>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { token: None, details: Details::default(), hosts: Vec::new(), most_streams: 64, metrics: None }
    }
}

impl HttpOptions {
    /// Who has this token sees the details and may act. Default: none, so that there are no actions at all.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Who else sees the details. Default [`Details::Token`].
    #[must_use]
    pub fn details(mut self, details: Details) -> Self {
        self.details = details;
        self
    }

    /// The names by which it is asked for: a request whose `Host` has another gets 421, whatever its port. This keeps a page of
    /// somebody else's from reading a server on the loopback through a name that it lets point there (DNS rebinding). Default: any
    /// name. `/livez` does not look at it.
    #[must_use]
    pub fn hosts<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.hosts = names.into_iter().map(|name| name.into().to_ascii_lowercase()).collect();
        self
    }

    /// How many may follow `/events` at a time; the next one gets 503. Default 64.
    #[must_use]
    pub fn most_streams(mut self, most: usize) -> Self {
        self.most_streams = most;
        self
    }

    /// What `/metrics` answers: a text in the format of Prometheus. Default: there is no `/metrics`.
    #[must_use]
    pub fn metrics(mut self, text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(text));
        self
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("token", &self.token)
            .field("details", &self.details)
            .field("hosts", &self.hosts)
            .field("most_streams", &self.most_streams)
            .field("metrics", &self.metrics.is_some())
            .finish()
    }
}
