//! What an upstream's 401 says: would a newer token help?

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// True if a refused token may be replaced: the challenge is of the token's own `scheme` (`Bearer`,
/// `DPoP`, the route's word for it) with `error="invalid_token"` or without `error` (RFC 6750 §3.1, RFC 9449 §7.1), or there is
/// none at all, as with vendors that leave it out. With other schemes only, or another error, a
/// newer token is refused just the same.
#[must_use]
pub fn invites_new_token(headers: &HeaderMap, scheme: &str) -> bool {
    let mut lines = headers.get_all(WWW_AUTHENTICATE).iter().peekable();
    if lines.peek().is_none() {
        return true;
    }
    let invites = |error: Option<&str>| error.is_none_or(|error| error == "invalid_token");
    lines.any(|line| line.to_str().is_ok_and(|line| errors(line, scheme).into_iter().any(invites)))
}

/// True if the same token would do with a proof that has the server's nonce in it (RFC 9449 §9).
#[must_use]
pub fn wants_nonce(headers: &HeaderMap) -> bool {
    let wanted = Some("use_dpop_nonce");
    let mut lines = headers.get_all(WWW_AUTHENTICATE).iter();
    lines.any(|line| line.to_str().is_ok_and(|line| errors(line, "DPoP").contains(&wanted)))
}

/// The `error` of each challenge of `scheme` in one field line, which may hold several (RFC 9110
/// §11.6.1).
fn errors<'l>(line: &'l str, scheme: &str) -> Vec<Option<&'l str>> {
    let mut errors = Vec::new();
    let mut within = false;
    for element in elements(line) {
        let (first, rest) = element.split_once([' ', '\t']).unwrap_or((element, ""));
        let rest = rest.trim_start();
        let parameter = if first.contains('=') || rest.starts_with('=') {
            element
        } else {
            within = first.eq_ignore_ascii_case(scheme);
            if within {
                errors.push(None);
            }
            rest
        };
        if let (true, Some((name, value))) = (within, parameter.split_once('='))
            && name.trim().eq_ignore_ascii_case("error")
            && let Some(error) = errors.last_mut()
        {
            *error = Some(value.trim().trim_matches('"'));
        }
    }
    errors
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
        invites_new_token(&headers, "Bearer")
    }

    #[test]
    fn rule_54_a_bound_token_is_answered_in_its_own_scheme() {
        for (line, newer, nonce) in [
            ("DPoP algs=\"ES256\"", true, false),
            ("DPoP error=\"invalid_token\", algs=\"ES256\"", true, false),
            ("dpop error=\"use_dpop_nonce\", error_description=\"x, y\"", false, true),
            ("Bearer, DPoP algs=\"ES256\", error=\"use_dpop_nonce\"", false, true),
            ("DPoP error=\"invalid_dpop_proof\"", false, false),
            ("Bearer error=\"use_dpop_nonce\"", false, false),
            ("Bearer", false, false),
        ] {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, line.parse().unwrap())]);
            assert_eq!(invites_new_token(&headers, "DPoP"), newer, "{line}");
            assert_eq!(wants_nonce(&headers), nonce, "{line}");
        }
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
