//! How is an outage written in `pgdetour.outages`, and read back?

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    observe::{OutageRecord, Stamp, ms},
    sql::literal,
};

/// One outage as one process has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SeenOutage {
    /// Host and number of the process.
    pub process: String,
    /// When it last told of it.
    pub seen: Stamp,
    /// The outage.
    #[serde(flatten)]
    pub outage: OutageRecord,
}

/// Every row with an outage that lasted after `$1`, the oldest first; times are text, in milliseconds after 1970 began.
/// [`SeenOutage::from_columns`] reads them.
pub const SELECT: &str = "\
SELECT id, process, name, address, \
    trunc(extract(epoch FROM opened_at) * 1000)::bigint::text, detected_ms::text, \
    trunc(extract(epoch FROM closed_at) * 1000)::bigint::text, lasted_ms::text, \
    trunc(extract(epoch FROM seen_at) * 1000)::bigint::text, cause, last_cause, detour, \
    detoured::text, refused::text, failed::text \
FROM pgdetour.outages \
WHERE closed_at IS NULL OR closed_at > pg_catalog.to_timestamp($1::text::numeric / 1000) \
ORDER BY opened_at, id";

/// The statement that stores these. Told twice it changes nothing more: the identifier is the router's own.
pub(crate) fn upsert(outages: &[OutageRecord], seen: Stamp) -> String {
    let rows: Vec<String> = outages.iter().map(|outage| row(outage, seen)).collect();
    format!(
        "INSERT INTO pgdetour.outages AS o (id, process, name, address, opened_at, detected_ms, closed_at, lasted_ms, seen_at, \
            cause, last_cause, detour, detoured, refused, failed) \
         VALUES {} \
         ON CONFLICT (id) DO UPDATE SET closed_at = excluded.closed_at, lasted_ms = excluded.lasted_ms, \
            seen_at = excluded.seen_at, last_cause = excluded.last_cause, detoured = excluded.detoured, refused = excluded.refused, \
            failed = excluded.failed \
         WHERE o.closed_at IS NULL",
        rows.join(", ")
    )
}

/// The statement that forgets what ended so long before `now`, and what was not heard of for as long.
pub(crate) fn delete_before(now: Stamp, keep: Duration) -> String {
    format!("DELETE FROM pgdetour.outages WHERE coalesce(closed_at, seen_at) < {}", time(now.before(keep)))
}

fn row(outage: &OutageRecord, seen: Stamp) -> String {
    let OutageRecord { detected_ms, lasted_ms, detoured, refused, failed, .. } = outage;
    // The identifier is the moment, the name, and then the process.
    let process = outage.id.splitn(3, '/').nth(2).unwrap_or_default();
    let optional = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), text_of);
    format!(
        "({}, {}, {}, {}, {}, {detected_ms}, {}, {lasted_ms}, {}, {}, {}, {}, {detoured}, {refused}, {failed})",
        text_of(&outage.id),
        text_of(process),
        text_of(&outage.name),
        text_of(&outage.address),
        time(outage.opened),
        outage.closed.map_or_else(|| "NULL::timestamptz".to_owned(), time),
        time(seen),
        text_of(&outage.cause),
        text_of(&outage.last_cause),
        optional(outage.detour.as_deref()),
    )
}

/// PostgreSQL's text has no NUL; and a cause may be as long as a server likes.
fn text_of(text: &str) -> String {
    literal(&text.chars().filter(|c| *c != '\0').take(2000).collect::<String>())
}

fn time(stamp: Stamp) -> String {
    format!("pg_catalog.to_timestamp({}::numeric / 1000)", stamp.unix_ms())
}

impl SeenOutage {
    /// What a row of [`SELECT`] says. None: it is not one.
    #[must_use]
    pub fn from_columns(columns: &[Option<String>]) -> Option<Self> {
        let [id, process, name, address, opened, detected, closed, lasted, seen, rest @ ..] = columns else {
            return None;
        };
        let [cause, last_cause, detour, detoured, refused, failed] = rest else { return None };
        let number = |text: &Option<String>| text.as_ref()?.parse::<u64>().ok();
        let stamp = |text: &Option<String>| number(text).map(Stamp::from_unix_ms);
        let outage = OutageRecord {
            id: id.clone()?,
            name: name.clone()?,
            address: address.clone()?,
            opened: stamp(opened)?,
            detected_ms: number(detected)?,
            closed: stamp(closed),
            lasted_ms: number(lasted)?,
            cause: cause.clone()?,
            last_cause: last_cause.clone()?,
            detour: detour.clone(),
            detoured: number(detoured)?,
            refused: number(refused)?,
            failed: number(failed)?,
        };
        Some(Self { process: process.clone()?, seen: stamp(seen)?, outage })
    }

    /// From when to when, as far as is known `at` this moment. An outage that is open in the table and was not told of for `silence` is
    /// of a process that has ended: nothing is known of it from then on.
    pub(super) fn span(&self, at: Stamp, silence: Duration) -> (Stamp, Stamp) {
        let open = if self.is_open(at, silence) { at } else { self.seen };
        (self.outage.opened, self.outage.closed.unwrap_or(open).max(self.outage.opened))
    }

    /// Whether it is going on, as far as is known.
    pub(super) fn is_open(&self, at: Stamp, silence: Duration) -> bool {
        self.outage.closed.is_none() && ms(at.since(self.seen)) <= ms(silence)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An outage of `replica`, from when to when in milliseconds.
    pub(in super::super) fn outage(id: &str, from: u64, to: Option<u64>) -> OutageRecord {
        OutageRecord {
            id: id.to_owned(),
            name: "replica".to_owned(),
            address: "db2:5432/app".to_owned(),
            opened: Stamp::from_unix_ms(from),
            detected_ms: 3,
            closed: to.map(Stamp::from_unix_ms),
            lasted_ms: to.map_or(0, |to| to - from),
            cause: "refused".to_owned(),
            last_cause: "refused".to_owned(),
            detour: Some("primary".to_owned()),
            detoured: 10,
            refused: 1,
            failed: 2,
        }
    }

    #[test]
    fn whatever_a_cause_holds_stays_a_text() {
        let mut hostile = outage("x", 1, None);
        hostile.cause = "$q0$); DROP TABLE pgdetour.outages; --\0'".to_owned();
        let sql = upsert(&[hostile], Stamp::from_unix_ms(2));
        assert!(sql.contains("$q1$$q0$); DROP TABLE pgdetour.outages; --'$q1$"), "{sql}");
    }
}
