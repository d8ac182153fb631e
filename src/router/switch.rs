//! What an application does otherwise while something is out: two values, of which the state of the servers says the one.

use std::{fmt, sync::Arc};

use super::{Alias, Error, Router};
use crate::{plan::Mode, pool::Backend};

/// Two values, and a condition of the servers that says which of them holds: one for normal times, and one for an outage.
///
/// ```no_run
/// # #[cfg(feature = "deadpool")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use pgdetour::{Mode, Router};
///
/// let router: Router = Router::from_file("pgdetour.toml").await?;
/// let checkout = router.switch_on_mode(Mode::ReadOnly, "open", "closed for an hour");
/// let page_size = router.switch_on_alias("replica", 200, 20)?; // smaller pages while its reads go to the primary
///
/// println!("{} {}", checkout.get(), page_size.get());
/// # Ok(())
/// # }
/// ```
///
/// The condition is looked at when the value is asked for, without a lock, a clock or a task: it never lags behind where requests go.
/// It survives a reload. Like an [`Alias`], it keeps the router running.
#[derive(Clone)]
pub struct Switch<T> {
    normal: T,
    other: T,
    flipped: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl<T> Switch<T> {
    fn new(normal: T, other: T, flipped: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { normal, other, flipped: Arc::new(flipped) }
    }

    /// The value that holds now.
    #[must_use]
    pub fn get(&self) -> &T {
        if self.is_flipped() { &self.other } else { &self.normal }
    }

    /// Whether it is the other one, and not that for normal times.
    #[must_use]
    pub fn is_flipped(&self) -> bool {
        (self.flipped)()
    }
}

impl<B: Backend> Router<B> {
    /// A switch that gives `other` while the router's [mode](Self::mode) is `from` or worse, and `normal` otherwise. After a
    /// shutdown it gives `other`.
    #[must_use]
    pub fn switch_on_mode<T>(&self, from: Mode, normal: T, other: T) -> Switch<T> {
        let router = self.clone();
        Switch::new(normal, other, move || router.mode() >= from)
    }

    /// A switch that gives `normal` while requests for this alias go to a server of its own, and `other` while they take a detour
    /// or nobody serves them. After a shutdown, or when a reload leaves the alias out, it gives `other`.
    ///
    /// # Errors
    ///
    /// When there is no such alias.
    pub fn switch_on_alias<T>(&self, alias: &str, normal: T, other: T) -> Result<Switch<T>, Error> {
        let alias = self.alias(alias)?;
        Ok(Switch::new(normal, other, move || !alias.is_at_home()))
    }
}

impl<B: Backend> Router<B> {
    /// A switch that gives `other` while an outage of this service is open, and `normal` otherwise. After a shutdown, or when it is
    /// watched no more, it gives `other`.
    ///
    /// # Errors
    ///
    /// When there is no such service.
    pub fn switch_on_service<T>(&self, service: &str, normal: T, other: T) -> Result<Switch<T>, Error> {
        let (router, service) = (self.clone(), self.service(service)?);
        Ok(Switch::new(normal, other, move || router.inner.is_out(service.watched())))
    }
}

impl<B: Backend> Alias<B> {
    /// Whether a request would go to one of the alias's own servers now.
    pub(crate) fn is_at_home(&self) -> bool {
        match self.line.is_retired() {
            true => self.router.line(self.line.name.as_str()).is_ok_and(|line| line.route.is_at_home()),
            false => self.line.route.is_at_home(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Switch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Switch").field(self.get()).finish()
    }
}
