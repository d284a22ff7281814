//! A look into an answer that may say, other than by 401, that the token has expired: bounded, and
//! only where the route or its dialect names the status. What was read is passed on all the same.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::Read;
use std::task::Poll;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, response};
use http_body::Frame;

use super::{Exchange, reason};
use crate::clock::monotonic;
use crate::credential::sign::Words;
use crate::proxy::reject::Reason;
use crate::proxy::upstream::{Call, UpstreamError};

/// So much is read of an answer; what is longer is no message about a token.
const MAX_BYTES: u64 = 8 << 10;
/// So much may come of it when it was compressed.
const MAX_INFLATED_BYTES: u64 = 64 << 10;

/// What was read of an answer before its head went down.
#[derive(Default)]
pub(in crate::proxy) struct Looked {
    /// In order.
    pub(in crate::proxy) frames: VecDeque<Frame<Bytes>>,
}

impl Exchange {
    /// Whether the upstream refused the token by a status that says so, or by words.
    pub(super) async fn says_expired(
        &mut self,
        head: &response::Parts,
        call: &mut Call,
    ) -> Result<bool, Reason> {
        let replay = &self.route().config.replay;
        if replay.statuses.contains(&head.status.as_u16()) {
            return Ok(true);
        }
        if !is_readable(head, call) {
            return Ok(false);
        }
        self.await_answer(monotonic());
        let (frames, whole) = self.read(call).await.map_err(|error| reason(&error))?;
        let body = whole.then(|| text(&head.headers, &frames)).flatten();
        self.looked = Looked { frames };
        let said = |words: &Words| body.as_ref().is_some_and(|body| words.are_in(body));
        let status = head.status.as_u16();
        let signs = self.route().config.replay.expired.iter();
        let mut named = signs.filter(|sign| sign.statuses.contains(&status));
        Ok(named.any(|sign| sign.words.as_ref().is_some_and(said)))
    }

    /// The frames up to the end or to the bound; true if that was the end.
    async fn read(&self, call: &mut Call) -> Result<(VecDeque<Frame<Bytes>>, bool), UpstreamError> {
        let watchdog = self.record.watchdog();
        let (mut frames, mut bytes) = (VecDeque::new(), 0);
        while bytes <= MAX_BYTES && !call.is_end_stream() {
            let next = poll_fn(|cx| match call.poll_frame(cx) {
                Poll::Pending if watchdog.expired() => {
                    Poll::Ready(Some(Err(UpstreamError::Timeout)))
                }
                polled => polled,
            });
            let Some(frame) = next.await.transpose()? else { break };
            bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
            frames.push_back(frame);
        }
        Ok((frames, bytes <= MAX_BYTES))
    }
}

/// Whether it is short text: no stream is held back for a look. Without a length that is told
/// beforehand only an error is expected to be short.
fn is_readable(head: &response::Parts, call: &Call) -> bool {
    let short = match call.size_hint().exact() {
        Some(length) => (1..=MAX_BYTES).contains(&length),
        None => head.status.is_client_error() || head.status.is_server_error(),
    };
    short && is_text(&head.headers)
}

fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    let structured = ["json", "xml"]
        .iter()
        .any(|form| kind.strip_suffix(form).is_some_and(|rest| rest.ends_with(['/', '+'])));
    structured || (kind.starts_with("text/") && kind != "text/event-stream")
}

/// The body as the upstream meant it; `None` if it is compressed in a way that is not looked into.
fn text(headers: &HeaderMap, frames: &VecDeque<Frame<Bytes>>) -> Option<Vec<u8>> {
    let data = frames.iter().filter_map(Frame::data_ref);
    let body: Vec<u8> = data.flat_map(|data| data.iter().copied()).collect();
    let Some(coding) = headers.get(CONTENT_ENCODING) else { return Some(body) };
    match coding.to_str().ok()?.to_ascii_lowercase().as_str() {
        "identity" => Some(body),
        "gzip" | "x-gzip" => {
            let mut inflated = Vec::new();
            let decoder = GzDecoder::new(body.as_slice());
            decoder.take(MAX_INFLATED_BYTES).read_to_end(&mut inflated).ok()?;
            Some(inflated)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q9_only_text_is_looked_into() {
        for (kind, text) in [
            ("application/json", true),
            ("application/problem+json; charset=utf-8", true),
            ("Application/JSON", true),
            ("text/html", true),
            ("application/soap+xml", true),
            ("application/xml", true),
            ("text/event-stream", false),
            ("application/x-ndjson", false),
            ("application/grpc+proto", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(is_text(&headers), text, "{kind}");
        }
        assert!(is_text(&HeaderMap::new()));
    }
}
