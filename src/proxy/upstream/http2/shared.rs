//! Connections that requests share: each thread keeps its own, as few as do for each upstream.
//!
//! A connection takes as many requests as its upstream allows and its windows are made for. When all
//! are full another one is opened, up to a bound; nothing waits behind a full one, where nobody
//! would look at its token again.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, SendStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::{UpstreamError, over};
use crate::clock::monotonic;
use crate::dial::DialError;
use crate::stream::Stream;

/// The most requests on one connection, whatever its upstream would allow.
const STREAMS: u32 = 100;
/// The most connections that one thread keeps to one upstream.
const MAX_CONNECTIONS: usize = 64;
/// What one response may bring before it is read: 1 Gbit/s over a round trip of 2 ms.
const STREAM_WINDOW: u32 = 256 << 10;
/// What all responses on a connection may bring before they are read: so much that those that nobody
/// reads do not stop the others.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// What one request may have handed over before it is written, and one frame beyond that.
const SEND_BUFFER: usize = 64 << 10;
/// So many streams that were reset are remembered, since more may come for them.
const RESET_STREAMS: usize = 16 * STREAMS as usize;
/// What h2 remembers one by.
const RESET_STREAM: usize = 640;
/// For so long (RFC 9113 §5.1): a round trip, and what an upstream under load takes to look.
const RESET_MEMORY: Duration = Duration::from_secs(10);
/// The largest head of a response.
const MAX_HEAD: u32 = 64 << 10;
/// What is read ahead of the caller, or kept to be written, at most, of one request. Small frames take
/// more room than they bring: half as much again.
pub(in crate::proxy) const MAX_BUFFERED: usize =
    STREAM_WINDOW as usize * 3 / 2 + 2 * SEND_BUFFER + MAX_HEAD as usize;
/// What the connections of one thread to one upstream hold beside their requests: the heads that are read
/// and written last, and what is remembered of streams.
pub(in crate::proxy) const MAX_POOLED: usize =
    MAX_CONNECTIONS * (4 * MAX_HEAD as usize + RESET_STREAMS * RESET_STREAM);
/// A connection with requests on it that is silent for so long is asked whether it lives, and is
/// given up if it does not answer for as long again. Silence is noticed after one to two of these.
const PING_EVERY: Duration = Duration::from_secs(20);
/// So often one silence is asked about at [`PING_EVERY`]: servers of gRPC end a connection that asks a
/// third time within [`PING_SELDOM`].
const PINGS: u32 = 2;
/// How far apart the later questions are.
const PING_SELDOM: Duration = Duration::from_secs(310);
/// Who opens a connection takes a place on another one only if it takes longer than this. The connection
/// is wanted, and where places become free all the time it would never come about.
const PATIENCE: Duration = Duration::from_millis(250);
/// A connection without requests is closed after this.
const MAX_IDLE_TIME: Duration = Duration::from_secs(55);

/// A connection that takes requests.
struct Shared {
    sender: SendRequest<Bytes>,
    load: Arc<Load>,
    used_at: Instant,
    good_until: Instant,
}

/// What a connection and the requests on it know of each other.
#[derive(Default)]
struct Load {
    /// Requests.
    open: AtomicUsize,
    /// Something came for one of them.
    heard: AtomicBool,
    /// It has refused a request.
    retired: AtomicBool,
    /// Those who may be waiting for a place on it.
    waiting: Arc<Waiting>,
}

/// One upstream's.
#[derive(Default)]
struct Slot {
    connections: Vec<Shared>,
    waiting: Arc<Waiting>,
}

thread_local! {
    /// By slot.
    static POOL: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

fn with_slot<T>(slot: usize, act: impl FnOnce(&mut Slot) -> T) -> T {
    POOL.with_borrow_mut(|pool| {
        if pool.len() <= slot {
            pool.resize_with(slot + 1, Slot::default);
        }
        act(&mut pool[slot])
    })
}

impl Shared {
    fn is_good(&mut self, now: Instant) -> bool {
        let ready = self.sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        let open = matches!(ready, Poll::Ready(Ok(())));
        open && now < self.good_until && !self.load.retired.load(Relaxed)
    }

    /// RFC 9113 §5.1.2: the upstream may allow fewer at any time.
    fn has_room(&self) -> bool {
        let most = self.sender.current_max_send_streams().min(STREAMS as usize);
        self.load.open.load(Relaxed) < most
    }

    fn place(&self) -> Place {
        self.load.open.fetch_add(1, Relaxed);
        Place { sender: self.sender.clone(), load: Arc::clone(&self.load) }
    }
}

/// One request's place on a connection, from before it is sent until its end.
pub(in super::super) struct Place {
    sender: SendRequest<Bytes>,
    load: Arc<Load>,
}

impl Place {
    pub(super) fn send(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.sender.send_request(request, ends)
    }

    /// Something came.
    pub(super) fn heard(&self) {
        self.load.heard.store(true, Relaxed);
    }

    /// Nobody else is to go there.
    pub(super) fn retire(&self) {
        self.load.retired.store(true, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.open.fetch_sub(1, Relaxed);
        self.load.waiting.freed.notify_one();
    }
}

/// A place on an open connection of `slot`.
pub(in super::super) fn take(slot: usize, now: Instant) -> Option<Place> {
    with_slot(slot, |slot| {
        slot.connections.retain_mut(|shared| shared.is_good(now));
        let shared = slot.connections.iter_mut().find(|shared| shared.has_room())?;
        shared.used_at = now;
        Some(shared.place())
    })
}

/// True if `slot` may have no more connections.
pub(in super::super) fn is_full(slot: usize) -> bool {
    with_slot(slot, |slot| slot.connections.len() >= MAX_CONNECTIONS)
}

/// Those who need a connection of `slot` and find none with room.
pub(in super::super) fn waiting(slot: usize) -> Arc<Waiting> {
    with_slot(slot, |slot| Arc::clone(&slot.waiting))
}

/// One of them opens a connection, the others wait for what comes of it.
#[derive(Default)]
pub(in super::super) struct Waiting {
    /// While one does: why it could not, in the end.
    opening: Mutex<Option<watch::Receiver<Failure>>>,
    /// A request on one of the connections is over: one of them is to look there.
    freed: Notify,
}

type Failure = Option<Arc<UpstreamError>>;

impl Waiting {
    /// What is `present` once nobody opens a connection any more, or else what comes of `opening`;
    /// who has waited for another one's in vain is told the same.
    pub(in super::super) async fn take_turns<T>(
        &self,
        deadline: Instant,
        mut present: impl FnMut() -> Option<Result<T, UpstreamError>>,
        opening: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let turn = loop {
            // What becomes free from now on is heard of.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(present) = present() {
                return present;
            }
            let mut others = match self.turn() {
                Ok(turn) => break turn,
                Err(others) => others,
            };
            let over = tokio::select! {
                over = timeout_at(deadline, others.changed()) => over,
                () = freed => continue,
            };
            // It is over without a word when there is a connection, or when who opens it gives up.
            let failed = match over {
                Err(_) => Some(DialError::Timeout.into()),
                Ok(Ok(())) => others.borrow().clone().map(UpstreamError::Shared),
                Ok(Err(_)) => None,
            };
            if let Some(error) = failed {
                // A place may have become free meanwhile.
                return present().unwrap_or(Err(error));
            }
        };
        let opened = tokio::select! {
            opened = opening => opened.map_err(Arc::new),
            present = self.impatient(&mut present) => return present,
        };
        if let Err(error) = &opened {
            turn.failure.send_replace(Some(Arc::clone(error)));
            if let Some(present) = present() {
                return present;
            }
        }
        opened.map_err(UpstreamError::Shared)
    }

    /// What is `present` at last, after [`PATIENCE`].
    async fn impatient<T>(
        &self,
        present: &mut impl FnMut() -> Option<Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        tokio::time::sleep(PATIENCE).await;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(present) = present() {
                return present;
            }
            freed.await;
        }
    }

    /// The turn to open a connection, or whose it is.
    fn turn(&self) -> Result<Turn<'_>, watch::Receiver<Failure>> {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(others) = &*opening {
            return Err(others.clone());
        }
        let (failure, others) = watch::channel(None);
        *opening = Some(others);
        Ok(Turn { waiting: self, failure })
    }
}

/// Over when it is dropped.
struct Turn<'w> {
    waiting: &'w Waiting,
    failure: watch::Sender<Failure>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.waiting.opening.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Opens a connection on `stream` before `deadline`, for `slot` to share until `good_until`.
#[allow(clippy::disallowed_methods)] // a connection that requests share is nobody's to drive
pub(in super::super) async fn open(
    stream: Stream,
    slot: usize,
    now: Instant,
    good_until: Instant,
    deadline: Instant,
) -> Result<Place, UpstreamError> {
    let greeted = timeout_at(deadline, greet(stream)).await;
    let (sender, connection) = greeted.map_err(|_| DialError::Timeout)??;
    let load = Arc::new(Load { waiting: waiting(slot), ..Load::default() });
    // Its error is every request's on it.
    tokio::spawn(drive(connection, Arc::clone(&load)));
    let shared = Shared { sender, load, used_at: now, good_until };
    let place = shared.place();
    with_slot(slot, |slot| {
        if slot.connections.len() < MAX_CONNECTIONS {
            slot.connections.push(shared);
        }
    });
    Ok(place)
}

/// Says our settings and waits for the upstream's, or more requests could be sent than it allows.
async fn greet<I>(io: I) -> Result<(SendRequest<Bytes>, Connection<I, Bytes>), UpstreamError>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let greeting = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false)
        // Callers may leave whenever they like: what still comes for them, and what is malformed of one
        // answer, is no fault of the connection and of the others on it.
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(None)
        // Until its settings have come.
        .initial_max_send_streams(0)
        .handshake(io);
    let (sender, mut connection) = greeting.await.map_err(UpstreamError::Http2)?;
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(over())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(UpstreamError::Http2(error))),
        Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok((sender, connection))
}

/// Writes and reads until the connection has ended, or is dead.
async fn drive<I>(mut connection: Connection<I, Bytes>, load: Arc<Load>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let Some(mut pings) = connection.ping_pong() else { return };
    let dead = async {
        let (mut asked, mut last) = (0, monotonic());
        loop {
            tokio::time::sleep(PING_EVERY).await;
            if load.heard.swap(false, Relaxed) {
                asked = 0;
                continue;
            }
            let soon = asked >= PINGS && monotonic().saturating_duration_since(last) < PING_SELDOM;
            if soon || load.open.load(Relaxed) == 0 {
                continue;
            }
            (asked, last) = (asked + 1, monotonic());
            let answered = timeout(PING_EVERY, pings.ping(Ping::opaque())).await;
            if !matches!(answered, Ok(Ok(_))) {
                return;
            }
        }
    };
    tokio::select! {
        _ = connection => {}
        () = dead => {}
    }
}

/// Lets go of connections that are closed, old or unused; requests on them go on.
pub(in super::super) fn sweep(now: Instant) {
    POOL.with_borrow_mut(|pool| {
        for slot in pool {
            slot.connections.retain_mut(|shared| {
                if shared.load.open.load(Relaxed) > 0 {
                    shared.used_at = now;
                }
                let idle = now.saturating_duration_since(shared.used_at);
                shared.is_good(now) && idle < MAX_IDLE_TIME
            });
        }
    });
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a paused clock
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_hours(1);

    type Ours = (SendRequest<Bytes>, Connection<DuplexStream, Bytes>);
    type Theirs = h2::server::Connection<DuplexStream, Bytes>;

    async fn greeted() -> (Ours, Theirs) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let greeting = h2::server::Builder::new().max_concurrent_streams(7).handshake(theirs);
        let (ours, theirs) = tokio::join!(greet(ours), greeting);
        (ours.unwrap(), theirs.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_used_once_its_limit_is_known() {
        let ((sender, _connection), _upstream) = greeted().await;
        assert_eq!(sender.current_max_send_streams(), 7);
        // Whoever says nothing is waited for.
        let (ours, _theirs) = tokio::io::duplex(64 << 10);
        assert!(timeout(HOUR, greet(ours)).await.is_err());
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        drop(theirs);
        assert!(timeout(HOUR, greet(ours)).await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_given_up_if_it_is_silent_while_a_request_waits() {
        for (open, lives, given_up) in [(1, false, true), (1, true, false), (0, false, false)] {
            let ((_sender, connection), mut upstream) = greeted().await;
            let load = Arc::new(Load { open: AtomicUsize::new(open), ..Load::default() });
            let begun = Instant::now();
            let driving = timeout(HOUR, drive(connection, load));
            let ended = if lives {
                tokio::select! {
                    ended = driving => ended,
                    request = upstream.accept() => panic!("{:?}", request.is_some()),
                }
            } else {
                driving.await
            };
            assert_eq!(ended.is_ok(), given_up, "{open} open, lives: {lives}");
            let took = begun.elapsed();
            assert!(!given_up || took < 2 * PING_EVERY + SECOND, "{took:?}");
        }
    }

    /// Answers every PING, and counts them.
    async fn count_pings(mut upstream: DuplexStream) -> usize {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        const PREFACE: usize = 24;
        upstream.write_all(&SETTINGS).await.unwrap();
        upstream.read_exact(&mut [0; PREFACE]).await.unwrap();
        let (mut head, mut pings) = ([0; 9], 0);
        while upstream.read_exact(&mut head).await.is_ok() {
            let mut rest = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            upstream.read_exact(&mut rest).await.unwrap();
            let [.., kind, flags, _, _, _, _] = head;
            if (kind, flags) == (6, 0) {
                pings += 1;
                head[4] = 1;
                upstream.write_all(&[&head[..], &rest].concat()).await.unwrap();
            }
        }
        pings
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_silence_is_not_asked_about_more_often_than_servers_put_up_with() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let asking = async {
            let (_sender, connection) = greet(ours).await.unwrap();
            let load = Arc::new(Load { open: AtomicUsize::new(1), ..Load::default() });
            assert!(timeout(HOUR, drive(connection, load)).await.is_err(), "it answers");
        };
        let ((), pings) = tokio::join!(asking, count_pings(theirs));
        assert!((3..=14).contains(&pings), "{pings} in an hour");
    }

    /// Fails after a second.
    async fn fail(openings: &AtomicUsize) -> Result<(), UpstreamError> {
        openings.fetch_add(1, Relaxed);
        sleep(SECOND).await;
        Err(UpstreamError::Timeout)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_opening_is_told_what_came_of_it_and_who_comes_later_opens_again() {
        let (waiting, openings) = (Arc::new(Waiting::default()), Arc::new(AtomicUsize::new(0)));
        for round in 1..=3 {
            let mut asking = JoinSet::new();
            for place in 0..50 {
                let (waiting, openings) = (Arc::clone(&waiting), Arc::clone(&openings));
                asking.spawn(async move {
                    // Some come in the middle of it.
                    sleep(SECOND * (place % 2) / 2).await;
                    let deadline = Instant::now() + HOUR;
                    waiting.take_turns(deadline, || None, fail(&openings)).await
                });
            }
            for told in asking.join_all().await {
                let Err(UpstreamError::Shared(error)) = told else { panic!("{told:?}") };
                assert!(matches!(*error, UpstreamError::Timeout));
            }
            assert_eq!(openings.load(Relaxed), round);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_takes_a_place_that_becomes_free_and_who_opens_does_so_if_that_takes_long() {
        let (waiting, places) = (Waiting::default(), AtomicUsize::new(0));
        let present = || {
            let taken = places.fetch_update(Relaxed, Relaxed, |places| places.checked_sub(1));
            taken.is_ok().then_some(Ok(Instant::now()))
        };
        let begun = Instant::now();
        let deadline = begun + HOUR;
        let ask = || waiting.take_turns(deadline, present, std::future::pending());
        let free = async {
            for _ in 0..3 {
                sleep(PATIENCE / 4).await;
                places.fetch_add(1, Relaxed);
                waiting.freed.notify_one();
            }
        };
        let (opens, first, second, ()) = tokio::join!(ask(), ask(), ask(), free);
        let waited = |placed: Result<Instant, UpstreamError>| placed.unwrap() - begun;
        let (first, second, third) = (waited(first), waited(second), waited(opens));
        assert!(first < second && second < PATIENCE, "{first:?} {second:?}");
        assert!(PATIENCE <= third && third < 2 * PATIENCE, "{third:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_while_opening_is_taken_over_from_and_nobody_waits_beyond_its_time() {
        let (waiting, openings) = (Waiting::default(), AtomicUsize::new(0));
        let ask =
            |time: Duration| waiting.take_turns(Instant::now() + time, || None, fail(&openings));
        let (first, second, third) =
            tokio::join!(timeout(SECOND / 2, ask(HOUR)), ask(HOUR), ask(SECOND / 4));
        assert!(first.is_err());
        assert!(matches!(second, Err(UpstreamError::Shared(_))), "{second:?}");
        let late = matches!(third, Err(UpstreamError::Unreachable(DialError::Timeout)));
        assert!(late, "{third:?}");
        assert_eq!(openings.load(Relaxed), 2);
    }
}
