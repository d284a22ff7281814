//! One attempt outside the loop.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::secret::SecretRef;
use crate::store::shared::memory::Memory as Register;
use crate::store::{Store, file::FileStore};

fn first(store: Option<Store>) -> Rotation {
    Rotation::new(Some(SecretRef::Value(Secret::new("first".to_owned()))), store)
}

fn setting(traits: Traits, rotation: Rotation) -> Setting {
    let answers = vec![Answer::Rotated(seconds(100.0), "second")];
    Setting { answers, traits, rotation, ..Setting::default() }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_whose_successor_could_not_be_kept_is_not_sent() {
    let rotating = Traits { rotating: true, rotation_expected: true, ..Traits::default() };
    let (refresher, script, _credential) = build(setting(rotating.clone(), first(None)));
    let told = refresher.once().await.unwrap_err().to_string();
    assert!(told.starts_with("not fetched: ") && told.contains("no store"), "{told}");
    assert_eq!(script.lock().unwrap().fetches, []);
    // With another way in that one is taken.
    let (refresher, script, _credential) =
        build(setting(Traits { fallback: true, ..rotating.clone() }, first(None)));
    refresher.once().await.unwrap();
    let fetch = script.lock().unwrap().fetches[0].clone();
    assert_eq!((fetch.refresh_token, fetch.in_doubt), (None, true));
    // What does not rotate is sent, and so is what a store keeps.
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.json");
    let stored = first(Some(Store::File(FileStore::new(path.clone()))));
    for (traits, rotation) in [(Traits::default(), first(None)), (rotating, stored)] {
        let (refresher, script, _credential) = build(setting(traits, rotation));
        refresher.once().await.unwrap();
        let fetch = script.lock().unwrap().fetches[0].clone();
        assert_eq!((fetch.refresh_token.as_deref(), fetch.in_doubt), (Some("first"), false));
    }
    assert!(std::fs::read_to_string(path).unwrap().contains("\"second\""));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_tried_again_and_the_loss_is_told() {
    for comes_back in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let (state, away) = (home.path().join("state"), home.path().join("away"));
        std::fs::create_dir(&state).unwrap();
        let path = state.join("store.json");
        let rotation = first(Some(Store::File(FileStore::new(path.clone()))));
        let traits = Traits { rotating: true, rotation_expected: true, ..Traits::default() };
        let setting = Setting { takes: SECOND, ..setting(traits, rotation) };
        let (refresher, _script, _credential) = build(setting);
        let trouble = async {
            sleep(SECOND / 2).await;
            std::fs::rename(&state, &away).unwrap();
            sleep(SECOND * 2).await;
            if comes_back {
                std::fs::rename(&away, &state).unwrap();
            }
        };
        let (result, ()) = tokio::join!(refresher.once(), trouble);
        if comes_back {
            result.unwrap();
            assert!(std::fs::read_to_string(path).unwrap().contains("\"second\""));
        } else {
            let error = result.unwrap_err();
            assert!(error.needs_operator(), "the command for a login is told");
            let told = chain(&error);
            assert!(told.contains("refresh token is lost") && told.contains("state"), "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn why_an_attempt_failed_is_told_even_if_the_others_cannot_be_told() {
    let register = Register::default();
    let setting = Setting { takes: SECOND, ..sharing::setting(&register, rotating()) };
    let (refresher, script, _credential) = build(setting);
    let refused = failure(Class::Terminal, Reason::NeedsOperator);
    script.lock().unwrap().answers = vec![refused].into();
    let trouble = async {
        while script.lock().unwrap().fetches.is_empty() {
            sleep(SECOND / 10).await;
        }
        register.down.store(true, Relaxed);
    };
    let (result, ()) = tokio::join!(refresher.once(), trouble);
    let error = result.unwrap_err();
    assert!(error.needs_operator());
    let reason = chain(&FetchError::new(Class::Terminal, Reason::NeedsOperator));
    let told = chain(&error);
    assert!(told.starts_with("what came of it could not be stored"), "{told}");
    assert!(told.ends_with(&reason), "{told}");
}
