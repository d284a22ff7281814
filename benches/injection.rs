//! What bearerd adds to a request besides moving bytes: looking at the token, stripping the
//! caller's fields, injecting ours.

use std::hint::black_box;
use std::time::Duration;

use bearerd::clock::Moment;
use bearerd::credential::{Scheme, publish};
use bearerd::proxy::{hop, inject};
use bearerd::secret::Secret;
use bearerd::token::AccessToken;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue};

fn request(connection: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8080"));
    headers.insert(USER_AGENT, HeaderValue::from_static("bench/1"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
    headers.insert("x-request-id", HeaderValue::from_static("6d8f3bb5"));
    if connection {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, x-request-id"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer callers-own"));
    }
    headers
}

fn injection(c: &mut Criterion) {
    let (publisher, credential) = publish("bench", 1);
    let life = Duration::from_hours(1);
    let token =
        AccessToken::new(Secret::new("a".repeat(800)), Moment::now(), life).expect("visible ASCII");
    publisher.publish(&token, token.expires_at());
    let via = HeaderValue::from_static("1.1 bearerd-00000000");
    let policy = hop::Policy {
        injected: &AUTHORIZATION,
        strip_cookies: false,
        keep_forwarded: false,
        keep_client_authorization: false,
    };

    c.bench_function("look at the token", |b| {
        b.iter(|| credential.bearer(black_box(Moment::now()), &Scheme::Bearer));
    });
    for (name, connection) in [("an ordinary request", false), ("a request to strip", true)] {
        c.bench_function(&format!("strip and inject: {name}"), |b| {
            b.iter_batched(
                || request(connection),
                |mut headers| {
                    let held = credential.bearer(Moment::now(), &Scheme::Bearer);
                    let stripped = hop::strip_request(&mut headers, &policy, &via);
                    inject::inject(&mut headers, &AUTHORIZATION, held.expect("a token").value);
                    (headers, stripped)
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, injection);
criterion_main!(benches);
