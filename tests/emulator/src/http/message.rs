//! A request as it arrived: nothing normalised, nothing merged, nothing reordered.

use std::time::Instant;

use crate::form::Form;

/// One request, in the sender's own spelling and order.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Method as sent.
    pub method: String,
    /// Request target as sent, with its query.
    pub target: String,
    /// Minor HTTP version: 0 or 1.
    pub version: u8,
    /// Fields in order; names in the sender's casing.
    pub head: Vec<(String, Vec<u8>)>,
    /// The bytes of the head, from the request line through the empty line.
    pub raw_head: Vec<u8>,
    /// The first MiB of the body, decoded from chunks. Empty when an answer was given before the
    /// body was read.
    pub body: Vec<u8>,
    /// Length of the whole body.
    pub body_length: u64,
    /// SHA-256 of the whole body, lower-case hex.
    pub body_sha256: String,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Server name of the TLS handshake, if the client sent one.
    pub sni: Option<String>,
    /// Number of the connection, counted from 1.
    pub connection: u64,
    /// When the head was complete.
    pub at: Instant,
}

impl Recorded {
    /// The target up to its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The first value of a field, whatever the casing of its name. Bytes that are not UTF-8 are
    /// replaced.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers(name).first().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// All values of a field, in order.
    pub fn headers(&self, name: &str) -> Vec<&[u8]> {
        self.head
            .iter()
            .filter(|(sent, _)| sent.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
            .collect()
    }

    /// Whether a field of that name is present.
    pub fn has(&self, name: &str) -> bool {
        self.head.iter().any(|(sent, _)| sent.eq_ignore_ascii_case(name))
    }

    /// Names of the fields in order, as sent.
    pub fn header_names(&self) -> Vec<&str> {
        self.head.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The body as text, bytes that are not UTF-8 replaced.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body read as a form, whatever its content type says.
    pub fn form(&self) -> Form {
        Form::parse(&self.body)
    }

    /// Media type without its parameters, in lower case.
    pub fn media_type(&self) -> Option<String> {
        let value = self.header("content-type")?;
        Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }
}
