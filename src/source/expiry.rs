//! How long an access token lives, from everything that its answer says about it.
//!
//! Each rule is a place to look and a way to read it; the earliest wins. A source that is absent,
//! zero, negative or unreadable says nothing, a huge one is cut by `AccessToken`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::json::Document;
use crate::clock::Moment;
use crate::token::MAX_LIFETIME;

/// Where an expiry stands and how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Pointer into the answer; unused by [`Shape::JwtExp`].
    pub at: String,
    /// How to read it.
    pub shape: Shape,
    /// Pointer to the time of issue, for clocks that disagree.
    pub issued: Option<String>,
    /// A zero means that the token never expires, not that nothing is known.
    pub zero_is_never: bool,
}

/// The six ways of writing an expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Seconds from now, as a number or a decimal string.
    Seconds,
    /// Seconds since the epoch.
    EpochSeconds,
    /// Milliseconds since the epoch.
    EpochMilliseconds,
    /// RFC 3339, with any number of fraction digits.
    Rfc3339,
    /// A date as in HTTP header fields (RFC 9110 §5.6.7), as ASP.NET's servers write `.expires`.
    HttpDate,
    /// The `exp` of the access token itself if that is a JWT (RFC 7519 §4.1.4). Not verified: it is
    /// used to shorten a life only.
    JwtExp,
}

/// What the rules of one answer add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How long the token lives from the moment the request was sent; `None` if nothing says so.
    pub lifetime: Option<Duration>,
    /// Absolute times seem past although the token is new: this clock and the provider's disagree.
    pub skewed: bool,
}

/// Applies `rules` to an answer to a request that was sent at `now`.
#[must_use]
pub fn lifetime(rules: &[Rule], answer: &Document, access_token: &str, now: Moment) -> Life {
    let claims = Claims::of(access_token);
    let read = |rule: &Rule| read(rule, answer, &claims);
    let relative = rules.iter().filter_map(read).filter_map(Expiry::relative).min();
    let mut life = Life { lifetime: relative, skewed: false };
    for (at, issued) in rules.iter().filter_map(read).filter_map(Expiry::absolute) {
        let left = at.duration_since(now.wall).unwrap_or_default();
        let left = if left.is_zero() && relative.is_some() {
            life.skewed = true;
            issued.and_then(|issued| at.duration_since(issued).ok()).filter(|d| !d.is_zero())
        } else {
            Some(left)
        };
        life.lifetime = life.lifetime.into_iter().chain(left).min();
    }
    life
}

/// One source, read.
enum Expiry {
    In(Duration),
    At { at: SystemTime, issued: Option<SystemTime> },
}

impl Expiry {
    fn relative(self) -> Option<Duration> {
        match self {
            Self::In(duration) => Some(duration),
            Self::At { .. } => None,
        }
    }

    fn absolute(self) -> Option<(SystemTime, Option<SystemTime>)> {
        match self {
            Self::In(_) => None,
            Self::At { at, issued } => Some((at, issued)),
        }
    }
}

fn read(rule: &Rule, answer: &Document, claims: &Claims) -> Option<Expiry> {
    let at = |at: Option<SystemTime>, issued| at.map(|at| Expiry::At { at, issued });
    match rule.shape {
        Shape::JwtExp => at(claims.exp, claims.iat),
        Shape::Seconds => {
            let seconds = number(answer.at(&rule.at)?)?;
            if rule.zero_is_never && seconds == 0.0 {
                return Some(Expiry::In(MAX_LIFETIME));
            }
            positive(seconds).map(Expiry::In)
        }
        Shape::EpochSeconds => at(epoch(number(answer.at(&rule.at)?)?), None),
        Shape::EpochMilliseconds => at(epoch(number(answer.at(&rule.at)?)? / 1000.0), None),
        Shape::Rfc3339 => dates(rule, answer, rfc3339),
        Shape::HttpDate => dates(rule, answer, |text| httpdate::parse_http_date(text.trim()).ok()),
    }
}

/// The time of expiry, and that of issue where the rule says where it is.
fn dates(
    rule: &Rule,
    answer: &Document,
    parse: impl Fn(&str) -> Option<SystemTime>,
) -> Option<Expiry> {
    let issued = rule.issued.as_ref().and_then(|at| parse(answer.text(at)?));
    Some(Expiry::At { at: parse(answer.text(&rule.at)?)?, issued })
}

/// A number, or a string that holds one: `"3600"` is a known habit.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn positive(seconds: f64) -> Option<Duration> {
    (seconds > 0.0)
        .then(|| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFETIME).min(MAX_LIFETIME))
}

/// A point in time; 0 and negative say nothing, and what no calendar holds is far away.
fn epoch(seconds: f64) -> Option<SystemTime> {
    const YEAR_9999: f64 = 253_402_300_799.0;
    (seconds > 0.0).then(|| UNIX_EPOCH + Duration::from_secs_f64(seconds.min(YEAR_9999)))
}

/// RFC 3339, where vendors write more than the nine fraction digits that a nanosecond has.
fn rfc3339(text: &str) -> Option<SystemTime> {
    let mut cut = text.to_owned();
    if let Some(dot) = text.find('.') {
        let digits = text[dot + 1..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 9 {
            cut.replace_range(dot + 10..dot + 1 + digits, "");
        }
    }
    cut.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// The two claims that matter here.
struct Claims {
    exp: Option<SystemTime>,
    iat: Option<SystemTime>,
}

impl Claims {
    fn of(access_token: &str) -> Self {
        let claims = jsonwebtoken::dangerous::insecure_decode_claims::<
            serde_json::Map<String, Value>,
        >(access_token)
        .unwrap_or_default();
        let time = |name| claims.get(name).and_then(number).and_then(epoch);
        Self { exp: time("exp"), iat: time("iat") }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn now() -> Moment {
        Moment { wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000), ..Moment::now() }
    }

    fn rule(at: &str, shape: Shape) -> Rule {
        Rule { at: at.into(), shape, issued: None, zero_is_never: false }
    }

    fn jwt(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(claims))
    }

    fn seconds(rules: &[Rule], answer: &str, token: &str) -> Option<f64> {
        let answer = Document::parse(answer.as_bytes()).unwrap();
        lifetime(rules, &answer, token, now()).lifetime.map(|d| d.as_secs_f64())
    }

    #[test]
    fn q1_expires_in_in_every_costume() {
        let rules = [rule("/expires_in", Shape::Seconds)];
        for (value, life) in [
            ("3600", Some(3600.0)),
            ("\"3600\"", Some(3600.0)),
            ("\" 299 \"", Some(299.0)),
            ("1799.5", Some(1799.5)),
            ("0", None),
            ("-5", None),
            ("null", None),
            ("\"soon\"", None),
            ("\"NaN\"", None),
            ("\"inf\"", None),
            ("[]", None),
            ("4294967296", Some(MAX_LIFETIME.as_secs_f64())),
            ("1000000000000000000", Some(MAX_LIFETIME.as_secs_f64())),
            ("1e300", Some(MAX_LIFETIME.as_secs_f64())),
        ] {
            assert_eq!(
                seconds(&rules, &format!("{{\"expires_in\":{value}}}"), "x"),
                life,
                "{value}"
            );
        }
        assert_eq!(seconds(&rules, "{}", "x"), None);
    }

    #[test]
    fn q2_the_earliest_of_all_fields_wins() {
        let rules = [
            rule("/expires_in", Shape::Seconds),
            rule("/on", Shape::EpochSeconds),
            rule("/ms", Shape::EpochMilliseconds),
            rule("/time", Shape::Rfc3339),
            rule("/date", Shape::HttpDate),
            rule("", Shape::JwtExp),
        ];
        let token = jwt(r#"{"exp":1700000100}"#);
        assert_eq!(seconds(&rules, r#"{"expires_in":3600}"#, &token), Some(100.0));
        assert_eq!(seconds(&rules, r#"{"on":"1700000050"}"#, &token), Some(50.0));
        assert_eq!(seconds(&rules, r#"{"ms":1700000040000}"#, &token), Some(40.0));
        assert_eq!(seconds(&rules, r#"{"time":"2023-11-14T22:13:50Z"}"#, &token), Some(30.0));
        let date = r#"{"date":"Tue, 14 Nov 2023 22:13:40 GMT"}"#;
        assert_eq!(seconds(&rules, date, &token), Some(20.0));
    }

    #[test]
    fn dates_of_http_are_read_and_what_is_none_says_nothing() {
        let date = |text: &str| {
            seconds(
                &[rule("/t", Shape::HttpDate)],
                &serde_json::json!({ "t": text }).to_string(),
                "x",
            )
        };
        assert_eq!(date("Tue, 14 Nov 2023 22:13:50 GMT"), Some(30.0));
        assert_eq!(date(" Tuesday, 14-Nov-23 22:13:50 GMT "), Some(30.0));
        assert_eq!(date("Tue Nov 14 22:13:50 2023"), Some(30.0));
        for none in
            ["", "soon", "14 Nov 2023", "2023-11-14T22:13:50Z", "Tue, 99 Nov 2023 22:13:50 GMT"]
        {
            assert_eq!(date(none), None, "{none}");
        }
        // As ASP.NET has it, on a machine whose clock is years ahead.
        let issued = Some("/.issued".to_owned());
        let rules = [
            rule("/expires_in", Shape::Seconds),
            Rule { issued, ..rule("/.expires", Shape::HttpDate) },
        ];
        let answer = r#"{"expires_in":1209599,".issued":"Mon, 14 Oct 2013 06:53:32 GMT",
            ".expires":"Mon, 28 Oct 2013 06:53:32 GMT"}"#;
        assert_eq!(seconds(&rules, answer, "x"), Some(1_209_599.0));
    }

    #[test]
    fn any_number_of_fraction_digits_is_read() {
        for time in ["22:13:50", "22:13:50.0", "22:13:50.0000000", "22:13:50.000000000123"] {
            let answer = format!("{{\"t\":\"2023-11-14T{time}Z\"}}");
            let life = seconds(&[rule("/t", Shape::Rfc3339)], &answer, "x");
            assert_eq!(life, Some(30.0), "{time}");
        }
    }

    #[test]
    fn v1_veeam_sample_lives_until_its_jwt_exp() {
        let rules = [
            rule("/expires_in", Shape::Seconds),
            Rule { issued: Some("/.issued".into()), ..rule("/.expires", Shape::Rfc3339) },
            rule("", Shape::JwtExp),
        ];
        let sample = r#"{"expires_in":3600,".issued":"2021-10-04T15:04:04.9299072Z",
            ".expires":"2021-10-04T16:04:04.9259046Z"}"#;
        let token = jwt(r#"{"iat":1633359844,"exp":1633363444}"#);
        let answer = Document::parse(sample.as_bytes()).unwrap();
        let sent = |epoch| Moment { wall: UNIX_EPOCH + Duration::from_secs(epoch), ..now() };
        let life = lifetime(&rules, &answer, &token, sent(1_633_359_844));
        assert_eq!(life, Life { lifetime: Some(Duration::from_hours(1)), skewed: false });
        let years_later = lifetime(&rules, &answer, &token, now());
        assert!(years_later.skewed, "Q16: the clocks disagree");
        let expected = Duration::from_nanos(3_599_995_997_400);
        assert_eq!(years_later.lifetime, Some(expected), ".expires - .issued is the smallest");
    }

    #[test]
    fn an_exp_in_the_past_without_any_other_word_is_no_life() {
        let token = jwt(r#"{"exp":1600000000}"#);
        assert_eq!(seconds(&[rule("", Shape::JwtExp)], "{}", &token), Some(0.0));
    }

    #[test]
    fn zero_may_mean_never() {
        let never = Rule { zero_is_never: true, ..rule("/ttl", Shape::Seconds) };
        let life = seconds(&[never], r#"{"ttl":0}"#, "x");
        assert_eq!(life, Some(MAX_LIFETIME.as_secs_f64()));
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_panics(value in ".{0,40}", token in ".{0,60}", number in any::<f64>()) {
            let rules = [
                rule("/v", Shape::Seconds), rule("/v", Shape::EpochSeconds),
                rule("/v", Shape::EpochMilliseconds), rule("/v", Shape::Rfc3339),
                rule("/v", Shape::HttpDate),
                rule("/n", Shape::Seconds), rule("/n", Shape::EpochSeconds), rule("", Shape::JwtExp),
            ];
            let answer = serde_json::json!({ "v": value, "n": number }).to_string();
            let answer = Document::parse(answer.as_bytes()).unwrap();
            let _ = lifetime(&rules, &answer, &token, now());
        }
    }
}
