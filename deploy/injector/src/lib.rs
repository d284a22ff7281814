//! bearerd-injector: a mutating admission webhook that puts bearerd into the pods that ask for it.
//!
//! A program of its own, so that the sidecar, of which there are many, carries none of it. What both
//! need (TLS, dialling, logs, clocks) is bearerd's library.
//!
//! # Map
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`review`] | an `AdmissionReview` of any version, and the answer to it |
//! | [`decision`] | whether this pod gets a sidecar: unchanged, injected or refused, and why |
//! | [`settings`] | what the pod's annotations ask for |
//! | [`sidecar`] | the container and its volumes, as in `deploy/kubernetes/sidecar.yaml` |
//! | [`pod`] | reading a pod, and writing the sidecar into it |
//! | [`version`] | whether the cluster knows native sidecars |
//! | [`webhook`], [`admin`] | what the API server asks; health and metrics |
//! | [`certificate`] | the certificate, read again when it changes |
//! | [`metrics`] | what is counted |
//! | [`check`] | asks a running injector as an API server does |
//! | [`call`] | one request by HTTPS |
//! | [`server`], [`cli`] | the composition root, the command line |
//!
//! A decision is a pure function of the review, the defaults and the cluster's version. It is
//! idempotent: a pod that has been through it comes out as it went in, so it may be invoked again
//! after other webhooks.

pub mod admin;
pub mod call;
pub mod certificate;
pub mod check;
pub mod cli;
pub mod decision;
pub mod metrics;
pub mod pod;
pub mod review;
pub mod server;
pub mod settings;
pub mod sidecar;
pub mod version;
pub mod webhook;
