//! A drill as a file: which faults, by which commands, and what is too much.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    kind::Kind,
    plan::{Asked, How, Limits, beside, unknown},
};
use crate::safe::safe;

/// What a file asks for.
#[derive(Debug, Default)]
pub(super) struct Asks {
    pub(super) config: Option<PathBuf>,
    pub(super) compose: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) faults: Vec<Asked>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    config: Option<PathBuf>,
    compose: Option<PathBuf>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    fault: Vec<RawFault>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    max_gap: Option<Time>,
    max_failed: Option<usize>,
    max_detection: Option<Time>,
    max_return: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    name: String,
    alias: Option<String>,
    inject: Option<String>,
    repair: Option<String>,
    outage: Option<bool>,
    max_gap: Option<Time>,
    max_failed: Option<usize>,
    max_detection: Option<Time>,
    max_return: Option<Time>,
}

/// `"50ms"`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Time(Duration);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        humantime::parse_duration(&text).map(Self).map_err(|error| format!("{error}; write it like \"3s\" or \"50ms\""))
    }
}

/// Reads a file. Its paths are relative to it.
pub(super) fn read(path: &Path) -> Result<Asks, String> {
    let name = safe(&path.to_string_lossy());
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let mut asks = parse(&text).map_err(|why| format!("{name}: {why}"))?;
    asks.config = asks.config.map(|config| beside(path, config));
    asks.compose = asks.compose.map(|compose| beside(path, compose));
    Ok(asks)
}

fn parse(text: &str) -> Result<Asks, String> {
    let Raw { config, compose, limits, fault } = toml_edit::de::from_str(text).map_err(|error| error.to_string())?;
    let limits = limits_of((limits.max_gap, limits.max_detection, limits.max_return), limits.max_failed);
    let mut faults: Vec<Asked> = Vec::new();
    for raw in fault {
        let asked = raw.asked()?;
        if faults.iter().any(|known| known.name == asked.name && known.alias == asked.alias) {
            return Err(format!("fault {} is given twice", safe(&asked.name)));
        }
        faults.push(asked);
    }
    Ok(Asks { config, compose, limits, faults })
}

fn limits_of((gap, detection, home): (Option<Time>, Option<Time>, Option<Time>), failed: Option<usize>) -> Limits {
    let of = |time: Option<Time>| time.map(|Time(time)| time);
    Limits { gap: of(gap), failed, detection: of(detection), home: of(home) }
}

impl RawFault {
    fn asked(self) -> Result<Asked, String> {
        let kind = Kind::of(&self.name);
        let how = match (self.inject, self.repair, kind) {
            (Some(inject), repair, _) => How::Commands { inject, repair },
            (None, None, Some(kind)) => How::Built(kind),
            (None, Some(_), _) => return Err(format!("fault {} has a repair and no inject", safe(&self.name))),
            (None, None, None) => return Err(unknown(&self.name)),
        };
        let outage = self.outage.unwrap_or_else(|| kind.is_none_or(Kind::is_outage));
        let limits = limits_of((self.max_gap, self.max_detection, self.max_return), self.max_failed);
        Ok(Asked { name: self.name, alias: self.alias, how, outage, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_faults_with_their_commands_and_limits() {
        let asks = parse(
            r#"
            config = "staging.toml"
            [limits]
            max_failed = 0
            [[fault]]
            name = "pull the plug"
            alias = "replica"
            inject = "ipmi off"
            repair = "ipmi on"
            max_return = "3m"
            [[fault]]
            name = "terminate"
            "#,
        )
        .unwrap();
        assert_eq!(asks.config, Some("staging.toml".into()));
        assert_eq!(asks.limits, Limits { failed: Some(0), ..Limits::default() });
        let [plug, terminate] = asks.faults.as_slice() else { panic!("{asks:?}") };
        assert_eq!((plug.limits.home, plug.outage), (Some(Duration::from_secs(180)), true));
        assert_eq!(plug.how, How::Commands { inject: "ipmi off".into(), repair: Some("ipmi on".into()) });
        assert_eq!((&terminate.how, terminate.outage), (&How::Built(Kind::Terminate), false));
    }

    #[test]
    fn a_mistake_in_a_file_is_told_with_its_place() {
        let said = |text| parse(text).unwrap_err();
        assert!(
            said("[limits]\nmax_gap = \"5 bananas\"").contains("line 2"),
            "{}",
            said("[limits]\nmax_gap = \"5 bananas\"")
        );
        assert!(said("[limits]\nmax_gab = \"5ms\"").contains("max_gab"));
        assert!(said("[[fault]]\nname = \"quake\"").contains("no fault is named quake"));
        assert!(said("[[fault]]\nname = \"kill\"\nrepair = \"x\"").contains("no inject"));
        assert!(said("[[fault]]\nname = \"kill\"\n[[fault]]\nname = \"kill\"").contains("twice"));
    }
}
