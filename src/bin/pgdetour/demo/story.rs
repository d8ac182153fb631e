//! What happened in a demo, and what it comes to. Pure: moments are given, as time since the first read.

use std::time::Duration;

use pgdetour::EventKind;

/// One read of the caller: one `get()` and one query, and one retry if either failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    /// When it ended.
    pub(crate) ended: Duration,
    /// Who answered; else why nobody did.
    pub(crate) served: Result<Place, String>,
    /// Why the first attempt failed, if it did.
    pub(crate) retried: Option<String>,
}

/// Who answered a read, by the server's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Replica,
    Primary,
}

/// A moment of the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The fault happens.
    Fault,
    /// The router says that an outage has begun.
    Outage,
    /// The repair begins.
    Repair,
    /// The server answers again.
    Answers,
    /// The router says that the outage is over.
    Recovery,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) reads: Vec<Read>,
    pub(crate) moments: Vec<(Moment, Duration)>,
    /// Sessions that the fault cut, where that is what it does.
    pub(crate) cut: Option<usize>,
}

impl Story {
    /// Takes in what the router told at this moment.
    pub(crate) fn hear(&mut self, kind: &EventKind, at: Duration) {
        match kind {
            EventKind::OutageOpened { .. } => self.moments.push((Moment::Outage, at)),
            EventKind::OutageClosed { .. } => self.moments.push((Moment::Recovery, at)),
            _ => {}
        }
    }

    /// When this happened first.
    pub(crate) fn when(&self, moment: Moment) -> Option<Duration> {
        self.moments.iter().find(|(it, _)| *it == moment).map(|(_, at)| *at)
    }

    /// Reads that nobody answered.
    pub(crate) fn failed(&self) -> usize {
        self.reads.iter().filter(|read| read.served.is_err()).count()
    }

    /// Reads that the primary answered.
    pub(crate) fn detoured(&self) -> usize {
        self.reads.iter().filter(|read| read.served == Ok(Place::Primary)).count()
    }

    /// Reads that took two attempts or failed in both.
    pub(crate) fn retried(&self) -> usize {
        self.reads.iter().filter(|read| read.retried.is_some()).count()
    }

    /// The longest time without a read that was answered.
    pub(crate) fn longest_gap(&self) -> Duration {
        let mut answered: Vec<Duration> = self.answered().map(|(at, _)| at).collect();
        answered.sort();
        answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// From the fault to the outage's opening.
    pub(crate) fn time_to_detect(&self) -> Option<Duration> {
        Some(self.when(Moment::Outage)?.saturating_sub(self.when(Moment::Fault)?))
    }

    /// From when the server answered again until all reads were back on it.
    pub(crate) fn time_to_return(&self) -> Option<Duration> {
        let answers = self.when(Moment::Answers)?;
        let last_away = self.answered().filter(|(_, place)| *place == Place::Primary).map(|(at, _)| at).max()?;
        let back = self.answered().filter(|(at, place)| *place == Place::Replica && *at > last_away);
        back.map(|(at, _)| at.saturating_sub(answers)).min()
    }

    /// Whether the last read that was answered was answered by the replica.
    pub(crate) fn came_back(&self) -> bool {
        self.answered().max_by_key(|(at, _)| *at).is_some_and(|(_, place)| place == Place::Replica)
    }

    /// Why the demo did not show what it should; empty if it did.
    pub(crate) fn complaints(&self, outage_expected: bool) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.failed() > 0 {
            complaints.push(format!("{} of {} reads failed", self.failed(), self.reads.len()));
        }
        if !self.came_back() {
            complaints.push("the reads did not come back to the replica".to_owned());
        }
        if !outage_expected && self.when(Moment::Outage).is_some() {
            complaints.push("an outage was opened, though the server was up all along".to_owned());
        }
        complaints
    }

    fn answered(&self) -> impl Iterator<Item = (Duration, Place)> {
        self.reads.iter().filter_map(|read| Some((read.ended, *read.served.as_ref().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn read(at: u32, served: Result<Place, String>) -> Read {
        Read { ended: at * MS, served, retried: None }
    }

    fn story() -> Story {
        let places = [
            (0, Place::Replica),
            (5, Place::Replica),
            (30, Place::Primary),
            (35, Place::Primary),
            (60, Place::Replica),
        ];
        let moments = vec![
            (Moment::Fault, 6 * MS),
            (Moment::Outage, 9 * MS),
            (Moment::Repair, 36 * MS),
            (Moment::Answers, 40 * MS),
        ];
        Story { reads: places.map(|(at, place)| read(at, Ok(place))).into(), moments, cut: None }
    }

    #[test]
    fn a_story_that_ends_well_is_summed_up_and_has_no_complaints() {
        let story = story();
        assert_eq!((story.failed(), story.detoured(), story.longest_gap()), (0, 2, 25 * MS));
        assert_eq!((story.time_to_detect(), story.time_to_return()), (Some(3 * MS), Some(20 * MS)));
        assert_eq!(story.complaints(true), [""; 0]);
    }

    #[test]
    fn a_failed_read_is_a_complaint() {
        let mut story = story();
        story.reads.push(read(40, Err("refused".to_owned())));
        assert_eq!(story.complaints(true), ["1 of 6 reads failed"]);
    }

    #[test]
    fn reads_that_stay_away_are_a_complaint() {
        let mut story = story();
        story.reads.pop();
        assert_eq!(story.complaints(true), ["the reads did not come back to the replica"]);
        assert_eq!(story.time_to_return(), None);
    }

    #[test]
    fn an_outage_of_a_server_that_was_up_is_a_complaint() {
        assert_eq!(story().complaints(false), ["an outage was opened, though the server was up all along"]);
    }
}
