//! Requests at a fixed rate, each with a time that it is due at whether or not the answers before
//! it have come.
//!
//! A generator that waits for an answer before it asks again does not ask while the proxy stalls,
//! and so hardly notices (coordinated omission). Here a stall delays what was due meanwhile, and a
//! request's latency counts from when it was due. The figures go to the standard output as JSON.

#![allow(clippy::disallowed_methods)] // measuring time is what it is for

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// What is due in the first part is sent and not counted.
const WARM_UP: f64 = 0.2;
/// Between two looks at what has arrived and what is due. The upstream needs half of the core that they share:
/// without a pause to gather some, the other half would not do.
const TICK: Duration = Duration::from_micros(100);
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections, rate, seconds] = arguments.as_slice() else {
        eprintln!("usage: pace ADDRESS:PORT CONNECTIONS REQUESTS-PER-SECOND SECONDS");
        return ExitCode::from(64);
    };
    let result = (|| {
        let number = |text: &String| text.parse::<f64>().map_err(io::Error::other);
        let count = connections.parse().map_err(io::Error::other)?;
        Pace::new(address, count, number(rate)?, number(seconds)?)?.run()
    })();
    match result {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pace: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One keep-alive connection, with at most one request on it.
struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    /// When the request on it was due; `None` while it is free.
    due: Option<Instant>,
}

struct Pace {
    connections: Vec<Connection>,
    free: VecDeque<usize>,
    ready: rustix::fd::OwnedFd,
    request: Vec<u8>,
    interval: Duration,
    total: u32,
    warm_up: u32,
    microseconds: Vec<u32>,
    not_ok: usize,
}

impl Pace {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a rate times seconds
    fn new(address: &str, connections: usize, rate: f64, seconds: f64) -> io::Result<Self> {
        // The kernel may be up to 50 µs late otherwise, which is longer than an interval.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let ready = epoll::create(CreateFlags::CLOEXEC)?;
        let open = |index: usize| {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&ready, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
            Ok(Connection { stream, answer: Vec::with_capacity(4096), due: None })
        };
        let opened = (0..connections).map(open).collect::<io::Result<Vec<_>>>()?;
        let total = (rate * seconds) as u32;
        Ok(Self {
            free: (0..opened.len()).collect(),
            connections: opened,
            ready,
            request: format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes(),
            interval: Duration::from_secs_f64(1.0 / rate),
            total,
            warm_up: (f64::from(total) * WARM_UP) as u32,
            microseconds: Vec::with_capacity(total as usize),
            not_ok: 0,
        })
    }

    fn run(mut self) -> io::Result<String> {
        let begun = Instant::now() + Duration::from_millis(5);
        let counted_from = begun + self.interval * self.warm_up;
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256];
        let (mut next, mut heard, mut tick) = (0, begun, begun);
        while next < self.total || self.free.len() < self.connections.len() {
            std::thread::sleep(tick.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            tick = now + TICK;
            let arrived = epoll::wait(&self.ready, &mut events[..], Some(&Timespec::default()))?;
            for event in &events[..arrived] {
                let index = usize::try_from(event.data.u64()).map_err(io::Error::other)?;
                self.hear(index, counted_from)?;
                heard = now;
            }
            if now > heard + PATIENCE {
                return Err(io::Error::other("answers do not come any more"));
            }
            while next < self.total && begun + self.interval * next <= now {
                let Some(index) = self.free.pop_front() else { break };
                self.ask(index, begun + self.interval * next)?;
                next += 1;
            }
        }
        Ok(self.report())
    }

    fn ask(&mut self, index: usize, due: Instant) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.due = Some(due);
        connection.stream.write_all(&self.request)
    }

    /// Reads what came; a whole answer frees the connection.
    fn hear(&mut self, index: usize, counted_from: Instant) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let mut bytes = [0; 16 << 10];
        let read = connection.stream.read(&mut bytes)?;
        if read == 0 {
            return Err(io::Error::other("a connection was closed"));
        }
        connection.answer.extend_from_slice(&bytes[..read]);
        let Some(ok) = whole(&connection.answer) else { return Ok(()) };
        connection.answer.clear();
        self.free.push_back(index);
        if let Some(due) = connection.due.take().filter(|due| *due >= counted_from) {
            let took = due.elapsed().as_micros();
            self.microseconds.push(u32::try_from(took).unwrap_or(u32::MAX));
            self.not_ok += usize::from(!ok);
        }
        Ok(())
    }

    fn report(mut self) -> String {
        self.microseconds.sort_unstable();
        let at = |percent: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
            #[allow(clippy::cast_sign_loss)] // an index
            let index = (self.microseconds.len() as f64 * percent / 100.0) as usize;
            self.microseconds.get(index).copied().unwrap_or(0)
        };
        format!(
            r#"{{"requests": {}, "non_2xx": {}, "p50_us": {}, "p99_us": {}, "p999_us": {}}}"#,
            self.microseconds.len(),
            self.not_ok,
            at(50.0),
            at(99.0),
            at(99.9)
        )
    }
}

/// Whether an answer with a length is all there; if so, whether it is a 200.
fn whole(answer: &[u8]) -> Option<bool> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(answer) else { return None };
    let said = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let said = said.and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    (answer.len() >= length + said.unwrap_or(0)).then_some(head.code == Some(200))
}
