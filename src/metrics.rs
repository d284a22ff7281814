//! Prometheus metrics, with every label resolved to a handle before the first request.
//!
//! Labels come from the configuration or from closed sets only, so that nobody outside can make
//! series. Recording costs a few atomic additions; nothing is looked up per request.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// From half a millisecond to ten seconds.
const REQUEST_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From five milliseconds to the deadline of a token request.
const FETCH_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Why a token is fetched, and what comes of it: the closed sets behind the labels.
const FETCH_TRIGGERS: [&str; 4] = ["startup", "scheduled", "unauthorized", "changed"];
const FETCH_OUTCOMES: [&str; 3] = ["ok", "transient", "terminal"];

/// Every series of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGaugeVec,
    refused: IntCounterVec,
    replays: IntCounterVec,
    fetches: IntCounterVec,
    fetch_duration: HistogramVec,
    expiry: GaugeVec,
    generation: IntGaugeVec,
    wait: HistogramVec,
    store_writes: IntCounterVec,
    store_unsynced: IntGaugeVec,
    needs_operator: IntGaugeVec,
    login: IntGaugeVec,
    adopted: IntCounterVec,
    reloads: IntCounterVec,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// A name is not a metric name, or stands twice.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, HistogramVec::new(options, labels))
        };
        let (needs_operator, login) = for_a_person(&registry)?;
        let metrics = Self {
            requests: counter(
                "bearerd_requests_total",
                "Requests answered, by route and status code.",
                &["route", "code"],
            )?,
            duration: histogram(
                "bearerd_request_duration_seconds",
                "From a request's head to the end of its response.",
                &["route"],
                &REQUEST_BUCKETS,
            )?,
            in_flight: gauge(
                "bearerd_requests_in_flight",
                "Requests that have begun and not ended.",
                &["route"],
            )?,
            refused: counter(
                "bearerd_refused_total",
                "Requests that bearerd answered itself, by reason.",
                &["reason"],
            )?,
            replays: counter(
                "bearerd_replays_total",
                "Requests whose token the upstream refused, by what came of it.",
                &["route", "outcome"],
            )?,
            fetches: counter(
                "bearerd_token_fetches_total",
                "Attempts to obtain a token, by cause and outcome.",
                &["credential", "trigger", "outcome"],
            )?,
            fetch_duration: histogram(
                "bearerd_token_fetch_duration_seconds",
                "How long attempts to obtain a token took.",
                &["credential"],
                &FETCH_BUCKETS,
            )?,
            expiry: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "bearerd_token_expiry_timestamp_seconds",
                        "When the current token expires; 0 before the first.",
                    ),
                    &["credential"],
                ),
            )?,
            generation: gauge(
                "bearerd_token_generation",
                "How many tokens have been put in force.",
                &["credential"],
            )?,
            wait: histogram(
                "bearerd_token_wait_seconds",
                "How long requests waited for a token, those that had to.",
                &["credential"],
                &FETCH_BUCKETS,
            )?,
            store_writes: counter(
                "bearerd_store_writes_total",
                "Writes of a refresh token to its store.",
                &["credential", "outcome"],
            )?,
            store_unsynced: gauge(
                "bearerd_store_unsynced",
                "1 while the newest refresh token is in memory only.",
                &["credential"],
            )?,
            needs_operator,
            login,
            adopted: counter(
                "bearerd_tokens_adopted_total",
                "Tokens that another process had fetched and shared.",
                &["credential"],
            )?,
            reloads: counter(
                "bearerd_config_reloads_total",
                "Reloads of the configuration.",
                &["outcome"],
            )?,
            registry,
        };
        metrics.begin()?;
        Ok(metrics)
    }

    /// What stands there from the start.
    fn begin(&self) -> prometheus::Result<()> {
        let options = Opts::new("bearerd_build_info", "Always 1.");
        let build = register(&self.registry, IntGaugeVec::new(options, &["version"]))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // From 0 on: Prometheus sees no increase in a series that begins with 1.
        for outcome in ["ok", "failed"] {
            self.reloads.with_label_values(&[outcome]);
        }
        Ok(())
    }

    /// The text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to memory fails only for a metric without samples, which gather leaves out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    /// The handles of one route.
    #[must_use]
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let replays = ReplayOutcome::ALL
            .map(|outcome| self.replays.with_label_values(&[name, outcome.as_str()]));
        Arc::new(RouteMetrics {
            name: name.to_owned(),
            requests: self.requests.clone(),
            by_code: [const { OnceLock::new() }; 500],
            duration: self.duration.with_label_values(&[name]),
            in_flight: self.in_flight.with_label_values(&[name]),
            replays,
        })
    }

    /// The handles of one credential.
    #[must_use]
    pub fn credential(&self, name: &str) -> Arc<CredentialMetrics> {
        let writes = |outcome| self.store_writes.with_label_values(&[name, outcome]);
        for labels in FETCH_TRIGGERS.iter().flat_map(|t| FETCH_OUTCOMES.map(|o| [name, *t, o])) {
            self.fetches.with_label_values(&labels);
        }
        Arc::new(CredentialMetrics {
            name: name.to_owned(),
            fetches: self.fetches.clone(),
            fetch_duration: self.fetch_duration.with_label_values(&[name]),
            expiry: self.expiry.with_label_values(&[name]),
            generation: self.generation.with_label_values(&[name]),
            wait: self.wait.with_label_values(&[name]),
            written: writes("ok"),
            not_written: writes("failed"),
            unsynced: self.store_unsynced.with_label_values(&[name]),
            needs_operator: self.needs_operator.with_label_values(&[name]),
            adopted: self.adopted.with_label_values(&[name]),
        })
    }

    /// Ends the gauges of a credential that is configured no more: what they said last would be told,
    /// and alerted on, for ever.
    pub fn forget(&self, name: &str) {
        // An error means that there was none.
        let _ = self.expiry.remove_label_values(&[name]);
        let _ = self.generation.remove_label_values(&[name]);
        let _ = self.store_unsynced.remove_label_values(&[name]);
        let _ = self.needs_operator.remove_label_values(&[name]);
    }

    /// Tells by which command a person signs in, for each credential where one can; for no other.
    pub fn logins<'c>(&self, commands: impl Iterator<Item = (&'c str, String)>) {
        self.login.reset();
        for (credential, command) in commands {
            self.login.with_label_values(&[credential, command.as_str()]).set(1);
        }
    }

    /// A refusal's counter; `reason` is from a closed set.
    #[must_use]
    pub fn refused(&self, reason: &str) -> IntCounter {
        self.refused.with_label_values(&[reason])
    }

    /// Counts a reload.
    pub fn reloaded(&self, ok: bool) {
        self.reloads.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
    }
}

/// Whether a person is needed, and what that person does.
fn for_a_person(registry: &Registry) -> prometheus::Result<(IntGaugeVec, IntGaugeVec)> {
    let needed = Opts::new(
        "bearerd_needs_operator",
        "1 while only a person can help, usually by: bearerd login --config FILE CREDENTIAL; \
         bearerd_login_info has the whole command.",
    );
    let command = Opts::new(
        "bearerd_login_info",
        "Always 1: the command by which a person signs in, where one can.",
    );
    let needed = register(registry, IntGaugeVec::new(needed, &["credential"]))?;
    Ok((needed, register(registry, IntGaugeVec::new(command, &["credential", "command"]))?))
}

fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> prometheus::Result<M> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// What came of a refused token; the `outcome` label of `replays_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// The replay got another answer.
    Succeeded,
    /// The replay was refused too.
    Unauthorized,
    /// The request's body was too large to keep.
    BodyTooLarge,
    /// The request cannot be sent twice, or its second sending came to no answer.
    NotReplayable,
    /// No newer token came in time.
    TokenUnavailable,
}

impl ReplayOutcome {
    const ALL: [Self; 5] = [
        Self::Succeeded,
        Self::Unauthorized,
        Self::BodyTooLarge,
        Self::NotReplayable,
        Self::TokenUnavailable,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Unauthorized => "unauthorized",
            Self::BodyTooLarge => "body_too_large",
            Self::NotReplayable => "not_replayable",
            Self::TokenUnavailable => "token_unavailable",
        }
    }
}

/// The handles of one route.
pub struct RouteMetrics {
    name: String,
    requests: IntCounterVec,
    /// One counter a status from 100 to 599, made when the status first occurs.
    by_code: [OnceLock<IntCounter>; 500],
    duration: Histogram,
    in_flight: IntGauge,
    replays: [IntCounter; 5],
}

impl RouteMetrics {
    /// The route's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A request begins.
    pub fn begin(&self) {
        self.in_flight.inc();
    }

    /// It ended with `code` after `took`.
    pub fn end(&self, code: u16, took: Duration) {
        self.in_flight.dec();
        self.duration.observe(took.as_secs_f64());
        // Others exist (RFC 9110 §15), but an upstream must not choose labels.
        let code = code.clamp(100, 599);
        let index = usize::from(code - 100);
        let new = || self.requests.with_label_values(&[&self.name, &code.to_string()]);
        self.by_code[index].get_or_init(new).inc();
    }

    /// Its token was refused, and this came of it.
    pub fn replayed(&self, outcome: ReplayOutcome) {
        self.replays[outcome as usize].inc();
    }

    /// Status code and count of every status that occurred, and how many are under way.
    #[must_use]
    pub fn counts(&self) -> (Vec<(u16, u64)>, i64) {
        let codes = (100u16..).zip(&self.by_code);
        let seen = codes.filter_map(|(code, counter)| Some((code, counter.get()?.get())));
        (seen.collect(), self.in_flight.get())
    }
}

/// The handles of one credential.
pub struct CredentialMetrics {
    name: String,
    fetches: IntCounterVec,
    fetch_duration: Histogram,
    expiry: Gauge,
    generation: IntGauge,
    wait: Histogram,
    written: IntCounter,
    not_written: IntCounter,
    unsynced: IntGauge,
    needs_operator: IntGauge,
    adopted: IntCounter,
}

impl CredentialMetrics {
    /// An attempt ended; both words are from closed sets.
    pub fn fetched(&self, trigger: &str, outcome: &str, took: Duration) {
        self.fetches.with_label_values(&[self.name.as_str(), trigger, outcome]).inc();
        self.fetch_duration.observe(took.as_secs_f64());
    }

    /// A token was put in force that expires `expiry` seconds after the epoch.
    #[allow(clippy::cast_precision_loss)]
    pub fn published(&self, expiry: u64, generation: u64) {
        self.expiry.set(expiry as f64);
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// Only a person can help, or not any more.
    pub fn needs_operator(&self, needed: bool) {
        self.needs_operator.set(i64::from(needed));
    }

    /// A token was taken over that another process had fetched.
    pub fn adopted(&self) {
        self.adopted.inc();
    }

    /// A request waited for a token.
    pub fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    /// The store was written, or not.
    pub fn store_write(&self, ok: bool, unsynced: bool) {
        if ok { &self.written } else { &self.not_written }.inc();
        self.unsynced.set(i64::from(unsynced));
    }
}
