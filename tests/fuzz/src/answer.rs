//! Answers of token endpoints, as each vendor dialect reads them.
//!
//! An input is a line `STATUS CONTENT-TYPE`, then the body.

use std::sync::LazyLock;
use std::time::Duration;

use bearerd::clock::Moment;
use bearerd::config::parse_dialect;
use bearerd::source::Bounds;
use bearerd::source::answer::{Answer, read, read_revocation};
use bearerd::source::dialect::Dialect;
use bearerd::source::vendor;
use bearerd::token::MAX_TOKEN_BYTES;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};

use super::assert_tellable;

static DIALECTS: LazyLock<Vec<Dialect>> = LazyLock::new(|| {
    let parsed = vendor::ALL.iter().map(|(_, text)| parse_dialect(text));
    parsed.map(|dialect| dialect.unwrap_or_else(|problems| panic!("{problems:?}"))).collect()
});

/// A token that can be injected, or a refusal that shows nothing of the answer.
pub fn check(data: &[u8]) -> bool {
    let answer = answer(data);
    let granted = DIALECTS.iter().map(|dialect| check_with(dialect, &answer));
    granted.fold(false, |one, granted| one | granted)
}

pub(crate) fn check_with(dialect: &Dialect, answer: &Answer) -> bool {
    let now = Moment::now();
    let mut granted = false;
    for exchange in &dialect.obtain {
        match read(answer, &exchange.ok, &exchange.errors, now, Bounds::default()) {
            Ok(fetched) => {
                granted = true;
                let token = fetched.token.value().expose();
                assert!(!token.is_empty() && token.len() <= MAX_TOKEN_BYTES);
                assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
                assert!(fetched.token.lifetime() > Duration::ZERO);
                assert!(fetched.token.usable(now));
                assert!(fetched.refresh_token.is_none_or(|token| !token.expose().is_empty()));
            }
            Err(refusal) => {
                assert_tellable(&refusal.error.to_string());
                assert!(refusal.error.rotated.is_none_or(|token| !token.expose().is_empty()));
            }
        }
    }
    if let Some(revoke) = &dialect.revoke {
        let _ = read_revocation(answer, &revoke.ok);
    }
    granted
}

pub(crate) fn answer(data: &[u8]) -> Answer {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let line = String::from_utf8_lossy(line);
    let (status, media_type) = line.split_once(' ').unwrap_or((&line, ""));
    let mut headers = HeaderMap::new();
    if let Ok(media_type) = HeaderValue::from_str(media_type) {
        headers.insert(RETRY_AFTER, media_type.clone());
        headers.insert(CONTENT_TYPE, media_type);
    }
    let status = status.parse().ok().filter(|status| (100..1000).contains(status));
    Answer { status: status.unwrap_or(200), headers, body: body.to_vec().into() }
}
