//! What an upstream's 401 says: would a newer token help?

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// True if a refused token may be replaced: the challenge is `Bearer` with `error="invalid_token"`
/// or without `error` (RFC 6750 §3.1), or there is none at all, as with vendors that leave it out.
/// With other schemes only, or another error, a newer token is refused just the same.
#[must_use]
pub(super) fn invites_new_token(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(WWW_AUTHENTICATE).iter().peekable();
    if lines.peek().is_none() {
        return true;
    }
    lines.any(|line| line.to_str().is_ok_and(line_invites))
}

/// One field line may hold several challenges (RFC 9110 §11.6.1).
fn line_invites(line: &str) -> bool {
    let mut bearer = Bearer::Absent;
    let mut invites = false;
    for element in elements(line) {
        let (first, rest) = element.split_once([' ', '\t']).unwrap_or((element, ""));
        let rest = rest.trim_start();
        let parameter = if first.contains('=') || rest.starts_with('=') {
            element
        } else {
            invites |= bearer == Bearer::Invites;
            let is_bearer = first.eq_ignore_ascii_case("bearer");
            bearer = if is_bearer { Bearer::Invites } else { Bearer::Absent };
            rest
        };
        if let (Bearer::Invites, Some((name, value))) = (bearer, parameter.split_once('='))
            && name.trim().eq_ignore_ascii_case("error")
            && value.trim().trim_matches('"') != "invalid_token"
        {
            bearer = Bearer::Refuses;
        }
    }
    invites || bearer == Bearer::Invites
}

/// The challenge being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bearer {
    Absent,
    Invites,
    Refuses,
}

/// Splits at the commas outside of quoted strings.
fn elements(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |c| {
        let separates = c == ',' && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        separates
    })
    .map(str::trim)
    .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invites(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
        }
        invites_new_token(&headers)
    }

    #[test]
    fn rule_17_the_challenges_that_a_newer_token_answers() {
        for lines in [
            &[][..],
            &["Bearer"],
            &["bearer"],
            &["Bearer realm=\"a, b\""],
            &["Bearer error=\"invalid_token\", error_description=\"x\""],
            &["BEARER realm=x, ERROR=invalid_token"],
            &["Bearer error = \"invalid_token\""],
            &["Basic realm=\"a\"", "Bearer"],
            &["Basic realm=\"a\", Bearer realm=\"b\", error=\"invalid_token\""],
            &["Bearer error=\"insufficient_scope\", Bearer realm=\"other\""],
            &["Bearer realm=\"x\", Basic realm=\"a\", charset=\"UTF-8\""],
        ] {
            assert!(invites(lines), "{lines:?}");
        }
    }

    #[test]
    fn rule_17_the_challenges_that_it_does_not() {
        for lines in [
            &["Basic realm=\"Bearer\""][..],
            &["Negotiate"],
            &["Negotiate YWJj=="],
            &["Basic realm=\"a, Bearer\""],
            &["Bearer error=\"insufficient_scope\""],
            &["Bearer realm=\"x\", error=\"invalid_request\""],
            &["DPoP error=\"use_dpop_nonce\""],
            &["Basic realm=\"\\\", Bearer \""],
            &[""],
        ] {
            assert!(!invites(lines), "{lines:?}");
        }
    }
}
