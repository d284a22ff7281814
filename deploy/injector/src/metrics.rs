//! What the injector counts; labels are from closed sets.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// What came of a review; the `outcome` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pod got a sidecar, or what a sidecar's pod still lacked.
    Injected,
    /// There was nothing to do.
    Unchanged,
    /// It asks for a sidecar and cannot have one.
    Refused,
    /// It was no review, or came too slowly, or too large.
    Unreadable,
    /// The cluster's version is not known yet.
    NotReady,
}

impl Outcome {
    const ALL: [Self; 5] =
        [Self::Injected, Self::Unchanged, Self::Refused, Self::Unreadable, Self::NotReady];

    fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::NotReady => "not_ready",
        }
    }
}

/// Every series of the process.
pub struct Metrics {
    registry: Registry,
    reviews: IntCounterVec,
    duration: Histogram,
    reloads: IntCounterVec,
    stale: IntGauge,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// A name is not a metric name, or stands twice.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let reviews = IntCounterVec::new(
            Opts::new("bearerd_injector_reviews_total", "Admission reviews, by outcome."),
            &["outcome"],
        )?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "bearerd_injector_review_duration_seconds",
                "From a review's head to its answer.",
            )
            .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
        )?;
        let reloads = IntCounterVec::new(
            Opts::new(
                "bearerd_injector_certificate_reloads_total",
                "Certificates that were put in place while the injector ran.",
            ),
            &["outcome"],
        )?;
        let stale = IntGauge::new(
            "bearerd_injector_certificate_stale",
            "1 while the certificate on disk cannot be used and the former one is.",
        )?;
        let build =
            IntGaugeVec::new(Opts::new("bearerd_injector_build_info", "Always 1."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // From 0 on: Prometheus sees no increase in a series that begins with 1.
        for outcome in Outcome::ALL {
            reviews.with_label_values(&[outcome.as_str()]);
        }
        for outcome in ["ok", "failed"] {
            reloads.with_label_values(&[outcome]);
        }
        registry.register(Box::new(reviews.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(stale.clone()))?;
        registry.register(Box::new(build))?;
        Ok(Self { registry, reviews, duration, reloads, stale })
    }

    /// A review was answered after `took`.
    pub fn reviewed(&self, outcome: Outcome, took: Duration) {
        self.reviews.with_label_values(&[outcome.as_str()]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A new certificate was put in place, and can be used or not.
    pub fn certificate(&self, usable: bool) {
        self.reloads.with_label_values(&[if usable { "ok" } else { "failed" }]).inc();
        self.stale.set(i64::from(!usable));
    }

    /// The text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to memory fails only for a metric without samples, which gather leaves out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}
