//! Does it hold as a whole? Roles, chains, groups and numbers, checked together; no file is read here.

use super::{
    AliasConfig, AliasKind, AliasName, Config, HistorySettings, Pings, Role, ServerConfig, Tls,
    error::{At, Given, Mistake, Problem},
    history,
    numbers::Layered,
    raw::{Numbers, Raw, RawAlias},
    url::Draft,
};

/// The configuration, which holds if no mistake comes with it. `drafts` stand beside the aliases.
pub(super) fn check(raw: &Raw, drafts: &[Option<Draft>], warnings: Vec<Mistake>) -> (Config, Vec<Mistake>) {
    let mut checker = Checker { raw, mistakes: Vec::new(), warnings };
    checker.shape();
    let primaries: Vec<_> = raw.aliases.iter().filter(|alias| alias.is_primary()).collect();
    if raw.unread {
        // Whatever is missing may stand where reading failed.
    } else if raw.aliases.is_empty() {
        let problem = Problem::new(
            "declares no alias",
            "write [alias.primary] with role = \"primary\" and url = \"postgres://…\"",
        );
        checker.mistakes.push(raw.at.mistake(problem));
    } else if primaries.is_empty() && raw.aliases.iter().all(|alias| alias.lacks("role")) {
        let problem = Problem::new("no alias is a primary", "give one alias role = \"primary\"");
        checker.mistakes.push(raw.at.mistake(problem));
    }
    checker.numbers();
    checker.selves();
    let aliases: Vec<_> = raw
        .aliases
        .iter()
        .zip(drafts)
        .filter_map(|(alias, draft)| checker.alias(alias, draft.as_ref(), &primaries))
        .collect();
    checker.twins(drafts);
    checker.tls(drafts);
    let config = Config {
        aliases,
        services: Vec::new(),
        pings: Pings::default(),
        monitoring: raw.monitoring,
        cache_size: raw.numbers.cache_size(),
        history: HistorySettings::of(raw),
        outage_errors: raw.outage_errors.clone(),
        warnings: std::mem::take(&mut checker.warnings),
    };
    if checker.mistakes.is_empty() {
        checker.dead_ends(&config);
        checker.mistakes.extend(raw.history.as_ref().and_then(|written| history::mistake(written, &config)));
    }
    (config, checker.mistakes)
}

struct Checker<'a> {
    raw: &'a Raw,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl Checker<'_> {
    /// Every alias is a server or a group, and has what it needs.
    fn shape(&mut self) {
        for alias in &self.raw.aliases {
            match &alias.members {
                Some(_) => self.group_shape(alias),
                None => self.server_shape(alias),
            }
        }
    }

    fn group_shape(&mut self, alias: &RawAlias) {
        let server_keys = [
            (
                alias.url.as_ref().map(|given| &given.at),
                "a group has no url of its own",
                "leave it out, or leave members out",
            ),
            (
                alias.role.as_ref().map(|given| &given.at),
                "a group has no role of its own",
                "leave it out: its members have roles",
            ),
            (alias.password_file.as_ref().map(|given| &given.at), "a group has no password", "write it at its members"),
        ];
        for (at, what, remedy) in server_keys {
            self.mistakes.extend(at.map(|at| at.mistake(Problem::new(what, remedy))));
        }
        let numbers = alias.numbers.durations.iter().map(|(key, given)| (*key, &given.at));
        let numbers = numbers.chain(alias.numbers.counts.iter().map(|(key, given)| (*key, &given.at)));
        let numbers = numbers.chain(alias.numbers.words.iter().map(|(key, given)| (*key, &given.at)));
        for (key, at) in numbers {
            if super::schema::Key::named(key).is_some_and(|key| !key.is_of_group()) {
                let problem = Problem::new("a group is not pinged itself", "write it at its members");
                self.mistakes.push(at.mistake(problem));
            }
        }
    }

    fn server_shape(&mut self, alias: &RawAlias) {
        if let Some(balance) = &alias.balance {
            let problem = Problem::new("is for groups", "write members = [\"…\"] as well, or leave it out");
            self.mistakes.push(balance.at.mistake(problem));
        }
        if !alias.lacks("members") {
            return;
        }
        if alias.url.is_none() && alias.lacks("url") {
            let remedy = "write url = \"postgres://user@host/database\", or members = [\"…\"] for a group";
            self.mistakes.push(alias.at.mistake(Problem::new("has no url", remedy)));
        }
        if alias.role.is_none() && alias.lacks("role") {
            let remedy = "write role = \"primary\" or role = \"replica\"";
            self.mistakes.push(alias.at.mistake(Problem::new("has no role", remedy)));
        }
    }

    fn numbers(&mut self) {
        self.mistakes.extend(self.raw.numbers.senseless());
        for alias in &self.raw.aliases {
            self.mistakes.extend(alias.numbers.senseless());
        }
    }

    /// Aliases may stand in for each other, since no chain visits a server twice; for itself none can.
    fn selves(&mut self) {
        for alias in &self.raw.aliases {
            let Some(failover) = &alias.failover else { continue };
            if failover.value.iter().any(|target| *target == alias.name.as_str()) {
                let remedy = "leave it out: what stands in for an alias is another one";
                self.mistakes.push(failover.at.mistake(Problem::new("names its own alias", remedy)));
            }
        }
    }

    fn alias(&mut self, alias: &RawAlias, draft: Option<&Draft>, primaries: &[&RawAlias]) -> Option<AliasConfig> {
        let layered = Layered::new(&alias.numbers, &self.raw.numbers);
        let pool = layered.pool(draft.and_then(|draft| draft.connect_timeout));
        self.mistakes.extend(layered.inverted_pool(&pool));
        let (calls, breaker) = (layered.calls(), layered.breaker());
        self.mistakes.extend(layered.inverted_calls(&calls, &alias.at));
        let failover = self.failover(alias, primaries);
        let kind = match &alias.members {
            Some(members) => AliasKind::Group {
                members: self.members(members),
                balance: alias.balance.as_ref().map_or_else(Default::default, |given| given.value),
            },
            None => {
                let none = Numbers::default();
                let layered = if alias.own_pings { Layered::new(&alias.numbers, &none) } else { layered };
                let pings = layered.pings(&self.raw.defaults());
                self.mistakes.extend(layered.inverted_pings(&pings, &alias.at));
                let (draft, role) = (draft?, alias.role.as_ref()?.value);
                AliasKind::Server(Box::new(ServerConfig { role, target: draft.target.clone(), pings, breaker }))
            }
        };
        Some(AliasConfig { name: alias.name.clone(), kind, failover, pool, calls })
    }

    /// The written chain, or the default: the primary for whatever is not the primary.
    fn failover(&mut self, alias: &RawAlias, primaries: &[&RawAlias]) -> Vec<AliasName> {
        if let Some(written) = &alias.failover {
            return self.names(written, false);
        }
        let own_primary = |name: &String| primaries.iter().any(|primary| primary.name.as_str() == name);
        let needs = match (&alias.members, &alias.role) {
            (Some(members), _) => !members.value.iter().any(own_primary),
            (None, role) => role.as_ref().is_some_and(|role| role.value == Role::Replica),
        };
        match primaries {
            _ if !needs || !alias.lacks("failover") => Vec::new(),
            [] => Vec::new(),
            [primary] => vec![primary.name.clone()],
            several => {
                let names = several.iter().map(|alias| format!("\"{}\"", alias.name)).collect::<Vec<_>>().join(", ");
                let problem = Problem::new(
                    format!("has no failover, and there are several primaries ({names})"),
                    "write failover = [\"…\"] with one of them, or failover = [] for none",
                );
                self.mistakes.push(alias.at.mistake(problem));
                Vec::new()
            }
        }
    }

    fn members(&mut self, members: &Given<Vec<String>>) -> Vec<AliasName> {
        if members.value.is_empty() {
            self.mistakes.push(members.at.mistake(Problem::new("is empty", "name at least one server")));
        }
        self.names(members, true)
    }

    /// The aliases of these names; `servers` alone if so asked.
    fn names(&mut self, given: &Given<Vec<String>>, servers: bool) -> Vec<AliasName> {
        let mut names: Vec<AliasName> = Vec::new();
        for wanted in &given.value {
            let found = self.raw.aliases.iter().find(|alias| alias.name.as_str() == wanted);
            let problem = match found {
                None => {
                    let fits = |alias: &&RawAlias| !(servers && alias.members.is_some());
                    let declared = self.raw.aliases.iter().filter(fits).map(|alias| alias.name.as_str());
                    Problem::none_of(&format!("there is no alias `{wanted}`"), wanted, declared)
                }
                Some(alias) if servers && alias.members.is_some() => Problem::new(
                    format!("`{wanted}` is a group"),
                    "members are servers: name the members of that group",
                ),
                Some(alias) if names.contains(&alias.name) => {
                    Problem::new(format!("names `{wanted}` twice"), "leave one out")
                }
                Some(alias) => {
                    names.push(alias.name.clone());
                    continue;
                }
            };
            self.mistakes.push(given.at.mistake(problem));
        }
        names
    }

    /// Two aliases for one server: allowed, and worth a word, since a detour from one to the other leads nowhere.
    fn twins(&mut self, drafts: &[Option<Draft>]) {
        let servers: Vec<_> =
            self.raw.aliases.iter().zip(drafts).filter_map(|(alias, draft)| Some((alias, draft.as_ref()?))).collect();
        for (index, (alias, draft)) in servers.iter().enumerate() {
            let Some((first, _)) = servers[..index].iter().find(|(_, other)| same_server(other, draft)) else {
                continue;
            };
            let at = alias.url.as_ref().map_or(&alias.at, |url| &url.at);
            let what = format!("is the same server as alias.{}", first.name);
            self.warnings.push(at.mistake(Problem::new(what, "make sure that this is meant: they go down together")));
        }
    }

    fn tls(&mut self, drafts: &[Option<Draft>]) {
        let protected = |draft: &Draft| draft.target.tls != Tls::Disable;
        for (alias, draft) in self.raw.aliases.iter().zip(drafts) {
            if cfg!(not(feature = "tls")) && draft.as_ref().is_some_and(protected) {
                let at = alias.url.as_ref().map_or(&alias.at, |url| &url.at);
                let remedy =
                    "build it with the feature, or write sslmode=disable where the network may read everything";
                let problem = Problem::new("needs TLS, and pgdetour is built without its feature `tls`", remedy);
                self.mistakes.push(at.mistake(problem));
            }
        }
    }

    /// A chain that is written and leads to no server but the alias's own.
    fn dead_ends(&mut self, config: &Config) {
        for (raw, alias) in self.raw.aliases.iter().zip(&config.aliases) {
            let own: Vec<_> = match &alias.kind {
                AliasKind::Server(_) => vec![&alias.name],
                AliasKind::Group { members, .. } => members.iter().collect(),
            };
            let leads_on = config.chain_of(alias.name.as_str()).iter().any(|server| !own.contains(&&server.name));
            if !alias.failover.is_empty() && !leads_on {
                let at: At = raw.failover.as_ref().map_or_else(|| raw.at_key("failover"), |given| given.at.clone());
                let problem = Problem::new(
                    "ends nowhere: it names only the alias's own servers",
                    "name another server, or write failover = []",
                );
                self.mistakes.push(at.mistake(problem));
            }
        }
    }
}

impl RawAlias {
    fn is_primary(&self) -> bool {
        self.members.is_none() && self.role.as_ref().is_some_and(|role| role.value == Role::Primary)
    }
}

fn same_server(one: &Draft, other: &Draft) -> bool {
    (&one.login.host, one.login.port) == (&other.login.host, other.login.port)
}
