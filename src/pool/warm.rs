//! How connections are opened before anybody asks for one.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use super::{AcquireError, Backend};

/// Opens connections of `pool` until `idle` of them wait to be lent, as far as there is room.
///
/// A pool makes a connection only when it has none to lend, so all are asked for at once: the first round of polls takes the
/// idle ones out, and by its end every other request has begun to connect. Then the idle ones go back, and each new one as
/// soon as it is there, so a connect that hangs keeps nothing from the requests. Where a connect is not tied to the request it
/// was begun for (bb8), that request may be served by one of those that went back, while its connect goes on.
pub(super) async fn warm<B: Backend>(pool: &B, idle: usize) -> Result<(), AcquireError> {
    let status = pool.status();
    let room = status.max_size.saturating_sub(status.size) + status.idle;
    let wanted = idle.min(room);
    if wanted <= status.idle {
        return Ok(());
    }
    let mut pending: Vec<_> = (0..wanted).map(|_| Box::pin(pool.acquire())).collect();
    poll_fn(|cx| {
        let mut lent = Vec::with_capacity(wanted);
        let mut failed = None;
        pending.retain_mut(|acquire| match acquire.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(connection)) => {
                lent.push(connection);
                false
            }
            Poll::Ready(Err(error)) => {
                failed = Some(error.into());
                false
            }
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if pending.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}
