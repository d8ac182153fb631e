//! What a service does about its outages: `failover` and `recover`, in their order, one at a time, and none twice.

use std::sync::{Arc, atomic::Ordering};

use tokio::{sync::mpsc, time::timeout};

use super::service::Watched;
use crate::{
    health::Cause,
    observe::{EventKind, Hook, Observer},
    service::ServiceError,
};

/// Runs what is ordered until nobody can order more, and all of it: whoever was told of an outage's end is recovered, also when the
/// router is shut down meanwhile.
pub(super) async fn run(watched: Arc<Watched>, observer: Observer, mut orders: mpsc::UnboundedReceiver<Hook>) {
    while let Some(hook) = orders.recv().await {
        watched.failed_over.store(hook == Hook::Failover, Ordering::Release);
        if let Err(cause) = call(&watched, hook).await {
            observer.emit(watched.event(EventKind::HookFailed { hook, cause }));
        }
    }
}

/// In a task of its own, so that a panic ends there.
async fn call(watched: &Watched, hook: Hook) -> Result<(), Cause> {
    let service = Arc::clone(&watched.service);
    let within = service.hook_timeout();
    let mut task = tokio::spawn(async move {
        match hook {
            Hook::Failover => service.failover().await,
            Hook::Recover => service.recover().await,
        }
    });
    match timeout(within, &mut task).await {
        Ok(Ok(done)) => done.map_err(|error: ServiceError| error.cause().clone()),
        Ok(Err(_)) => Err(Cause::new("it has panicked")),
        Err(_) => {
            task.abort();
            Err(Cause::new(format!("no end within {}", humantime::format_duration(within))))
        }
    }
}
