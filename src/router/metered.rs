//! What whoever shows numbers of a router needs of it, without keeping it running.

use std::sync::{Arc, Weak};

use super::{Inner, Router, meter::Meter};
use crate::pool::{Backend, Server};

/// A router for as long as somebody else keeps it.
pub(crate) struct WeakRouter<B: Backend>(Weak<Inner<B>>);

impl<B: Backend> Router<B> {
    pub(crate) fn downgrade(&self) -> WeakRouter<B> {
        WeakRouter(Arc::downgrade(&self.inner))
    }

    /// What is counted of its requests.
    pub(crate) fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    /// Its servers, in the order of declaration. None after a shutdown.
    pub(crate) fn servers(&self) -> Vec<Arc<Server>> {
        let topology = self.inner.topology.load();
        if topology.is_closed() { Vec::new() } else { topology.servers.clone() }
    }
}

impl<B: Backend> WeakRouter<B> {
    /// The router, if it is still there.
    pub(crate) fn upgrade(&self) -> Option<Router<B>> {
        self.0.upgrade().map(|inner| Router { inner })
    }
}
