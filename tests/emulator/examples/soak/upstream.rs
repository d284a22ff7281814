//! The API: quick, so that it is not what the load waits for; strict about tokens; and it restarts.
//!
//! A request names what it wants back (`x-want: ID LENGTH`): that many bytes which follow from the
//! ID, so that a caller sees whether an answer is its own and whole.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use emulator::{Tokens, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// A refresh comes within this time, also after one that failed.
const JUST: Duration = Duration::from_secs(3);

/// The API.
pub struct Upstream {
    address: SocketAddr,
    tokens: Tokens,
    /// Odd while it is down. Each restart ends all connections.
    life: watch::Sender<u64>,
    taken_back: Mutex<Option<Instant>>,
    wrong: Mutex<BTreeMap<&'static str, u64>>,
}

impl Upstream {
    /// Starts it at a free port.
    pub async fn start(tokens: &Tokens) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let upstream = Arc::new(Self {
            address: listener.local_addr()?,
            tokens: tokens.clone(),
            life: watch::channel(0).0,
            taken_back: Mutex::default(),
            wrong: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&upstream).accept(listener));
        Ok(upstream)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes with every stop and start; odd while it is down.
    pub fn life(&self) -> u64 {
        *self.life.borrow()
    }

    /// Tokens that never were to be sent, by what is wrong with them.
    pub fn wrong_tokens(&self) -> BTreeMap<&'static str, u64> {
        self.wrong.lock().expect("no panic").clone()
    }

    /// Takes the newest token back.
    pub fn take_back(&self) {
        *self.taken_back.lock().expect("no panic") = Some(Instant::now());
        if let Some(token) = self.tokens.latest() {
            self.tokens.revoke(&token);
        }
    }

    /// A token that is refused within a second of its refresh is tried once more and not replaced
    /// for that, so until the next refresh callers are told what the API said.
    pub fn has_just_taken_back(&self) -> bool {
        let taken_back = *self.taken_back.lock().expect("no panic");
        taken_back.is_some_and(|at| at.elapsed() < JUST)
    }

    /// Closes everything, and listens again after `pause`.
    pub async fn restart(self: &Arc<Self>, pause: Duration) -> io::Result<()> {
        self.life.send_modify(|life| *life += 1);
        sleep(pause).await;
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        let listener = socket.listen(1024)?;
        self.life.send_modify(|life| *life += 1);
        tokio::spawn(Arc::clone(self).accept(listener));
        Ok(())
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut life = self.life.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = life.changed() => return,
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let (upstream, mut life) = (Arc::clone(&self), self.life.subscribe());
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = life.changed() => {}
                            _ = upstream.serve(stream) => {}
                        }
                    });
                }
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::with_capacity(16 << 10);
        loop {
            let end = loop {
                if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = field(&head, "content-length").and_then(|text| text.parse().ok());
            let length: usize = length.unwrap_or(0);
            while buffer.len() < end + length {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            let answer = self.answer(&head, &buffer[end..end + length]);
            buffer.drain(..end + length);
            stream.write_all(&answer).await?;
        }
    }

    fn answer(&self, head: &str, body: &[u8]) -> Vec<u8> {
        let token = field(head, "authorization").and_then(|value| value.strip_prefix("Bearer "));
        let verdict = token.map_or(Verdict::Unknown, |token| self.tokens.verdict(token));
        match verdict {
            Verdict::Live => {}
            // Taken back while it was in use: what the replay is for.
            Verdict::Revoked => return UNAUTHORIZED.to_vec(),
            Verdict::Early => return self.wrong("not valid yet"),
            Verdict::Expired => return self.wrong("expired"),
            Verdict::Unknown => return self.wrong("never issued, or none at all"),
        }
        let Some((id, length)) = field(head, "x-want").and_then(wanted) else {
            return self.wrong("none: the request is not what the caller sent");
        };
        if !body.is_empty() && body != content(id, body.len()) {
            return self.wrong("none: the body is not what the caller sent");
        }
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nx-id: {id}\r\ncontent-length: {length}\r\n\r\n");
        answer.reserve(length);
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(&content(id, length));
        answer
    }

    fn wrong(&self, what: &'static str) -> Vec<u8> {
        *self.wrong.lock().expect("no panic").entry(what).or_default() += 1;
        UNAUTHORIZED.to_vec()
    }
}

const UNAUTHORIZED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer \
    error=\"invalid_token\"\r\ncontent-length: 0\r\n\r\n";

/// The value of a field; names are compared without case.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn wanted(text: &str) -> Option<(u64, usize)> {
    let (id, length) = text.split_once(' ')?;
    Some((id.parse().ok()?, length.parse().ok()?))
}

/// The bytes that belong to `id`.
pub fn content(id: u64, length: usize) -> Vec<u8> {
    id.to_le_bytes().into_iter().cycle().take(length).map(|byte| byte | 1).collect()
}
