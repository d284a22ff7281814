//! What a head says about its message's end and its connection's.

use super::Malformed;

/// What is said of transfer codings (RFC 9112 §6.1).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::proxy) enum Coding {
    /// Nothing.
    #[default]
    None,
    /// `chunked`, exactly once, and nothing beneath it.
    Chunked,
    /// What nobody here understands.
    Other,
}

/// What a head says about framing and connection.
#[derive(Default)]
pub(in crate::proxy) struct Said {
    /// The length of the body.
    pub(in crate::proxy) length: Option<u64>,
    /// It was said more than once in one line.
    pub(in crate::proxy) lists_lengths: bool,
    /// How the body is coded.
    pub(in crate::proxy) coding: Coding,
    /// The connection ends with this message.
    pub(in crate::proxy) close: bool,
    /// The connection goes on after it.
    pub(in crate::proxy) keep_alive: bool,
}

impl Said {
    /// Notes what the field with a `name` in lowercase says; false if that was all it is for.
    pub(in crate::proxy) fn note(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Malformed> {
        if name == b"content-length" {
            let again = self.length.is_some();
            // The usual one.
            if let (None, Some(length)) = (self.length, content_length(value)) {
                self.length = Some(length);
                return Ok(true);
            }
            self.lists_lengths |= value.contains(&b',');
            for length in value.split(|b| *b == b',') {
                let length = content_length(length.trim_ascii());
                let length = length.ok_or(Malformed("Content-Length"))?;
                if self.length.replace(length).is_some_and(|earlier| earlier != length) {
                    return Err(Malformed("differing Content-Length values"));
                }
            }
            // RFC 9112 §6.3: once is what may be passed on.
            return Ok(!again);
        } else if name == b"transfer-encoding" {
            let only = self.coding == Coding::None && value.eq_ignore_ascii_case(b"chunked");
            self.coding = if only { Coding::Chunked } else { Coding::Other };
        } else if name == b"connection" {
            return Ok(self.connection(value));
        }
        Ok(true)
    }

    /// False if the line nominates no field, as the usual ones do.
    fn connection(&mut self, value: &[u8]) -> bool {
        let mut others = false;
        for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else {
                others = true;
            }
        }
        others
    }

    /// True if the connection may carry another message (RFC 9112 §9.3).
    pub(in crate::proxy) fn persists(&self, version: http::Version) -> bool {
        !self.close && (version == http::Version::HTTP_11 || self.keep_alive)
    }
}

/// RFC 9110 §8.6: digits only.
fn content_length(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let add = |sum: u64, byte| sum.checked_mul(10)?.checked_add(digit(byte)?);
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, add)).flatten()
}
