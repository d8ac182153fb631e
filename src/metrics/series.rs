//! Where do they go? Series of the recorder, each registered once and kept, and those that ended.

use std::{collections::HashMap, sync::Arc};

use ::metrics::{Counter, Gauge, Histogram, Label, Recorder, with_local_recorder};

use super::names::Metric;

/// Whose series they are.
pub(super) enum Target {
    /// The recorder that the application has installed.
    Global,
    /// This one.
    Own(Arc<dyn Recorder + Send + Sync>),
}

impl Target {
    /// Whatever is registered in there is registered there.
    pub(super) fn within<T>(&self, register: impl FnOnce() -> T) -> T {
        match self {
            Self::Global => register(),
            Self::Own(recorder) => with_local_recorder(&**recorder, register),
        }
    }
}

type Key = (&'static str, Vec<String>);

/// The series of one router.
pub(super) struct Series {
    target: Target,
    gauges: HashMap<Key, (Gauge, u64)>,
    counters: HashMap<Key, Counter>,
    /// Which look this is: what the last one has not set has ended.
    look: u64,
}

impl Series {
    pub(super) fn new(target: Target) -> Self {
        Self { target, gauges: HashMap::new(), counters: HashMap::new(), look: 0 }
    }

    pub(super) fn set(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        let (look, target) = (self.look, &self.target);
        let made = || (target.within(|| ::metrics::gauge!(metric.name, pairs(metric, labels))), look);
        let (gauge, set) = self.gauges.entry(key(metric, labels)).or_insert_with(made);
        gauge.set(value);
        *set = look;
    }

    pub(super) fn is(&mut self, metric: &Metric, labels: &[&str], so: bool) {
        self.set(metric, labels, f64::from(u8::from(so)));
    }

    pub(super) fn counter(&mut self, metric: &Metric, labels: &[&str]) -> &Counter {
        let target = &self.target;
        let made = || target.within(|| ::metrics::counter!(metric.name, pairs(metric, labels)));
        self.counters.entry(key(metric, labels)).or_insert_with(made)
    }

    pub(super) fn histogram(&self, metric: &Metric, labels: &[&str]) -> Histogram {
        self.target.within(|| ::metrics::histogram!(metric.name, pairs(metric, labels)))
    }

    /// Begins a look.
    pub(super) fn begin(&mut self) {
        self.look += 1;
    }

    /// Ends a look: a gauge that it has not set says nothing any more. The facade has no way to take one away.
    pub(super) fn finish(&mut self) {
        let look = self.look;
        self.gauges.retain(|_, (gauge, set)| {
            if *set != look {
                gauge.set(f64::NAN);
            }
            *set == look
        });
    }
}

fn key(metric: &Metric, labels: &[&str]) -> Key {
    (metric.name, labels.iter().map(ToString::to_string).collect())
}

fn pairs(metric: &Metric, values: &[&str]) -> Vec<Label> {
    let pairs = metric.labels.iter().zip(values);
    pairs.map(|(name, value)| Label::new(*name, (*value).to_owned())).collect()
}
