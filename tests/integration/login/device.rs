//! The device authorization grant: instructions, pace, decisions.

use emulator::Step;
use emulator::oauth2::Decision;
use serde_json::json;

use super::{Login, assert_silent, left_there, signed_in_for, stored};
use crate::stage::Stage;
use crate::support::DEADLINE;

fn stage(more: &str) -> Stage {
    let stage = Stage::new();
    stage.home.write("bearerd.toml", &signed_in_for(&stage, more));
    stage
}

/// The code that the terminal shows.
fn user_code(login: &Login) -> String {
    let with_code = |line: &str| line.split_once("?user_code=").map(|(_, code)| code.to_owned());
    let page = format!("{}?", login.url());
    with_code(&login.line(&page)).expect("a page with the code")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_enters_the_code_anywhere_and_the_refresh_token_is_in_the_store() {
    let stage = stage("scope = \"a\"\naudience = \"https://api\"\n");
    // Without a desktop and without being asked: the way that needs none.
    let login = Login::start(&stage.home, &[]);
    assert_eq!(login.url(), format!("{}/device", stage.idp.url()));
    let code = user_code(&login);
    assert_eq!(login.line(&code), code, "on a line of its own");
    assert_eq!(login.line("Waiting"), "Waiting for at most 10 min. Ctrl-C gives up.");
    stage.idp.wait_for_token_requests(2, DEADLINE).await.expect("it asks");
    assert!(stage.idp.enter_code(&code, Decision::Approves));
    let (exit, out, errors) = login.end();
    assert_eq!(exit, 0, "{errors}");
    assert!(out.contains("\nSigned in.\nThe refresh token of c is in "), "{out}");
    assert_eq!(Some(stored(&stage.home)), stage.idp.current_refresh_token());
    assert_eq!(left_there(&stage.home), ["store.json", "store.json.lock"]);
    assert!(errors.contains("nobody has signed in yet"), "it logs everything: {errors}");
    assert_silent(&stage.idp, &stage.tokens.issued(), &[&out, &errors]);
    assert_eq!(stage.idp.violations(), Vec::<String>::new(), "never sooner than the interval");
    let begun = &stage.idp.requests()[1];
    assert_eq!(begun.path(), "/device_authorization");
    assert_eq!(begun.body_text(), "scope=a&audience=https%3A%2F%2Fapi");
    assert!(begun.has("authorization"), "the client says who it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_asked_too_often_is_asked_less_often() {
    let stage = stage("");
    let login = Login::start(&stage.home, &["--device"]);
    let code = user_code(&login);
    stage.idp.script([Step::Json(400, json!({ "error": "slow_down" }))]);
    stage.idp.wait_for_token_requests(1, DEADLINE).await.expect("it asks");
    stage.idp.expect_slower_polling();
    assert!(stage.idp.enter_code(&code, Decision::Approves));
    assert_eq!(login.end().0, 0);
    assert_eq!(stage.idp.token_requests(), 2);
    assert_eq!(stage.idp.violations(), Vec::<String>::new(), "five seconds more, RFC 8628 §3.5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_for_a_moment_is_asked_again() {
    let stage = stage("");
    stage.idp.script([Step::Status(503), Step::Close]);
    let login = Login::start(&stage.home, &["--device"]);
    let code = user_code(&login);
    assert!(stage.idp.enter_code(&code, Decision::Approves));
    let (exit, _, errors) = login.end();
    assert_eq!(exit, 0, "{errors}");
    assert_eq!(stage.idp.token_requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_and_an_end_are_told_apart() {
    for (act, told) in [
        (0, "the sign-in was refused: access_denied"),
        (1, "nobody signed in in time; start again"),
        (2, "identity provider answered 400 (bad_grant), error invalid_grant"),
    ] {
        let stage = stage("");
        let login = Login::start(&stage.home, &["--device"]);
        let code = user_code(&login);
        match act {
            0 => assert!(stage.idp.enter_code(&code, Decision::Denies)),
            1 => stage.idp.expire_codes(),
            _ => stage.idp.script([Step::Json(400, json!({ "error": "invalid_grant" }))]),
        }
        let (exit, _, errors) = login.end();
        assert!(exit == 1 && errors.contains(&format!("bearerd: {told}\n")), "{told}: {errors}");
        assert_eq!(left_there(&stage.home), Vec::<String>::new());
    }
    // Its own end, where the server never says so.
    let stage = stage("");
    stage.idp.set_device_answer(json!({ "expires_in": 1 }));
    stage.idp.set_always(Some(Step::Json(400, json!({ "error": "authorization_pending" }))));
    let (exit, _, errors) = Login::start(&stage.home, &["--device"]).end();
    assert!(exit == 1 && errors.contains("nobody signed in in time"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_is_told_and_shows_nothing() {
    for (fields, told) in [
        (json!({ "user_code": "\u{1b}[2Jcanary" }), "not in the form of RFC 8628"),
        (json!({ "verification_uri": "javascript:canary" }), "not in the form of RFC 8628"),
        (json!({ "device_code": "" }), "not in the form of RFC 8628"),
    ] {
        let stage = stage("");
        stage.idp.set_device_answer(fields);
        let (exit, out, errors) = Login::start(&stage.home, &["--device"]).end();
        assert!(exit == 1 && errors.contains(told), "{told}: {errors}");
        assert!(!format!("{out}{errors}").contains("canary"));
    }
    let stage = stage("");
    stage.home.write("secret", "wrong");
    let (exit, _, errors) = Login::start(&stage.home, &["--device"]).end();
    assert!(exit == 1 && errors.contains("401 (bad_client), error invalid_client"), "{errors}");
}
