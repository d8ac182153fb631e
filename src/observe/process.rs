//! Whose router is it? The process and the machine, as people tell them apart.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use super::{stamp::Stamp, status::Process};

/// Routers that were started in this process.
static STARTED: AtomicU32 = AtomicU32::new(0);

impl Process {
    /// This process, with another router in it.
    pub(super) fn begin(started: Stamp) -> (Self, String) {
        let process = Self {
            pid: std::process::id(),
            host: host().map(str::to_owned),
            started,
            pgdetour: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let host = process.host.as_deref().unwrap_or("localhost");
        let suffix = match STARTED.fetch_add(1, Ordering::Relaxed) {
            0 => format!("{host}/{}", process.pid),
            // Several routers of one process may see the same server go at the same moment.
            others => format!("{host}/{}.{others}", process.pid),
        };
        (process, suffix)
    }
}

/// The name of the machine or container: what Linux says, or else the environment.
fn host() -> Option<&'static str> {
    static HOST: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let named = kernel.into_iter().chain(std::env::var("HOSTNAME")).chain(std::env::var("COMPUTERNAME"));
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        named.map(|name| name.chars().filter(plain).collect::<String>()).find(|name| !name.is_empty())
    };
    HOST.get_or_init(read).as_deref()
}
