//! What runs now, for programs (`/status`) and for a person (`/`).

use std::fmt::Write;
use std::time::SystemTime;

use serde::Serialize;

use super::Snapshot;
use crate::clock::Moment;
use crate::credential::{Activity, Credential, Outlook};

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    credentials: Vec<CredentialStatus<'a>>,
    routes: Vec<RouteStatus<'a>>,
}

#[derive(Serialize)]
struct CredentialStatus<'a> {
    name: &'a str,
    generation: u64,
    /// `none`, `fresh`, `due` or `expired`.
    phase: &'static str,
    expires_at: Option<String>,
    /// `fetching`, `scheduled`, `backing_off` or `refused`.
    activity: &'static str,
    next_attempt: Option<String>,
    last: Option<Last>,
}

#[derive(Serialize)]
struct Last {
    at: String,
    outcome: &'static str,
    detail: Option<String>,
    needs_operator: bool,
    /// The command by which a person mends it.
    remedy: Option<String>,
}

#[derive(Serialize)]
struct RouteStatus<'a> {
    name: &'a str,
    upstream: &'a str,
    credential: &'a str,
    in_flight: i64,
    answers: std::collections::BTreeMap<u16, u64>,
}

impl<'a> Status<'a> {
    fn of(snapshot: &'a Snapshot, now: Moment) -> Self {
        let credential = |credential: &'a Credential| CredentialStatus::of(credential, now);
        let routes = snapshot.routes.routes.iter().map(|route| {
            let (answers, in_flight) = route.metrics.counts();
            RouteStatus {
                name: &route.config.name,
                upstream: &route.config.upstream.url,
                credential: &route.config.credential,
                in_flight,
                answers: answers.into_iter().collect(),
            }
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            credentials: snapshot.credentials.iter().map(credential).collect(),
            routes: routes.collect(),
        }
    }
}

impl<'a> CredentialStatus<'a> {
    fn of(credential: &'a Credential, now: Moment) -> Self {
        let outlook = credential.outlook();
        let activity = match outlook.activity {
            Activity::Fetching => "fetching",
            Activity::Scheduled(_) => "scheduled",
            Activity::BackingOff(_) => "backing_off",
            Activity::Refused(_) => "refused",
        };
        Self {
            name: credential.name(),
            generation: outlook.generation,
            phase: phase(&outlook, now),
            expires_at: outlook.expires_at.map(|at| written(at.wall)),
            activity,
            next_attempt: outlook.activity.next_attempt().map(|at| written(at.wall)),
            last: outlook.last.map(|last| Last {
                at: written(last.at.wall),
                outcome: last.outcome,
                detail: last.detail,
                needs_operator: last.needs_operator,
                remedy: last.remedy,
            }),
        }
    }
}

fn phase(outlook: &Outlook, now: Moment) -> &'static str {
    match (outlook.expires_at, outlook.refresh_at) {
        (None, _) => "none",
        (Some(at), _) if at.reached(now) => "expired",
        (Some(_), Some(at)) if at.reached(now) => "due",
        _ => "fresh",
    }
}

/// RFC 3339, to the second.
fn written(time: SystemTime) -> String {
    let seconds = i64::try_from(crate::clock::epoch_seconds(time)).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

/// Credentials that have had no token yet.
pub(super) fn without_first_token(snapshot: &Snapshot) -> Vec<&str> {
    let without = snapshot.credentials.iter().filter(|c| c.outlook().generation == 0);
    without.map(Credential::name).collect()
}

/// Credentials that have no usable token at `now`.
pub(super) fn without_usable_token(snapshot: &Snapshot, now: Moment) -> Vec<&str> {
    // One that lapsed because nobody used it is as good: the next request wakes it, and no request
    // comes to somebody who says that he is not ready.
    let usable = |credential: &&Credential| {
        let outlook = credential.outlook();
        let lapsed = matches!(outlook.activity, Activity::Scheduled(_));
        outlook.expires_at.is_some_and(|at| lapsed || !at.reached(now))
    };
    snapshot.credentials.iter().filter(|c| !usable(c)).map(Credential::name).collect()
}

/// `/status`
pub(super) fn json(snapshot: &Snapshot, now: Moment) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(&Status::of(snapshot, now)).unwrap_or_default();
    json.push(b'\n');
    json
}

/// `/`
pub(super) fn page(snapshot: &Snapshot, now: Moment) -> String {
    let status = Status::of(snapshot, now);
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
         <title>bearerd</title><style>body{{font:15px system-ui;margin:2em;max-width:70em}}\
         table{{border-collapse:collapse;margin:1em 0}}td,th{{padding:.3em .8em;text-align:left;\
         border-bottom:1px solid #ddd}}.fresh,.due{{color:#060}}.expired,.none{{color:#a00}}</style>\
         <h1>bearerd {}</h1><p><a href=/metrics>metrics</a> · <a href=/status>status as JSON</a>\
         <h2>Credentials</h2><table><tr><th>name<th>token<th>generation<th>expires<th>next attempt\
         <th>last attempt",
        status.version
    );
    for credential in &status.credentials {
        let last = credential.last.as_ref().map_or(String::new(), |last| {
            let detail = last.detail.as_deref().unwrap_or("");
            let person = match &last.remedy {
                Some(remedy) => format!(" — a person is needed: {remedy}"),
                None if last.needs_operator => " — a person is needed".to_owned(),
                None => String::new(),
            };
            format!("{} {} {detail}{person}", last.at, last.outcome)
        });
        let _ = write!(
            page,
            "<tr><td>{}<td class={phase}>{phase}<td>{}<td>{}<td>{}<td>{}",
            escaped(credential.name),
            credential.generation,
            credential.expires_at.as_deref().unwrap_or("—"),
            credential.next_attempt.as_deref().unwrap_or("now"),
            escaped(&last),
            phase = credential.phase,
        );
    }
    page.push_str(
        "</table><h2>Routes</h2><table><tr><th>name<th>upstream<th>credential<th>in flight<th>answers",
    );
    for route in &status.routes {
        let answers: Vec<String> =
            route.answers.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}",
            escaped(route.name),
            escaped(route.upstream),
            escaped(route.credential),
            route.in_flight,
            answers.join(", "),
        );
    }
    page.push_str("</table></html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
