//! Server-sent events: one status after the other from an answer that does not end.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use pgdetour::observe::{SpanRecord, status::Status};
use serde::Deserialize;
use tokio::time::timeout;

use super::http::{LONGEST, cause};
use crate::{exit::Exit, trouble::Trouble};

/// A router tells something every 3 s: after so long the way there is broken.
const SILENCE: Duration = Duration::from_secs(12);

/// What a router sends while somebody follows.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
    from: String,
    /// What has come of the next event.
    rest: Vec<u8>,
}

/// One event of it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Told {
    #[serde(flatten)]
    pub(crate) status: Status,
    /// Which states each server was in.
    #[serde(default)]
    pub(crate) spans: Vec<SpanRecord>,
    /// The number of the last event in `/timeline`; a router of an older version does not tell.
    #[serde(default)]
    pub(crate) last_event: Option<u64>,
}

impl Stream {
    pub(super) fn new(answer: Response<Incoming>, from: String) -> Self {
        Self { body: answer.into_body(), from, rest: Vec::new() }
    }

    /// The next status; several that have come at once are told as the last of them.
    pub(crate) async fn next(&mut self) -> Result<Told, Trouble> {
        loop {
            if let Some(data) = last_data(&mut self.rest) {
                return serde_json::from_str(&data).map_err(|error| self.trouble(&format!("is no pgdetour: {error}")));
            }
            let frame = timeout(SILENCE, self.body.frame()).await.map_err(|_| self.trouble("has fallen silent"))?;
            let frame = frame.ok_or_else(|| self.trouble("has ended"))?;
            let frame = frame.map_err(|error| self.trouble(&format!("broke off: {}", cause(&error))))?;
            self.rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if self.rest.len() > LONGEST {
                return Err(self.trouble("is no pgdetour: it sends an event without an end"));
            }
        }
    }

    fn trouble(&self, why: &str) -> Trouble {
        Trouble::new(Exit::Environment, format_args!("{} {why}", self.from))
    }
}

/// Takes what is whole, and gives the data of the last event in it.
fn last_data(rest: &mut Vec<u8>) -> Option<String> {
    let end = rest.windows(2).rposition(|two| two == b"\n\n")?;
    let whole: Vec<u8> = rest.drain(..end + 2).collect();
    let text = String::from_utf8_lossy(&whole);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("data:"));
    last.map(|data| data.trim_start().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_pieces_and_several_at_once() {
        let mut rest = b"event: status\nda".to_vec();
        assert_eq!(last_data(&mut rest), None);
        rest.extend_from_slice(b"ta: {\"a\":1}\n\nevent: status\ndata: {\"a\":2}\n\nevent: st");
        assert_eq!(last_data(&mut rest).as_deref(), Some("{\"a\":2}"));
        assert_eq!(rest, b"event: st");
        assert_eq!(last_data(&mut rest), None);
    }
}
