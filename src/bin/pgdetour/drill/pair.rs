//! The servers of a drill, whosoever they are: how to reach, break and repair them.

use std::time::Duration;

use pgdetour::{Config, Router, config::AliasName};

use super::{
    Trouble,
    compose::Compose,
    hook::Hook,
    kind::Kind,
    kit::Kit,
    plan::{Fault, Ground, How, Plan},
};

/// How often a server is asked whether it answers again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The servers.
#[derive(Debug)]
pub(super) struct Pair {
    hold: Hold,
    /// Where they are; for servers of the drill's own, without proxies.
    pub(super) config: Config,
    hook_timeout: Duration,
}

/// What holds them up.
#[derive(Debug)]
enum Hold {
    Own(Box<Kit>),
    Compose(Compose),
    Given,
}

impl Pair {
    /// Starts servers of its own.
    pub(super) async fn own(plan: &Plan) -> Result<Self, Trouble> {
        let kit = Kit::start().await?;
        let config = kit.config(false).map_err(|error| Trouble::Usage(error.to_string()))?;
        Ok(Self { hold: Hold::Own(Box::new(kit)), config, hook_timeout: plan.pace.hook_timeout })
    }

    /// Those of a configuration, which run already.
    pub(super) async fn given(plan: &Plan, config: Config, faults: &[Fault]) -> Result<Self, Trouble> {
        let hold = match &plan.ground {
            Ground::Compose(file) => Hold::Compose(Compose::find(file, faults).await?),
            Ground::Given | Ground::Own => Hold::Given,
        };
        Ok(Self { hold, config, hook_timeout: plan.pace.hook_timeout })
    }

    /// Whether they end with the drill, whatever became of them.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.hold, Hold::Own(_))
    }

    /// Whether the moment of a fault is not known better than the command's start and end.
    pub(super) fn is_vague(&self, fault: &Fault) -> bool {
        !self.is_own() || matches!(fault.how, How::Commands { .. })
    }

    /// The configuration of the router that lives through this fault.
    pub(super) fn config_for(&self, fault: &Fault) -> Result<Config, Trouble> {
        match (&self.hold, &fault.how) {
            (Hold::Own(kit), How::Built(kind)) if kind.is_network() => {
                kit.config(true).map_err(|error| Trouble::Usage(error.to_string()))
            }
            _ => Ok(self.config.clone()),
        }
    }

    /// Breaks a server.
    pub(super) async fn inject(&self, fault: &Fault) -> Result<(), String> {
        match &fault.how {
            How::Built(kind) => self.break_(*kind, &fault.alias).await,
            How::Commands { inject, .. } => self.hook(inject, fault).await,
        }
    }

    async fn break_(&self, kind: Kind, alias: &AliasName) -> Result<(), String> {
        match &self.hold {
            Hold::Own(kit) => kit.inject(kind, alias.as_str()).await.map_err(|error| error.to_string()),
            Hold::Compose(compose) => compose.inject(kind, alias.as_str()).await,
            Hold::Given => Err(format!("nothing is known of how to {} it", kind.name())),
        }
    }

    /// Repairs it, as far as commands do; it need not answer yet.
    pub(super) async fn repair(&self, fault: &Fault) -> Result<(), String> {
        match (&fault.how, &self.hold) {
            (How::Commands { repair: None, .. }, _) => Ok(()),
            (How::Commands { repair: Some(repair), .. }, _) => self.hook(repair, fault).await,
            (How::Built(kind), Hold::Own(kit)) => {
                kit.repair(*kind, fault.alias.as_str()).await.map_err(|error| error.to_string())
            }
            (How::Built(kind), Hold::Compose(compose)) => compose.repair(*kind, fault.alias.as_str()).await,
            (How::Built(_), Hold::Given) => Ok(()),
        }
    }

    async fn hook(&self, command: &str, fault: &Fault) -> Result<(), String> {
        Hook::shell(command, &fault.name, fault.alias.as_str(), self.hook_timeout).run().await.map(drop)
    }

    /// Waits until a server answers, at most so long.
    pub(super) async fn answers(&self, alias: &AliasName, patience: Duration) -> Result<(), String> {
        let asking = async {
            while !answers(self.config.alone(alias), alias).await {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let patience_told = humantime::format_duration(patience);
        tokio::time::timeout(patience, asking)
            .await
            .map_err(|_| format!("{alias} did not answer within {patience_told}"))
    }
}

/// Whether the first ping of a router of its own is answered.
async fn answers(config: Config, alias: &AliasName) -> bool {
    let Ok(router) = Router::<pgdetour::router::DefaultBackend>::start(config).await else { return false };
    let table = router.table();
    let answered = table.get(alias).is_some_and(|entry| entry.known.facts.is_some() && entry.known.outage.is_none());
    router.shutdown().await;
    answered
}
