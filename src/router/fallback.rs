//! A read that has something to say where it fails by no fault of the caller's: the last good value, or a default.

use std::{error::Error as StdError, future::Future, time::Duration};

use super::{Alias, Error, Lease};
use crate::{
    clock,
    policy::{Fault, excuses},
    pool::Backend,
};

/// What a read is answered with where it fails by no fault of the caller's: see [`Alias::read_or`].
#[derive(Debug, Clone)]
pub struct Fallback<T> {
    last_good: Option<LastGoodOf>,
    default: Option<T>,
}

#[derive(Debug, Clone)]
struct LastGoodOf {
    key: String,
    stale_for: Duration,
}

impl<T> Fallback<T> {
    /// The last value that was read under this key, unless it is older than `stale_for`. Keys are apart for each alias and each
    /// type of value; what decides about the answer, such as a user's id, belongs into the key.
    pub fn last_good(key: impl Into<String>, stale_for: Duration) -> Self {
        Self { last_good: Some(LastGoodOf { key: key.into(), stale_for }), default: None }
    }

    /// This value. Nothing is kept.
    pub fn to(value: T) -> Self {
        Self { last_good: None, default: Some(value) }
    }

    /// And where there is no last good value, this one.
    #[must_use]
    pub fn or(self, value: T) -> Self {
        Self { default: Some(value), ..self }
    }
}

/// An answer, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served<T> {
    /// A server's, now.
    Live(T),
    /// The last good one.
    Stale {
        /// It.
        value: T,
        /// How long ago it was asked for.
        age: Duration,
    },
    /// The caller's default.
    Default(T),
}

impl<T> Served<T> {
    /// The answer, wherever it comes from.
    pub fn into_inner(self) -> T {
        match self {
            Self::Live(value) | Self::Stale { value, .. } | Self::Default(value) => value,
        }
    }

    /// Whether a server gave it now.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }
}

impl<B: Backend> Alias<B> {
    /// Does what [`read`](Self::read) does, and where that fails by no fault of the caller's answers with less: the last good value,
    /// unless it is too old, and else the default.
    ///
    /// ```no_run
    /// # #[cfg(feature = "deadpool")]
    /// # async fn example(replica: pgdetour::Alias) -> Result<(), pgdetour::Error> {
    /// use std::time::Duration;
    /// use pgdetour::{Fallback, Served};
    ///
    /// let no_older = Duration::from_secs(300);
    /// let orders = replica
    ///     .read_or(Fallback::last_good("orders", no_older).or(0), |client| async move {
    ///         client.query_one("SELECT count(*) FROM orders", &[]).await?.try_get::<_, i64>(0)
    ///     })
    ///     .await?;
    /// match orders {
    ///     Served::Live(count) => println!("{count} orders"),
    ///     Served::Stale { value, age } => println!("{value} orders, {} s ago", age.as_secs()),
    ///     Served::Default(_) => println!("some orders"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Each value that is read is cloned and kept, at most `cache_size` (default 1000) of all aliases together; those used
    /// longest ago go first. A reload keeps them, unless it changes that size.
    ///
    /// # Errors
    ///
    /// What `read` fails with, where that is the application's own error ([`excuses`] tells them apart) or the end of the
    /// router; and where there is neither a last good value nor a default.
    ///
    /// # Cancel safety
    ///
    /// As that of `read`; nothing is kept then.
    pub async fn read_or<T, E, F>(
        &self,
        fallback: Fallback<T>,
        work: impl FnMut(Lease<B>) -> F + Send,
    ) -> Result<Served<T>, Error>
    where
        F: Future<Output = Result<T, E>> + Send,
        E: Into<Box<dyn StdError + Send + Sync>>,
        T: Clone + Send + Sync + 'static,
    {
        let Fallback { last_good, default } = fallback;
        let asked = clock::now();
        let error = match self.read(work).await {
            Ok(value) => {
                if let Some(LastGoodOf { key, stale_for }) = last_good {
                    self.router.last_good.load().keep((self.name(), &key), value.clone(), (asked, stale_for));
                }
                return Ok(Served::Live(value));
            }
            Err(error) if is_excused(&error) => error,
            Err(error) => return Err(error),
        };
        let kept = last_good.and_then(|LastGoodOf { key, stale_for }| {
            let found = self.router.last_good.load().find::<T>((self.name(), &key), clock::now());
            found.filter(|(_, age)| *age <= stale_for)
        });
        match (kept, default) {
            (Some((value, age)), _) => Ok(Served::Stale { value, age }),
            (None, Some(value)) => Ok(Served::Default(value)),
            (None, None) => Err(error),
        }
    }
}

/// Whether it failed by no fault of the caller's.
fn is_excused(error: &Error) -> bool {
    let unserved = (error.is_unavailable() && !error.is_misconfigured()) || error.is_overloaded() || error.is_late();
    let fault = || StdError::source(error).map(Fault::of);
    !error.is_closed() && (unserved || fault().is_some_and(excuses))
}
