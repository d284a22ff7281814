//! A client that sends exactly the bytes it is given and reads one answer, for tests that speak to
//! a proxy or to the emulator by hand.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One connection.
pub struct Client {
    stream: Box<dyn Stream>,
    to: SocketAddr,
    ahead: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for S {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("to", &self.to).finish_non_exhaustive()
    }
}

/// One answer; an interim one (1xx) counts as one too.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Fields in order, names as sent.
    pub head: Vec<(String, String)>,
    /// Body, decoded from chunks.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    /// The first value of a field, whatever the casing of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.iter();
        fields.find(|(sent, _)| sent.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON, `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One POST of a form on its own connection, `Accept: application/json` included.
pub async fn post_form(
    to: SocketAddr,
    target: &str,
    extra: &[(&str, &str)],
    pairs: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(pairs);
    let mut fields =
        vec![("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")];
    fields.extend_from_slice(extra);
    Client::connect(to).await?.request("POST", target, &fields, body.finish().as_bytes()).await
}

impl Client {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Box::new(stream), to, ahead: Vec::new() })
    }

    /// Connects by TLS to who has a certificate for `name` under an authority in `pem`.
    pub async fn connect_tls(to: SocketAddr, name: &str, pem: &str) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let authorities: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        for authority in authorities.map_err(io::Error::other)? {
            roots.add(authority).map_err(io::Error::other)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Self { stream: Box::new(stream), to, ahead: Vec::new() })
    }

    /// Sends exactly these bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a request with `Host` and, for a body, `Content-Length`; reads the answer.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.to);
        for (name, value) in fields {
            bytes += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            bytes += &format!("Content-Length: {}\r\n", body.len());
        }
        bytes += "\r\n";
        self.send(&[bytes.as_bytes(), body].concat()).await?;
        self.answer_to(method).await
    }

    /// Reads the answer to a request that was not HEAD.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        self.answer_to("GET").await
    }

    /// Reads up to and including `text`, whatever it stands in.
    pub async fn until(&mut self, text: &str) -> io::Result<String> {
        loop {
            let found = self.ahead.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(at) = found {
                let bytes = self.take(at + text.len()).await?;
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            self.fill().await?;
        }
    }

    /// Reads whatever comes until the connection closes.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.ahead);
        self.stream.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    async fn answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.head().await?;
        let chunked = answer.header("transfer-encoding").is_some();
        let length = answer.header("content-length").and_then(|value| value.parse().ok());
        if method == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304) {
            return Ok(answer);
        }
        match length {
            _ if chunked => self.chunks(&mut answer).await?,
            Some(length) => answer.body = self.take(length).await?,
            None => answer.body = self.rest().await?,
        }
        Ok(answer)
    }

    async fn head(&mut self) -> io::Result<Answer> {
        let mut status = self.line().await?;
        while status.is_empty() {
            status = self.line().await?;
        }
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let head = self.fields().await?;
        Ok(Answer { status, head, body: Vec::new(), trailers: Vec::new() })
    }

    async fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            match line.split_once(':') {
                Some((name, value)) => fields.push((name.to_owned(), value.trim().to_owned())),
                None => return Ok(fields),
            }
        }
    }

    async fn chunks(&mut self, answer: &mut Answer) -> io::Result<()> {
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            if size == 0 {
                answer.trailers = self.fields().await?;
                return Ok(());
            }
            answer.body.extend(self.take(size).await?);
            self.line().await?;
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2).await?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < length {
            self.fill().await?;
        }
        let rest = self.ahead.split_off(length);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.ahead).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
