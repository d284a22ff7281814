//! Device authorization grant (RFC 8628): the person enters a code on any device, while the token
//! endpoint is asked at the server's pace.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::terminal::{say, shown};
use super::{LoginError, Terms, keep};
use crate::clock::Moment;
use crate::secret::Secret;
use crate::source::answer::Answer;
use crate::source::dialect::login::DeviceLogin;
use crate::source::json::Document;
use crate::source::speaker::login::SignIn;
use crate::source::{Class, Fetched};

/// §3.2: if the server does not say.
const INTERVAL: Duration = Duration::from_secs(5);
/// The slowest pace.
const MAX_INTERVAL: Duration = Duration::from_mins(1);
/// §3.5.
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// How long a code is good if the server does not say, and at most.
const LIFE: Duration = Duration::from_mins(15);
const MAX_LIFE: Duration = Duration::from_hours(1);

pub(super) async fn sign_in(
    sign_in: &SignIn,
    way: &DeviceLogin,
    terms: &Terms<'_>,
) -> Result<(), LoginError> {
    let mut params = sign_in.audience();
    params.extend(terms.config.authorization_params.iter().cloned());
    let (exchange, answer, now) = sign_in.send(&way.start, &[], Some(&params)).await?;
    let Some(begun) = Begun::read(&answer) else {
        // What says no is told as such; what says yes in another form is not understood.
        return Err(match sign_in.read(exchange, &answer, now) {
            Err(error) if answer.status >= 300 => error.into(),
            _ => LoginError::Malformed,
        });
    };
    say(&begun.instructions(terms.name));
    let deadline = Moment::now().mono + begun.life;
    let polling = poll(sign_in, way, &begun, deadline);
    let fetched = timeout_at(deadline, polling).await.map_err(|_| LoginError::TooLate)??;
    keep(&fetched, terms).await?;
    say("Signed in.");
    Ok(())
}

/// The answer to the device authorization request (§3.2).
struct Begun {
    device_code: Secret,
    user_code: String,
    page: String,
    page_with_code: Option<String>,
    life: Duration,
    interval: Duration,
}

impl Begun {
    fn read(answer: &Answer) -> Option<Self> {
        let document = Document::parse(&answer.body).filter(|_| answer.status == 200)?;
        let text = |pointer: &str| document.text(pointer).and_then(shown).map(str::to_owned);
        let url = |pointer: &str| text(pointer).filter(|url| is_web(url));
        let seconds = |pointer: &str| {
            let value = document.at(pointer)?;
            let seconds = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
            Some(Duration::from_secs(seconds))
        };
        Some(Self {
            device_code: Secret::new(document.text("/device_code")?.to_owned()),
            user_code: text("/user_code")?,
            // Google's own word for it is older than the RFC.
            page: url("/verification_uri").or_else(|| url("/verification_url"))?,
            page_with_code: url("/verification_uri_complete"),
            life: seconds("/expires_in").unwrap_or(LIFE).min(MAX_LIFE),
            interval: seconds("/interval").unwrap_or(INTERVAL),
        })
    }

    fn instructions(&self, name: &str) -> String {
        let Self { user_code, page, .. } = self;
        let minutes = self.life.as_secs().div_ceil(60);
        let directly = self.page_with_code.as_ref().map_or_else(String::new, |url| {
            format!("\nOr open this page, and check that it shows the same code:\n\n    {url}\n")
        });
        format!(
            "To sign in for the credential {name}, open this page on any device:\n\n    {page}\n\n\
             and enter this code:\n\n    {user_code}\n{directly}\n\
             Waiting for at most {minutes} min. Ctrl-C gives up."
        )
    }
}

fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

/// Asks until the person has decided (§3.4, §3.5).
async fn poll(
    sign_in: &SignIn,
    way: &DeviceLogin,
    begun: &Begun,
    deadline: Instant,
) -> Result<Fetched, LoginError> {
    let mut pace = Pace::new(begun.interval);
    loop {
        sleep(pace.0).await;
        let made = [("device_code", begun.device_code.expose())];
        let (exchange, answer, now) = match sign_in.send(&way.exchanges, &made, None).await {
            Ok(sent) => sent,
            Err(error) if error.class == Class::Transient => {
                pace.unreachable();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let document = Document::parse(&answer.body);
        let error = document.as_ref().and_then(|document| document.text("/error"));
        match error {
            Some("authorization_pending") => debug!(pace = ?pace.0, "nobody has signed in yet"),
            Some("slow_down") => pace.slow_down(),
            Some("access_denied") => return Err(LoginError::Refused("access_denied")),
            Some("expired_token") => return Err(LoginError::TooLate),
            _ => match sign_in.read(exchange, &answer, now) {
                Ok(fetched) => return Ok(fetched),
                Err(error) if error.class == Class::Transient && Moment::now().mono < deadline => {
                    pace.unreachable();
                }
                Err(error) => return Err(error.into()),
            },
        }
    }
}

/// How long to wait between two requests.
struct Pace(Duration);

impl Pace {
    fn new(interval: Duration) -> Self {
        Self(interval.clamp(Duration::from_secs(1), MAX_INTERVAL))
    }

    /// §3.5: for this request and all that follow.
    fn slow_down(&mut self) {
        self.0 = (self.0 + SLOW_DOWN).min(MAX_INTERVAL);
    }

    /// §3.5: a server that does not answer must be asked less often.
    fn unreachable(&mut self) {
        self.0 = (self.0 * 2).min(MAX_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;

    fn begun(body: &serde_json::Value) -> Option<Begun> {
        let body = Zeroizing::new(body.to_string().into_bytes());
        Begun::read(&Answer { status: 200, headers: HeaderMap::new(), body })
    }

    #[test]
    fn the_pace_is_the_servers_and_only_gets_slower() {
        let mut pace = Pace::new(Duration::from_secs(5));
        pace.slow_down();
        assert_eq!(pace.0, Duration::from_secs(10));
        pace.slow_down();
        assert_eq!(pace.0, Duration::from_secs(15));
        pace.unreachable();
        assert_eq!(pace.0, Duration::from_secs(30));
        (0..9).for_each(|_| pace.slow_down());
        assert_eq!(pace.0, MAX_INTERVAL);
        assert_eq!(Pace::new(Duration::ZERO).0, Duration::from_secs(1), "never a storm");
        assert_eq!(Pace::new(Duration::from_secs(u64::MAX)).0, MAX_INTERVAL);
    }

    #[test]
    fn what_the_rfc_requires_is_required_and_what_it_leaves_open_has_a_default() {
        let least = json!({ "device_code": "d", "user_code": "WDJB-MJHT",
            "verification_uri": "https://idp.example/device", "expires_in": 1800 });
        let least_begun = begun(&least).unwrap();
        assert_eq!((least_begun.interval, least_begun.life.as_secs()), (INTERVAL, 1800));
        assert!(least_begun.page_with_code.is_none());
        for required in ["device_code", "user_code", "verification_uri"] {
            let mut without = least.clone();
            without.as_object_mut().unwrap().remove(required);
            assert!(begun(&without).is_none(), "{required}");
        }
        let mut google = least.clone();
        google.as_object_mut().unwrap().remove("verification_uri");
        google["verification_url"] = "https://www.google.com/device".into();
        assert_eq!(begun(&google).unwrap().page, "https://www.google.com/device");
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_that_it_would_act_on() {
        let good = json!({ "device_code": "d", "user_code": "c", "verification_uri": "https://i/",
            "verification_uri_complete": "https://i/?c", "expires_in": 1 });
        for (field, value) in [
            ("user_code", "\u{1b}[2J"),
            ("verification_uri", "https://i/\u{7}"),
            ("verification_uri", "javascript:alert(1)"),
        ] {
            let mut bad = good.clone();
            bad[field] = value.into();
            assert!(begun(&bad).is_none(), "{field}");
        }
        let mut bad = good.clone();
        bad["verification_uri_complete"] = "file:///etc/passwd".into();
        assert!(begun(&bad).unwrap().page_with_code.is_none());
    }
}
