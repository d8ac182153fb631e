//! The table that a drill writes to: what is in it at the end says what became of the writes.

use std::collections::BTreeMap;

use pgdetour::{Alias, Config, Error, Lease, Router, config::AliasName, pending_migrations};

use super::Trouble;

/// A table of this drill alone, in the schema that the router keeps its own in.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    /// Of no other drill: parts of names, so nothing but letters and digits.
    id: String,
}

impl Ledger {
    /// Makes the table on the primary that is written to.
    pub(super) async fn make(config: &Config, alias: &AliasName) -> Result<Self, Trouble> {
        let ledger = Self { id: std::iter::repeat_with(fastrand::lowercase).take(10).collect() };
        let table = ledger.table();
        let made = with(config, alias, async |lease| {
            if !pending_migrations(lease).await.map_err(told)?.is_empty() {
                return Err("the table of `write_once` is missing or old: run `pgdetour migrate` with this \
                            configuration first, or write nothing with --reads-only"
                    .to_owned());
            }
            // Not unlogged: a crash would empty it.
            let sql = format!("CREATE TABLE {table} (fault integer NOT NULL, write bigint NOT NULL)");
            lease.batch_execute(&sql).await.map_err(told)
        });
        made.await.map_err(|why| Trouble::Environment(format!("no table for the writes of the drill: {why}")))?;
        Ok(ledger)
    }

    /// Its name.
    pub(super) fn table(&self) -> String {
        format!("pgdetour.drill_{}", self.id)
    }

    /// The key of a write.
    fn key(&self, fault: usize, write: u32) -> String {
        format!("pgdetour drill {} {fault} {write}", self.id)
    }

    /// Writes one row, once. Gives who took it.
    pub(super) async fn write(&self, alias: &Alias, fault: usize, write: u32) -> Result<String, Error> {
        let sql = format!("INSERT INTO {} (fault, write) VALUES ({fault}, {write})", self.table());
        let sql = sql.as_str();
        let key = self.key(fault, write);
        alias
            .write_once(&key, |transaction| async move {
                transaction.execute(sql, &[]).await?;
                Ok::<_, tokio_postgres::Error>(transaction.server().to_string())
            })
            .await
    }

    /// How many rows there are of each write of a fault.
    pub(super) async fn rows(&self, alias: &Alias, fault: usize) -> Result<BTreeMap<u32, u64>, String> {
        let lease = alias.get().await.map_err(told)?;
        let sql = format!("SELECT write, count(*) FROM {} WHERE fault = {fault} GROUP BY write", self.table());
        let rows = lease.query(&sql, &[]).await.map_err(told)?;
        let row = |row: &tokio_postgres::Row| {
            Some((row.get::<_, i64>(0).try_into().ok()?, row.get::<_, i64>(1).try_into().ok()?))
        };
        Ok(rows.iter().filter_map(row).collect())
    }

    /// Drops the table, and the keys of its writes.
    pub(super) async fn drop(&self, config: &Config, alias: &AliasName) -> Result<(), String> {
        let (table, keys) = (self.table(), format!("pgdetour drill {} ", self.id));
        with(config, alias, async |lease| {
            let sql = format!(
                "DELETE FROM pgdetour.writes WHERE pg_catalog.starts_with(key, '{keys}'); DROP TABLE IF EXISTS {table}"
            );
            lease.batch_execute(&sql).await.map_err(told)
        })
        .await
        .map_err(|why| format!("{table} could not be dropped, drop it yourself: {why}"))
    }
}

/// Does something over a router of its own.
async fn with<T>(
    config: &Config,
    alias: &AliasName,
    work: impl AsyncFnOnce(&Lease) -> Result<T, String>,
) -> Result<T, String> {
    let router: Router = Router::start(config.alone(alias)).await.map_err(told)?;
    let lease = router.alias(alias.as_str()).map_err(told)?.get().await.map_err(told);
    let done = match lease {
        Ok(lease) => work(&lease).await,
        Err(why) => Err(why),
    };
    router.shutdown().await;
    done
}

fn told(error: impl std::error::Error) -> String {
    pgdetour::health::Cause::of(&error).to_string()
}
