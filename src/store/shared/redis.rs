//! A register as a hash at a Redis server (7, Valkey): the version in one field, the content in the
//! other, replaced by a script that compares first, and told to the others on a channel.
//!
//! The connection is ours: dialled and verified like every other one. Commands and messages share it
//! (RESP3). It must be the primary's, and that one must not lose what it acknowledged: `appendfsync
//! always`. A connection is used up by the call that was given up during its use.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, RedisError, Value,
};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::{Content, Held, MAX_CONTENT_BYTES, Register, RegisterError, Swapped, Version};
use crate::clock::monotonic;
use crate::dial::{Address, DialError, Peer};
use crate::secret::{SecretError, SecretRef};
use crate::tls::{self, TlsError, TlsSettings};

/// For connecting, the handshake and the greeting.
const CONNECT: Duration = Duration::from_millis(1500);
/// Between two attempts to hear what changes.
const RECONNECT: Duration = Duration::from_millis(250);
/// Where those that share a register hear of a write.
const CHANNEL: &str = ":changed";

/// Compares, writes and tells, in one step. What is told must not make a write look failed.
const SWAP: &str = r"
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'document', ARGV[3])
redis.pcall('PUBLISH', ARGV[4], ARGV[2])
return 1";

/// Which key at which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The server's name or address.
    pub host: String,
    /// 6379, usually.
    pub port: u16,
    /// The database's number.
    pub database: i64,
    /// The key.
    pub key: String,
    /// The user (ACL), if it is not the default one.
    pub username: Option<String>,
    /// The password, if there is one.
    pub password: Option<SecretRef>,
    /// How the server is verified; `None` = plaintext.
    pub tls: Option<TlsSettings>,
}

impl Place {
    /// Whether both are the same key, whoever asks for it.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let what =
            |place: &Self| (place.host.clone(), place.port, place.database, place.key.clone());
        what(self) == what(other)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        let Self { host, port, database, key, .. } = self;
        write!(f, "{scheme}://{host}:{port}/{database} {key}")
    }
}

/// A register at a Redis server.
pub struct Redis {
    place: Place,
    link: Option<Link>,
    /// A connection on its way, for hearing what changes, or when to begin one. Kept between calls:
    /// whoever gives one up, again and again, must not keep the next one from getting any further.
    next: Next,
    /// The version that this process wrote last: hearing of it is no news.
    own: String,
}

enum Next {
    /// Not before then.
    At(Instant),
    Opening(Pin<Box<dyn Future<Output = Result<Link, RegisterError>> + Send>>),
}

/// A connection, and what drives it.
struct Link {
    connection: MultiplexedConnection,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    heard: UnboundedReceiver<PushInfo>,
}

/// Why a server does not do what it is asked. Nothing that it said is shown, except its code.
#[derive(Debug, Error)]
enum Trouble {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the password is not there")]
    Password(#[from] SecretError),
    #[error("the host is no name that TLS could verify")]
    Name,
    #[error("the server answered {0}")]
    Server(String),
    #[error("the connection broke")]
    Broken,
    #[error("no answer in time")]
    Silent,
}

impl Redis {
    /// A register at `place`; nothing is connected yet.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, link: None, next: Next::At(monotonic()), own: String::new() }
    }

    /// Sends one command. A connection that does not come back from it is not used again.
    async fn ask(&mut self, command: &Cmd) -> Result<Value, Trouble> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.place.connect().await?,
        };
        let answer = tokio::select! {
            biased;
            answer = command.query_async(&mut link.connection) => answer.map_err(|e| trouble(&e)),
            () = &mut link.driver => Err(Trouble::Broken),
        };
        match answer {
            Ok(value) => {
                self.link = Some(link);
                Ok(value)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Gets a connection for hearing what changes, however often it is given up in between.
    async fn connect(&mut self) {
        loop {
            match &mut self.next {
                Next::At(at) => {
                    sleep_until(*at).await;
                    let place = self.place.clone();
                    let opening = async move {
                        let link = place.connect().await;
                        link.map_err(|trouble| place.error(trouble))
                    };
                    self.next = Next::Opening(Box::pin(opening));
                }
                Next::Opening(opening) => {
                    let opened = opening.await;
                    self.next = Next::At(monotonic() + RECONNECT);
                    if let Ok(link) = opened {
                        self.link = Some(link);
                        return;
                    }
                }
            }
        }
    }
}

impl Place {
    async fn connect(&self) -> Result<Link, Trouble> {
        let connected = tokio::time::timeout(CONNECT, self.dial()).await;
        connected.unwrap_or(Err(Trouble::Silent))
    }

    async fn dial(&self) -> Result<Link, Trouble> {
        let Place { host, port, database, username, password, .. } = self;
        let tls = match &self.tls {
            Some(settings) => {
                let name = settings.server_name.clone().unwrap_or_else(|| host.clone());
                Some((tls::client(settings)?, name.try_into().map_err(|_| Trouble::Name)?))
            }
            None => None,
        };
        let peer = Peer::new(Address::Tcp(host.clone(), *port), tls);
        let stream = peer.connect(monotonic() + CONNECT).await?;
        let mut login = RedisConnectionInfo::default()
            .set_db(*database)
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if let Some(username) = username {
            login = login.set_username(username);
        }
        if let Some(password) = password {
            login = login.set_password(password.read()?.expose());
        }
        let (tell, heard) = unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(tell).set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(&login, stream, config).await;
        let (mut connection, driver) = connected.map_err(|e| trouble(&e))?;
        let mut driver: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(driver);
        tokio::select! {
            biased;
            subscribed = connection.subscribe(self.channel()) => subscribed.map_err(|e| trouble(&e))?,
            () = &mut driver => return Err(Trouble::Broken),
        }
        Ok(Link { connection, driver, heard })
    }

    fn channel(&self) -> String {
        format!("{}{CHANNEL}", self.key)
    }

    fn error(&self, trouble: Trouble) -> RegisterError {
        let place = self.to_string();
        let Trouble::Server(code) = &trouble else {
            return RegisterError::Unreachable { place, source: trouble.into() };
        };
        match meaning(code) {
            Some((problem, remedy)) => {
                let problem = format!("{problem} ({code}): {remedy}");
                RegisterError::Unusable { place, problem }
            }
            None => RegisterError::Unreachable { place, source: trouble.into() },
        }
    }
}

impl Register for Redis {
    async fn read(&mut self) -> Result<Held, RegisterError> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.place.key).arg("version").arg("document");
        let fields = match self.ask(&command).await {
            Ok(Value::Array(fields)) => fields,
            Ok(_) => Vec::new(),
            Err(trouble) => return Err(self.place.error(trouble)),
        };
        match <[Value; 2]>::try_from(fields) {
            Ok([Value::Nil, _]) => Ok(Held { version: Version(String::new()), content: None }),
            Ok([Value::BulkString(version), Value::BulkString(content)])
                if content.len() <= MAX_CONTENT_BYTES =>
            {
                let version = Version(String::from_utf8_lossy(&version).into_owned());
                Ok(Held { version, content: Some(Zeroizing::new(content)) })
            }
            _ => {
                let problem = "holds something that bearerd did not write".to_owned();
                Err(RegisterError::Unusable { place: self.place.to_string(), problem })
            }
        }
    }

    async fn swap(
        &mut self,
        expected: &Version,
        content: &Content,
    ) -> Result<Swapped, RegisterError> {
        // What cannot be reached is not written; from the command on, only reading can tell.
        if self.link.is_none() {
            let link = self.place.connect().await;
            self.link = Some(link.map_err(|trouble| self.place.error(trouble))?);
        }
        let version = format!("{:032x}", fastrand::u128(..));
        self.own.clone_from(&version);
        let mut command = redis::cmd("EVAL");
        command.arg(SWAP).arg(1).arg(&self.place.key);
        command.arg(&expected.0).arg(&version).arg(content.as_slice()).arg(self.place.channel());
        match self.ask(&command).await {
            Ok(Value::Int(1)) => Ok(Swapped::Done(Version(version))),
            Ok(Value::Int(0)) => Ok(Swapped::Conflict),
            Ok(_) => Ok(Swapped::Unknown(self.place.error(Trouble::Broken))),
            Err(trouble) if trouble.is_a_no() => Err(self.place.error(trouble)),
            Err(trouble) => Ok(Swapped::Unknown(self.place.error(trouble))),
        }
    }

    async fn changed(&mut self) {
        loop {
            let Some(link) = &mut self.link else {
                return self.connect().await;
            };
            let heard = tokio::select! {
                heard = link.heard.recv() => heard,
                () = &mut link.driver => None,
            };
            match heard {
                Some(push) if push.kind == PushKind::Message => {
                    let own = Value::BulkString(self.own.clone().into_bytes());
                    if push.data.last() != Some(&own) {
                        return;
                    }
                }
                Some(push) if push.kind != PushKind::Disconnection => {}
                _ => self.link = None,
            }
        }
    }

    fn listens(&self) -> bool {
        self.link.is_some()
    }
}

impl Trouble {
    /// True if the server said no before it did anything: our script writes once, and what comes after
    /// that cannot fail it. Other errors may come from something between us and the server, which does
    /// not know either.
    fn is_a_no(&self) -> bool {
        let Self::Server(code) = self else { return false };
        let for_now = ["LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN"];
        meaning(code).is_some() || for_now.contains(&code.as_str())
    }
}

/// What is wrong when a server answers with that code, and what a person can do about it; `None` if it
/// may be well again by itself, or nobody knows.
fn meaning(code: &str) -> Option<(&'static str, &'static str)> {
    let writes = "does not take writes";
    Some(match code {
        "WRONGPASS" | "NOAUTH" | "NOPERM" | "DENIED" | "AUTH" => {
            ("refuses us", "check the user, the password and the ACL")
        }
        "WRONGTYPE" => ("holds something else", "choose another key"),
        "READONLY" => (writes, "it is a copy; name the primary"),
        "OOM" => (writes, "its memory is full; raise maxmemory"),
        "MISCONF" => (writes, "it cannot write to its disk; its log says why"),
        "NOREPLICAS" => (writes, "it has too few copies for its min-replicas-to-write"),
        "MOVED" => {
            ("does not have this key", "it is part of a cluster; name the server that has it")
        }
        _ => return None,
    })
}

/// What went wrong, without a word of the server's but a code in capital letters.
fn trouble(error: &RedisError) -> Trouble {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Trouble::Server("AUTH".to_owned());
    }
    // What Redis 7.0 says, without a code, of a command within a script.
    if error.detail().is_some_and(|said| said.starts_with("The user executing the script can't")) {
        return Trouble::Server("NOPERM".to_owned());
    }
    let word = |code: &&str| code.len() <= 20 && code.bytes().all(|b| b.is_ascii_uppercase());
    match error.code().filter(word) {
        Some(code) => Trouble::Server(code.to_owned()),
        None if error.kind() == ErrorKind::Extension => Trouble::Server("an error".to_owned()),
        None => Trouble::Broken,
    }
}
