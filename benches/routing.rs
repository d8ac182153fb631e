//! What does the routing decision cost by itself, in health and on a detour? It has to vanish in the microsecond of a pool.

mod support;

use std::{fs, hint::black_box, path::Path, sync::Arc, time::Duration};

use criterion::Criterion;
use pgdetour::{
    config::{AliasName, Balance},
    health::{Belief, Generation, Need, State},
    plan::{Candidate, Route},
    pool::Server,
};
use tokio::sync::Notify;

use support::{Fallible, Judged, Row, Spread, Unit};

/// A place on a route, as the router has them, but without a pool.
struct Place(Arc<Server>);

impl Place {
    fn new(name: &str) -> Fallible<Self> {
        Ok(Self(Arc::new(Server::new(AliasName::new(name)?, String::new(), Arc::new(Notify::new())))))
    }
}

impl Candidate for Place {
    fn belief(&self) -> Belief {
        self.0.cell.belief()
    }

    fn load(&self) -> u32 {
        self.0.cell.leases().out
    }
}

/// What criterion keeps of one benchmark: how often each sample ran it, and how long all of that took.
fn spread(home: &Path, name: &str) -> Fallible<Spread> {
    let sample = fs::read_to_string(home.join(name).join("new").join("sample.json"))?;
    let sample: serde_json::Value = serde_json::from_str(&sample)?;
    let numbers = |key: &str| sample[key].as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64);
    Ok(numbers("times").zip(numbers("iters")).map(|(nanoseconds, count)| nanoseconds / count / 1e9).collect())
}

fn main() -> Fallible<()> {
    if !support::is_wanted() {
        return Ok(());
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("criterion");
    let mut criterion = Criterion::default()
        .output_directory(&home)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let mut rows = Vec::new();
    for (name, state) in [("healthy", State::Up), ("on a detour", State::Down)] {
        let (primary, replica) = (Place::new("primary")?, Place::new("replica")?);
        replica.0.publish(Belief::new(state, Generation::default().next()));
        let route = Route::new(Need::Reads, vec![replica], vec![primary], Balance::default());
        let detour = route.choose().map(|choice| choice.detour);
        assert_eq!(detour, Some(state == State::Down), "{name}");
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&route).choose().map(|choice| std::ptr::from_ref(choice.candidate)));
        });
        let measure = format!("the routing decision alone, {name}");
        let spread = spread(&home, name)?;
        rows.push(Row { measure, unit: Unit::Seconds, judged: Judged::MedianAtMost, must: 50e-9, aim: 10e-9, spread });
    }
    support::print(&rows, "no PostgreSQL");
    Ok(())
}
