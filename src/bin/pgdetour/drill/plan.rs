//! What is to be drilled: which servers, which faults in which order, and what is too much. From the command line and a file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use pgdetour::{
    Config,
    config::{AliasKind, AliasName, Role},
};

use super::{args::Drill, file, kind::Kind};
use crate::safe::safe;

/// What a drill without `--faults` goes through on servers of its own.
const OWN: [&str; 8] = ["kill", "stop", "immediate", "freeze", "terminate", "black-hole", "reset", "kill@primary"];
/// The configuration where none is named.
const USUAL_CONFIG: &str = "pgdetour.toml";
/// Faults of one drill: more are a mistake.
const MOST_FAULTS: usize = 100;

/// Whose servers break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ground {
    /// Those of the test kit.
    Own,
    /// The services of a Compose file.
    Compose(PathBuf),
    /// Whatever commands reach.
    Given,
}

/// What is to be drilled.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) ground: Ground,
    /// The configuration; none for servers of its own.
    pub(super) config: Option<PathBuf>,
    pub(super) faults: Vec<Asked>,
    pub(super) pace: Pace,
}

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) before: Duration,
    pub(super) outage: Duration,
    pub(super) after: Duration,
    pub(super) hook_timeout: Duration,
    /// How long a server may take to answer after its repair.
    pub(super) patience: Duration,
    pub(super) reads: u32,
    /// None: there are none.
    pub(super) writes: Option<u32>,
}

/// A fault as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) alias: Option<String>,
    pub(super) how: How,
    pub(super) outage: bool,
    pub(super) limits: Limits,
}

/// A fault of one server.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) name: String,
    /// The alias whose server it breaks.
    pub(super) alias: AliasName,
    pub(super) how: How,
    /// Whether that is an outage of the server.
    pub(super) outage: bool,
    pub(super) limits: Limits,
    /// Who is read through meanwhile.
    pub(super) read: AliasName,
    /// Who is written through meanwhile.
    pub(super) write: Option<AliasName>,
}

/// How it is made to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// By the test kit or Compose.
    Built(Kind),
    /// By shell commands.
    Commands { inject: String, repair: Option<String> },
}

/// What is too much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) gap: Option<Duration>,
    pub(super) failed: Option<usize>,
    pub(super) detection: Option<Duration>,
    pub(super) home: Option<Duration>,
}

impl Limits {
    /// These, and the others where there is none.
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            gap: self.gap.or(others.gap),
            failed: self.failed.or(others.failed),
            detection: self.detection.or(others.detection),
            home: self.home.or(others.home),
        }
    }
}

/// A command that was given for a fault: `FAULT[@ALIAS]=COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    of: String,
    command: String,
}

impl Command {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (of, command) = text.split_once('=').ok_or("write it FAULT=COMMAND or FAULT@ALIAS=COMMAND")?;
        let (of, command) = (of.trim(), command.trim());
        if of.is_empty() || command.is_empty() {
            return Err("both the fault and its command are needed: FAULT=COMMAND".to_owned());
        }
        Ok(Self { of: of.to_owned(), command: command.to_owned() })
    }
}

impl Plan {
    /// What the command line and its file ask for.
    pub(super) fn of(args: &Drill) -> Result<Self, String> {
        let file = args.file.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let compose = args.compose.clone().or(file.compose);
        let config = args.config.clone().or(file.config);
        let commands =
            !args.inject.is_empty() || file.faults.iter().any(|fault| matches!(fault.how, How::Commands { .. }));
        let ground = match compose {
            Some(compose) => Ground::Compose(compose),
            None if config.is_some() || commands => Ground::Given,
            None => Ground::Own,
        };
        let config = (ground != Ground::Own).then(|| config.unwrap_or_else(|| USUAL_CONFIG.into()));
        let mut faults = asked(args, file.faults, &ground)?;
        let limits = args.limits.limits().or(file.limits);
        faults.iter_mut().for_each(|fault| fault.limits = fault.limits.or(limits));
        if faults.is_empty() {
            return Err("no fault is given: say which with --inject, or in a file".to_owned());
        }
        if faults.len() > MOST_FAULTS {
            return Err(format!("{} faults are too many for one drill: at most {MOST_FAULTS}", faults.len()));
        }
        faults.iter().try_for_each(|fault| can_happen(fault, &ground))?;
        let pace = Pace {
            before: args.before,
            outage: args.outage,
            after: args.after,
            hook_timeout: args.hook_timeout,
            patience: args.patience,
            reads: args.rate,
            writes: (!args.reads_only).then_some(args.writes),
        };
        Ok(Self { ground, config, faults, pace })
    }

    /// The faults, each with the aliases that it concerns.
    pub(super) fn faults_of(&self, config: &Config, args: &Drill) -> Result<Vec<Fault>, String> {
        let named = |name: &str| {
            let alias = config.alias(name).ok_or_else(|| format!("there is no alias {}", safe(name)))?;
            Ok::<_, String>(alias.name.clone())
        };
        let (read, write) =
            (args.read.as_deref().map(named).transpose()?, args.write.as_deref().map(named).transpose()?);
        let resolve = |asked: &Asked| {
            let alias = match &asked.alias {
                Some(name) => named(name)?,
                None => only(config, Role::Replica).or_else(|_| only(config, Role::Primary))?,
            };
            let role = role(config, &alias).ok_or_else(|| format!("{alias} is a group: name one of its servers"))?;
            let read = match (&read, role) {
                (Some(read), _) => read.clone(),
                (None, Role::Replica) => alias.clone(),
                (None, Role::Primary) => first(config, Role::Replica).unwrap_or_else(|| alias.clone()),
            };
            let write = match (&write, self.pace.writes, role) {
                (_, None, _) => None,
                (Some(write), ..) => Some(write.clone()),
                (None, _, Role::Primary) => Some(alias.clone()),
                (None, _, Role::Replica) => Some(only(config, Role::Primary).map_err(|why| {
                    format!("{why}; name the one to write through with --write, or write nothing with --reads-only")
                })?),
            };
            let Asked { name, how, outage, limits, .. } = asked.clone();
            Ok(Fault { name, alias, how, outage, limits, read, write })
        };
        self.faults.iter().map(resolve).collect()
    }
}

impl Fault {
    /// `FAULT@ALIAS`.
    pub(super) fn label(&self) -> String {
        format!("{}@{}", safe(&self.name), self.alias)
    }

    /// How it is broken, and how repaired.
    pub(super) fn described(&self, ground: &Ground) -> String {
        match (&self.how, ground) {
            (How::Commands { inject, repair: Some(repair) }, _) => {
                format!("{}, then {}", safe(inject), safe(repair))
            }
            (How::Commands { inject, repair: None }, _) => {
                format!("{}, and no repair: it has to come back by itself", safe(inject))
            }
            (How::Built(kind), Ground::Compose(file)) => {
                let (breaks, repairs) = super::compose::words(*kind);
                format!("docker compose {breaks} {}, then {repairs} ({})", self.alias, safe(&file.to_string_lossy()))
            }
            (How::Built(kind), _) => kind.name().to_owned(),
        }
    }
}

/// The faults in their order, each with its commands.
fn asked(args: &Drill, mut faults: Vec<Asked>, ground: &Ground) -> Result<Vec<Asked>, String> {
    for Command { of, command } in &args.inject {
        let (name, alias) = split(of);
        if faults.iter().any(|fault| is(fault, &name, alias.as_deref())) {
            return Err(format!("fault {} is given twice", safe(of)));
        }
        let outage = Kind::of(&name).is_none_or(Kind::is_outage);
        let how = How::Commands { inject: command.clone(), repair: None };
        faults.push(Asked { name, alias, how, outage, limits: Limits::default() });
    }
    for Command { of, command } in &args.repair {
        let (name, alias) = split(of);
        let fault = faults.iter_mut().find(|fault| is(fault, &name, alias.as_deref()));
        match fault.map(|fault| &mut fault.how) {
            Some(How::Commands { repair, .. }) => *repair = Some(command.clone()),
            Some(How::Built(_)) | None => return Err(format!("--repair {0}: there is no --inject {0}", safe(of))),
        }
    }
    let built = |wanted: &str| {
        let (name, alias) = split(wanted);
        let kind = Kind::of(&name).ok_or_else(|| unknown(&name))?;
        Ok(Asked { name, alias, how: How::Built(kind), outage: kind.is_outage(), limits: Limits::default() })
    };
    if args.faults.is_empty() {
        return match ground {
            _ if !faults.is_empty() => Ok(faults),
            Ground::Own => OWN.into_iter().map(built).collect(),
            Ground::Compose(_) => Kind::BY_COMPOSE.into_iter().map(|kind| built(kind.name())).collect(),
            Ground::Given => Ok(faults),
        };
    }
    let chosen = |wanted: &String| {
        let (name, alias) = split(wanted);
        let known = faults.iter().find(|fault| is(fault, &name, alias.as_deref()));
        known.cloned().map_or_else(|| built(wanted), Ok)
    };
    args.faults.iter().map(chosen).collect()
}

fn is(fault: &Asked, name: &str, alias: Option<&str>) -> bool {
    fault.name == name && fault.alias.as_deref() == alias
}

pub(super) fn split(of: &str) -> (String, Option<String>) {
    match of.rsplit_once('@') {
        Some((name, alias)) => (name.to_owned(), Some(alias.to_owned())),
        None => (of.to_owned(), None),
    }
}

fn can_happen(fault: &Asked, ground: &Ground) -> Result<(), String> {
    let names = |kinds: &[Kind]| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    match (&fault.how, ground) {
        (How::Built(kind), Ground::Compose(_)) if !Kind::BY_COMPOSE.contains(kind) => Err(format!(
            "Compose has no command for {}: it can {}; give a command with --inject",
            kind.name(),
            names(&Kind::BY_COMPOSE)
        )),
        (How::Built(kind), Ground::Given) => {
            Err(format!("how is {0} done there? Give a command: --inject '{0}=...' --repair '{0}=...'", kind.name()))
        }
        (How::Commands { .. } | How::Built(_), _) => Ok(()),
    }
}

pub(super) fn unknown(name: &str) -> String {
    let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    format!("no fault is named {}: there are {}, and those given with --inject", safe(name), known.join(", "))
}

fn role(config: &Config, alias: &AliasName) -> Option<Role> {
    match &config.alias(alias.as_str())?.kind {
        AliasKind::Server(server) => Some(server.role),
        _ => None,
    }
}

fn of_role(config: &Config, wanted: Role) -> impl Iterator<Item = AliasName> + '_ {
    let names = config.aliases().iter().map(|alias| &alias.name);
    names.filter(move |name| role(config, name) == Some(wanted)).cloned()
}

fn first(config: &Config, wanted: Role) -> Option<AliasName> {
    of_role(config, wanted).next()
}

/// The only server of a role.
fn only(config: &Config, wanted: Role) -> Result<AliasName, String> {
    let word = if wanted == Role::Primary { "primary" } else { "replica" };
    let mut found = of_role(config, wanted);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(format!("no alias has the role {word}")),
        (Some(one), Some(other)) => Err(format!("{one} and {other} are both of the role {word}: write FAULT@ALIAS")),
    }
}

/// A path of a file, which is relative to that file.
pub(super) fn beside(file: &Path, path: PathBuf) -> PathBuf {
    file.parent().map_or_else(|| path.clone(), |folder| folder.join(&path))
}
