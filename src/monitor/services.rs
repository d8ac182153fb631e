//! All services under watch. They have a thread of their own, which begins with the first of them: what an application does in a ping
//! may hold it up, and that must not make the pings of its databases late.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{mpsc, oneshot},
};

use super::{
    Alarm,
    dues::Dues,
    hooks,
    service::{Message, Watched},
    state::ServiceState,
    watch::{Watch, health},
};
use crate::{
    clock,
    config::{AliasName, Config, ConfigError, Monitoring, OutageErrors, Pings, ServiceConfig},
    observe::Observer,
    pool::TlsError,
    service::{AnyService, ready_made},
};

/// All services of one router; they outlive its reloads.
pub(crate) struct Services {
    observer: Observer,
    /// Whether they are tasks of the runtime this was made in, for a simulation in virtual time.
    here: bool,
    /// What the configuration says of errors.
    errors: Arc<ArcSwap<OutageErrors>>,
    dues: Dues,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    home: Option<Home>,
    list: Vec<Arc<Watched>>,
    closed: bool,
}

/// Where the loops run.
struct Home {
    runtime: Handle,
    /// Each task has one; when the last is gone, so is the thread.
    alive: mpsc::Sender<()>,
    ended: Option<oneshot::Receiver<()>>,
}

/// What a configuration makes of the services, before anything has changed.
pub(crate) struct Draft {
    /// Those that are declared, with what they are made of where they are new.
    declared: Vec<(ServiceConfig, Option<Arc<dyn AnyService>>)>,
    /// Those that were registered in code.
    registered: Vec<(AliasName, Pings)>,
    monitoring: Monitoring,
    errors: OutageErrors,
}

/// Why a configuration and the services do not go together.
#[derive(Debug)]
pub(crate) enum Misfit {
    Config(ConfigError),
    Tls(AliasName, TlsError),
}

impl Services {
    pub(crate) fn new(observer: Observer, here: bool) -> Self {
        Self { observer, here, errors: Arc::default(), dues: Dues::default(), inner: Mutex::default() }
    }

    /// What `config` makes of them. Nothing has changed yet.
    pub(crate) fn draft(&self, config: &Config) -> Result<Draft, Misfit> {
        let list = self.lock().list.clone();
        let registered = list.iter().filter(|watched| watched.declared.is_none());
        let registered = registered.map(|watched| {
            let pings = watched.service.pings(config.pings());
            config.admit(watched.name.as_str(), &pings).map(|name| (name, pings)).map_err(Misfit::Config)
        });
        let registered = registered.collect::<Result<_, _>>()?;
        let declared = config.services().iter().map(|declared| {
            let stays = list.iter().any(|watched| watched.is_at(declared));
            let made = (!stays).then(|| ready_made(declared)).transpose();
            let made = made.map_err(|error| Misfit::Tls(declared.name.clone(), error))?;
            Ok((declared.clone(), made))
        });
        let (monitoring, errors) = (config.monitoring(), config.outage_errors().clone());
        Ok(Draft { declared: declared.collect::<Result<_, _>>()?, registered, monitoring, errors })
    }

    /// Goes over to what was drafted: what stays goes on as it is, with its outage and all; what is gone is watched no more.
    pub(crate) fn go_over(&self, draft: Draft) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.closed {
            return Ok(());
        }
        // The only thing that can fail comes first.
        if !draft.declared.is_empty() {
            inner.home(self.here)?;
        }
        self.errors.store(Arc::new(draft.errors));
        let stays = |watched: &Arc<Watched>| {
            watched.declared.is_none() || draft.declared.iter().any(|(declared, _)| watched.is_at(declared))
        };
        let (list, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.list).into_iter().partition(stays);
        inner.list = list;
        gone.iter().for_each(|watched| watched.stop());
        let declared = draft.declared.iter().map(|(declared, _)| (&declared.name, &declared.pings));
        for (name, pings) in declared.chain(draft.registered.iter().map(|(name, pings)| (name, pings))) {
            let watched = inner.list.iter().find(|watched| watched.name == *name);
            watched.iter().for_each(|watched| watched.tell(Message::Pace(pings.clone(), draft.monitoring)));
        }
        for (declared, made) in draft.declared {
            let Some(made) = made else { continue };
            let (name, pings) = (declared.name.clone(), declared.pings.clone());
            let (watched, inbox) = Watched::new(name, made, Some(declared));
            inner.watch(watched, inbox, self, (&pings, draft.monitoring));
        }
        Ok(())
    }

    /// Begins to watch one more. None: there are no more to be watched, or there is one of this name.
    pub(crate) fn register(
        &self,
        name: AliasName,
        service: Arc<dyn AnyService>,
        pings: &Pings,
        monitoring: Monitoring,
    ) -> io::Result<Option<Arc<Watched>>> {
        let mut inner = self.lock();
        if inner.closed || inner.list.iter().any(|watched| watched.name == name) {
            return Ok(None);
        }
        inner.home(self.here)?;
        let (watched, inbox) = Watched::new(name, service, None);
        inner.watch(Arc::clone(&watched), inbox, self, (pings, monitoring));
        Ok(Some(watched))
    }

    /// Has one that was registered watched no more.
    pub(crate) fn deregister(&self, name: &str) -> bool {
        let mut inner = self.lock();
        let found = inner.list.iter().position(|watched| watched.name.as_str() == name && watched.declared.is_none());
        found.map(|index| inner.list.remove(index).stop()).is_some()
    }

    /// What the configuration says of errors.
    pub(crate) fn errors(&self) -> &Arc<ArcSwap<OutageErrors>> {
        &self.errors
    }

    /// The service of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Watched>> {
        self.lock().list.iter().find(|watched| watched.name.as_str() == name).cloned()
    }

    /// What is known of each, in the order in which they came.
    pub(crate) fn states(&self) -> Vec<ServiceState> {
        self.all().iter().map(|watched| watched.state()).collect()
    }

    /// Waits until each has been pinged once.
    pub(crate) async fn settled(&self) {
        for watched in self.all() {
            watched.settled().await;
        }
    }

    /// What is due of them.
    pub(crate) fn dues(&self) -> &Dues {
        &self.dues
    }

    /// Has those pinged whose ping is due, and waits for that.
    pub(crate) async fn run(&self) {
        self.run_of(|_| true).await;
    }

    /// The same for those alone that are out.
    pub(crate) async fn recover(&self) {
        self.run_of(Watched::is_out).await;
    }

    async fn run_of(&self, wanted: impl Fn(&Watched) -> bool) {
        let now = clock::now();
        let due = self.all().into_iter().filter(|watched| watched.is_due(now) && wanted(watched));
        let due: Vec<_> = due.collect();
        let asked: Vec<_> = due
            .iter()
            .map(|watched| {
                let (done, answer) = oneshot::channel();
                watched.tell(Message::Run(done));
                answer
            })
            .collect();
        for answer in asked {
            // An error says that it is watched no more.
            let _ = answer.await;
        }
    }

    /// Ends all, without waiting for that. What was told of an outage is followed by its hook first.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.list.iter().for_each(|watched| watched.stop());
        // The thread ends with the last task.
        if let Some(home) = &mut inner.home {
            home.alive = mpsc::channel(1).0;
        }
    }

    /// Waits, after [`Self::close`], until the thread has ended. Not for ever: a ping that blocks it may never end.
    pub(crate) async fn closed(&self) {
        let (ended, longest) = {
            let mut inner = self.lock();
            let longest = inner.list.iter().map(|watched| watched.service.hook_timeout()).max().unwrap_or_default();
            (inner.home.as_mut().and_then(|home| home.ended.take()), longest)
        };
        if let Some(ended) = ended {
            let _ = tokio::time::timeout(2 * longest + Duration::from_secs(1), ended).await;
        }
    }

    fn all(&self) -> Vec<Arc<Watched>> {
        self.lock().list.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

impl Inner {
    /// Where loops run, from now on at the latest.
    fn home(&mut self, here: bool) -> io::Result<()> {
        if self.home.is_none() {
            self.home = Some(if here { Home::here() } else { Home::start()? });
        }
        Ok(())
    }

    fn watch(
        &mut self,
        watched: Arc<Watched>,
        inbox: mpsc::UnboundedReceiver<Message>,
        services: &Services,
        (pings, monitoring): (&Pings, Monitoring),
    ) {
        let Some(home) = &self.home else { return };
        let (hooks, orders) = mpsc::unbounded_channel();
        let watch = Watch {
            watched: Arc::clone(&watched),
            inbox,
            hooks,
            observer: services.observer.clone(),
            due: services.dues.add(),
            monitoring,
            pings: pings.clone(),
            health: health(pings, clock::now()),
            inconclusive: None,
            ping_took: None,
            settling: Vec::new(),
            runs: Vec::new(),
        };
        home.spawn(async move {
            let _alarm = Alarm;
            watch.run().await;
        });
        home.spawn(hooks::run(Arc::clone(&watched), services.observer.clone(), orders));
        self.list.push(watched);
    }
}

impl Home {
    /// The thread first: a runtime panics when it is dropped inside another, as it would be here without a thread.
    fn start() -> io::Result<Self> {
        let (alive, mut last) = mpsc::channel::<()>(1);
        let (done, ended) = oneshot::channel();
        let (hand_over, runtime) = std::sync::mpsc::channel::<Runtime>();
        thread::Builder::new().name("pgdetour-services".to_owned()).spawn(move || {
            // An error says that there is none: then nobody waits for this thread.
            let Ok(runtime) = runtime.recv() else { return };
            // Nothing is ever sent: it ends with the last sender.
            runtime.block_on(last.recv());
            // A name lookup that hangs must not hold up the end of the program.
            runtime.shutdown_timeout(Duration::from_millis(100));
            let _ = done.send(());
        })?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        // The thread waits for it, so it is received.
        let _ = hand_over.send(runtime);
        Ok(Self { runtime: handle, alive, ended: Some(ended) })
    }

    /// In the runtime this is called in.
    fn here() -> Self {
        Self { runtime: Handle::current(), alive: mpsc::channel(1).0, ended: None }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.clone();
        self.runtime.spawn(async move {
            task.await;
            drop(alive);
        });
    }
}

impl Watched {
    /// Whether this is it: the same name, kind, place and login. How it is pinged may be another.
    fn is_at(&self, declared: &ServiceConfig) -> bool {
        self.declared.as_ref().is_some_and(|own| own.name == declared.name && own.kind == declared.kind)
    }
}
