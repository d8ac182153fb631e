//! A configuration in code, with the same checks and the same errors as one in a file.

use std::{error::Error, sync::Arc, time::Duration};

use secrecy::SecretString;

use super::{
    AliasName, Balance, BreakerSettings, CallSettings, CodePrefix, Config, ConfigError, Monitoring, Pings,
    PoolSettings, Role,
    error::{At, Given, Mistake, Problem},
    load::{compile, process_environment, surroundings},
    raw::{Raw, RawAlias},
    url::Surroundings,
};

impl Config {
    /// Builds a configuration in code.
    ///
    /// ```
    /// use pgdetour::config::{Config, Pings, Role};
    ///
    /// let config = Config::builder()
    ///     .pings(Pings::brisk())
    ///     .server("primary", Role::Primary, "postgres://app@localhost:5433/app")
    ///     .server("replica", Role::Replica, "postgres://app@localhost:5434/app")
    ///     .build()?;
    /// assert_eq!(config.alias("replica").expect("declared above").failover[0].as_str(), "primary");
    /// # Ok::<(), pgdetour::config::ConfigError>(())
    /// ```
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder { raw: Raw::default(), mistakes: Vec::new(), surroundings: None }
    }
}

/// Builds a [`Config`] in code. Mistakes are told by [`ConfigBuilder::build`], all at once.
#[derive(Debug)]
#[must_use]
pub struct ConfigBuilder {
    raw: Raw,
    mistakes: Vec<Mistake>,
    surroundings: Option<Surroundings>,
}

impl ConfigBuilder {
    /// How every server is pinged that has no pings of its own. As in a file, a field that has its default gives way to the others:
    /// with an `outage_ping_frequency` of 1 s, errors ping at most once a second as well.
    pub fn pings(mut self, pings: Pings) -> Self {
        self.raw.numbers.set_pings(&pings, "");
        self
    }

    /// How every alias is pooled that has no pool settings of its own; see [`PoolSettings::of_size`].
    pub fn pool(mut self, pool: PoolSettings) -> Self {
        self.raw.numbers.set_pool(&pool, "");
        self
    }

    /// How the calls of every alias are bounded and made again that has no call settings of its own.
    pub fn calls(mut self, calls: CallSettings) -> Self {
        self.raw.numbers.set_calls(&calls, "");
        self
    }

    /// When requests turn from a server that answers its pings, for every server that has no such settings of its own.
    pub fn breaker(mut self, breaker: BreakerSettings) -> Self {
        self.raw.numbers.set_breaker(&breaker, "");
        self
    }

    /// The last good values that `read_or` keeps at most, of all aliases together; 0 for none.
    pub fn cache_size(mut self, size: usize) -> Self {
        self.raw.numbers.set_cache_size(size);
        self
    }

    /// The alias of the primary in which outages are kept for `pgdetour report`: what `history` says in a file.
    pub fn history(mut self, alias: impl Into<String>) -> Self {
        self.raw.history = Some(Given { value: alias.into(), at: At::code("history".to_owned()) });
        self
    }

    /// For how long an outage that is over is kept there. Default 365 days.
    pub fn history_keep(mut self, keep: Duration) -> Self {
        let at = At::code("history_keep".to_owned());
        self.raw.numbers.durations.insert("history_keep", Given { value: keep, at });
        self
    }

    /// SQLSTATEs that ask for a ping besides those that do by themselves: five characters, or two for a class.
    pub fn extra_outage_errors<C: AsRef<str>>(mut self, codes: impl IntoIterator<Item = C>) -> Self {
        self.raw.outage_errors.extra = self.codes("extra", codes);
        self
    }

    /// SQLSTATEs that ask for a ping instead of those that do by themselves. What the network shows always asks.
    pub fn only_outage_errors<C: AsRef<str>>(mut self, codes: impl IntoIterator<Item = C>) -> Self {
        self.raw.outage_errors.only = Some(self.codes("only", codes));
        self
    }

    /// Who starts pings.
    pub fn monitoring(mut self, monitoring: Monitoring) -> Self {
        self.raw.monitoring = monitoring;
        self
    }

    /// Declares a server: its URL is a libpq URL or `key=value` text.
    pub fn server(self, name: &str, role: Role, url: impl Into<String>) -> Self {
        let url = SecretString::from(url.into());
        self.declare(name, |alias| {
            alias.role = Some(Given { value: role, at: alias.at_key("role") });
            alias.url = Some(Given { value: url, at: alias.at_key("url") });
        })
    }

    /// Declares a group of servers.
    pub fn group<M: Into<String>>(self, name: &str, members: impl IntoIterator<Item = M>, balance: Balance) -> Self {
        let members = members.into_iter().map(Into::into).collect();
        self.declare(name, |alias| {
            alias.members = Some(Given { value: members, at: alias.at_key("members") });
            alias.balance = Some(Given { value: balance, at: alias.at_key("balance") });
        })
    }

    /// The aliases that take the reads of `alias` during an outage, in order; none at all for no failover.
    pub fn failover<T: Into<String>>(self, alias: &str, targets: impl IntoIterator<Item = T>) -> Self {
        let targets = targets.into_iter().map(Into::into).collect();
        self.change(alias, "failover", |alias| {
            alias.failover = Some(Given { value: targets, at: alias.at_key("failover") });
        })
    }

    /// The password of `alias`, when it is not in its URL.
    pub fn password(self, alias: &str, password: impl Into<String>) -> Self {
        let password = SecretString::from(password.into());
        self.change(alias, "password", |alias| alias.password = Some(password))
    }

    /// How the server of `alias` is pinged.
    pub fn pings_of(self, alias: &str, pings: Pings) -> Self {
        self.change(alias, "pings", |alias| {
            alias.own_pings = true;
            alias.numbers.set_pings(&pings, &format!("alias.{}.", alias.name));
        })
    }

    /// How `alias` is pooled.
    pub fn pool_of(self, alias: &str, pool: PoolSettings) -> Self {
        self.change(alias, "pool", |alias| alias.numbers.set_pool(&pool, &format!("alias.{}.", alias.name)))
    }

    /// When requests turn from the server of `alias`.
    pub fn breaker_of(self, alias: &str, breaker: BreakerSettings) -> Self {
        self.change(alias, "breaker", |alias| alias.numbers.set_breaker(&breaker, &format!("alias.{}.", alias.name)))
    }

    /// How the calls of `alias` are bounded and made again.
    pub fn calls_of(self, alias: &str, calls: CallSettings) -> Self {
        self.change(alias, "calls", |alias| alias.numbers.set_calls(&calls, &format!("alias.{}.", alias.name)))
    }

    /// Takes `USER`, `HOME` and `PGPASSFILE` from here instead of from the process.
    pub fn environment<N: Into<String>, V: Into<String>>(mut self, pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.surroundings = Some(surroundings(&pairs));
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// Every mistake, as [`Config::from_file`] tells them.
    pub fn build(self) -> Result<Config, ConfigError> {
        let surroundings = self.surroundings.unwrap_or_else(|| surroundings(&process_environment()));
        compile(&self.raw, self.mistakes, &surroundings)
    }

    /// What `classify_errors` stands on, which knows the classes.
    pub(crate) fn judge_errors(
        mut self,
        judge: impl Fn(&(dyn Error + 'static)) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        self.raw.outage_errors.judge_by(Arc::new(judge));
        self
    }

    fn codes<C: AsRef<str>>(&mut self, key: &str, codes: impl IntoIterator<Item = C>) -> Vec<CodePrefix> {
        let at = At::code(format!("outage_errors.{key}"));
        let parsed = codes.into_iter().map(|code| CodePrefix::parse(code.as_ref()));
        parsed.filter_map(|code| code.map_err(|problem| self.mistakes.push(at.mistake(problem))).ok()).collect()
    }

    fn declare(mut self, name: &str, fill: impl FnOnce(&mut RawAlias)) -> Self {
        let at = At::code(format!("alias.{name}"));
        match AliasName::new(name) {
            Err(invalid) => self.mistakes.push(at.mistake(Problem::bare(format!("not a name: {invalid}")))),
            Ok(_) if self.raw.aliases.iter().any(|alias| alias.name.as_str() == name) => {
                self.mistakes.push(at.mistake(Problem::new("is declared twice", "leave one out")));
            }
            Ok(name) => {
                let mut alias = RawAlias::new(name, at);
                fill(&mut alias);
                self.raw.aliases.push(alias);
            }
        }
        self
    }

    fn change(mut self, name: &str, key: &str, fill: impl FnOnce(&mut RawAlias)) -> Self {
        match self.raw.aliases.iter_mut().find(|alias| alias.name.as_str() == name) {
            Some(alias) => fill(alias),
            None => {
                let declared = self.raw.aliases.iter().map(|alias| alias.name.as_str());
                let problem = Problem::none_of("is of no alias that was declared before", name, declared);
                self.mistakes.push(At::code(format!("alias.{name}.{key}")).mistake(problem));
            }
        }
        self
    }
}
