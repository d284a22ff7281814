//! W3C trace context: bearerd takes no part in a trace, and stands in no trace's way.

use crate::stage::Stage;
use crate::support::request;

#[tokio::test(flavor = "multi_thread")]
async fn trace_context_and_baggage_pass_untouched_also_at_a_replay() {
    const CONTEXT: [(&str, &str); 3] = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("baggage", "userId=alice,isProduction=false"),
    ];
    let stage = Stage::new();
    let daemon = stage.ready("").await;
    stage.tokens.revoke_all();
    let answer = request(daemon.proxy, "GET", "/orders", &CONTEXT, b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = stage.api.requests();
    assert_eq!(requests.len(), 2, "refused, and sent again");
    for request in requests {
        let head = String::from_utf8(request.raw_head.clone()).expect("ASCII");
        for (name, value) in CONTEXT {
            let line = format!("{name}: {value}\r\n");
            assert_eq!(head.to_ascii_lowercase().matches(name).count(), 1, "{head}");
            assert!(head.contains(&line), "{head}");
        }
    }
}
