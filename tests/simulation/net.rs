//! The network of the simulation: streams in memory that can be late, sliced, held back, cut and reset.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::time::{self, lock};

/// What the network does to a stream. Index 0 is the way to the server, 1 the way back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// How long bytes take, one way.
    pub(crate) late: Duration,
    /// Whether bytes are held back, until they are not: what a black hole does to TCP, which sends again when it has healed.
    pub(crate) held: [bool; 2],
    /// How many bytes pass at once.
    pub(crate) slice: Option<usize>,
}

/// One connection between a client and a server.
pub(crate) struct Link(Mutex<State>);

struct State {
    weather: Weather,
    ways: [Way; 2],
}

#[derive(Default)]
struct Way {
    queue: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes of the first chunk that were read already.
    read: usize,
    /// How the way ends, after what is in the queue, and from when.
    end: Option<(Instant, End)>,
    /// Bytes that still pass before the link is cut.
    left: Option<usize>,
    reader: Option<Waker>,
    /// Nobody reads any more.
    deaf: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// One end of a link: what a client or a server holds.
pub(crate) struct Plug {
    link: Arc<Link>,
    /// The way it writes to; it reads the other.
    out: usize,
    alarm: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Link {
    /// A link, with the end of the client and that of the server.
    pub(crate) fn new(weather: Weather) -> (Arc<Self>, Plug, Plug) {
        let link = Arc::new(Self(Mutex::new(State { weather, ways: Default::default() })));
        let plug = |out| Plug { link: Arc::clone(&link), out, alarm: None };
        let (client, server) = (plug(0), plug(1));
        (link, client, server)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        let mut state = lock(&self.0);
        state.weather = weather;
        state.ways.iter_mut().for_each(Way::wake);
    }

    /// Lets `bytes` more pass to the client, and then resets the link.
    pub(crate) fn cut_after(&self, bytes: usize) {
        lock(&self.0).ways[1].left = Some(bytes);
    }

    /// Does not cut it, if it has not happened yet.
    pub(crate) fn spare(&self) {
        lock(&self.0).ways[1].left = None;
    }

    /// Resets the link: what is on its way is lost.
    pub(crate) fn reset(&self) {
        lock(&self.0).reset();
    }

    /// Whether the client has let go of it.
    pub(crate) fn is_left(&self) -> bool {
        lock(&self.0).ways[1].deaf
    }
}

impl State {
    fn reset(&mut self) {
        for way in &mut self.ways {
            way.queue.clear();
            way.end = Some((time::now(), End::Reset));
            way.wake();
        }
    }

    /// Puts bytes on a way.
    fn send(&mut self, out: usize, bytes: &[u8]) -> io::Result<usize> {
        let (late, slice) = (self.weather.late, self.weather.slice);
        let way = &mut self.ways[out];
        if way.end.is_some() || (way.deaf && !self.weather.held[out]) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(slice.unwrap_or(usize::MAX)).min(way.left.unwrap_or(usize::MAX));
        if count > 0 {
            let due = way.queue.back().map_or(time::now() + late, |(last, _)| (time::now() + late).max(*last));
            way.queue.push_back((due, bytes[..count].to_vec()));
            way.wake();
        }
        if let Some(left) = &mut way.left {
            *left -= count;
            if *left == 0 {
                let due = time::now() + late;
                self.ways.iter_mut().for_each(|way| way.finish(due, End::Reset));
            }
        }
        Ok(bytes.len().min(count.max(1)))
    }

    /// Takes bytes off a way, or says when there may be some.
    fn receive(&mut self, from: usize, buf: &mut ReadBuf<'_>) -> Result<io::Result<()>, Option<Instant>> {
        if self.weather.held[from] {
            return Err(None);
        }
        let slice = self.weather.slice.unwrap_or(usize::MAX);
        let (way, now) = (&mut self.ways[from], time::now());
        if let Some((due, chunk)) = way.queue.front() {
            if *due > now {
                return Err(Some(*due));
            }
            let count = (chunk.len() - way.read).min(buf.remaining()).min(slice);
            buf.put_slice(&chunk[way.read..way.read + count]);
            way.read += count;
            if way.read == chunk.len() {
                way.queue.pop_front();
                way.read = 0;
            }
            return Ok(Ok(()));
        }
        match way.end {
            Some((due, _)) if due > now => Err(Some(due)),
            Some((_, End::Closed)) => Ok(Ok(())),
            Some((_, End::Reset)) => Ok(Err(io::ErrorKind::ConnectionReset.into())),
            None => Err(None),
        }
    }
}

impl Way {
    fn wake(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn finish(&mut self, due: Instant, end: End) {
        self.end.get_or_insert((due, end));
        self.wake();
    }
}

impl AsyncRead for Plug {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let found = {
                let mut state = lock(&self.link.0);
                let found = state.receive(1 - self.out, buf);
                state.ways[1 - self.out].reader = found.is_err().then(|| cx.waker().clone());
                found
            };
            match found {
                Ok(read) => return Poll::Ready(read),
                Err(None) => return Poll::Pending,
                Err(Some(due)) => {
                    let mut alarm: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(time::until(due));
                    if alarm.as_mut().poll(cx).is_pending() {
                        self.alarm = Some(alarm);
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Plug {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(lock(&self.link.0).send(self.out, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.link.0);
        let due = time::now() + state.weather.late;
        state.ways[self.out].finish(due, End::Closed);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        let mut state = lock(&self.link.0);
        let due = time::now() + state.weather.late;
        state.ways[self.out].finish(due, End::Closed);
        state.ways[1 - self.out].deaf = true;
    }
}

/// A stream that could not be opened.
pub(crate) struct Unopened(pub(crate) i32);

impl Unopened {
    fn fail<T>(&self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(io::Error::from_raw_os_error(self.0)))
    }
}

impl AsyncRead for Unopened {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }
}

impl AsyncWrite for Unopened {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.fail()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }
}
