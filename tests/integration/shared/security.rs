//! Who may read and write what lies there: passwords, TLS, encryption.

use super::*;

/// 32 bytes, and 32 others.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "//////////////////////////////////////////8=";

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_nothing_can_be_read_there_and_another_key_is_told_as_such() {
    let redis = Redis::start();
    let mut bed = Bed::with(redis, "");
    let key = bed.home.write("key", KEY);
    bed.options = format!("encryption_key = {{ file = \"{key}\" }}");
    let replicas = bed.replicas(2).await;
    bed.all_serve(&replicas).await;
    let held = bed.redis.held();
    assert!(held.contains("\"sealed\""), "{held}");
    for secret in [bed.idp.current_refresh_token().unwrap(), bed.tokens.latest().unwrap()] {
        assert!(!held.contains(&secret));
    }
    // A replica with another key neither reads nor writes, and says which keys differ.
    bed.home.write("other-key", OTHER_KEY);
    bed.options = bed.options.replace("/key\"", "/other-key\"");
    let stranger = bed.start();
    eventually("told", async || needs_operator(&stranger).await).await;
    let last = credential(&stranger).await["last"].to_string();
    assert!(last.contains("is encrypted with the key") && last.contains("other-key"), "{last}");
    assert!(!last.contains(OTHER_KEY) && !stranger.logs().contains(OTHER_KEY));
    assert_eq!(bed.redis.held(), held);
    // The right key in that file, and it goes on.
    bed.home.write("other-key", KEY);
    stranger.ready().await;
    bed.all_serve(std::slice::from_ref(&stranger)).await;
    assert_eq!(bed.idp.token_requests(), 1);
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_read_from_its_file_and_a_wrong_one_is_told_and_mended() {
    let redis = Redis::start_with(&[
        "--user",
        "sidecar",
        "on",
        ">tolkienish",
        "~bearerd:*",
        "&bearerd:*",
        "+hmget",
        "+hget",
        "+hset",
        "+eval",
        "+publish",
        "+subscribe",
        "+hello",
        "+select",
        "--user",
        "default",
        "on",
        "nopass",
        "~*",
        "&*",
        "+@all",
    ]);
    let mut bed = Bed::with(redis, "");
    let password = bed.home.write("password", "wrong-canary");
    bed.options = format!("password = {{ file = \"{password}\" }}");
    let store = bed.redis.url().replace("redis://", "redis://sidecar@");
    let replica = Daemon::start_with(&bed.home, &bed.config_at(&store));
    eventually("told", async || needs_operator(&replica).await).await;
    let last = credential(&replica).await["last"].to_string();
    assert!(last.contains("check the user, the password and the ACL"), "{last}");
    assert_eq!(bed.idp.token_requests(), 0, "it fetched on its own");
    bed.home.write("password", "tolkienish");
    replica.ready().await;
    bed.all_serve(std::slice::from_ref(&replica)).await;
    for secret in ["tolkienish", "wrong-canary"] {
        assert!(!replica.logs().contains(secret), "the password is in the logs");
    }
    bed.unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_verified_and_one_that_cannot_be_is_not_spoken_to() {
    let home = Home::new();
    let name = vec!["127.0.0.1".to_owned()];
    let signed = rcgen::generate_simple_self_signed(name.clone()).unwrap();
    let certificate = home.write("redis.pem", &signed.cert.pem());
    let key = home.write("redis.key", &signed.signing_key.serialize_pem());
    let other = rcgen::generate_simple_self_signed(name).unwrap().cert.pem();
    let (wrong, right) = (home.write("other.pem", &other), certificate.clone());
    let port = free_port();
    let redis = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ]);
    let mut bed = Bed::with(redis, "");
    let store = format!("rediss://127.0.0.1:{port}/0");
    bed.options = format!("tls = {{ ca_file = \"{wrong}\" }}");
    let stranger = Daemon::start_with(&bed.home, &bed.config_at(&store));
    eventually("told", async || {
        credential(&stranger).await["last"].to_string().contains("TLS handshake failed")
    })
    .await;
    assert!(stranger.stop().success());
    assert_eq!(bed.idp.token_requests(), 0, "it fetched on its own");
    bed.options = format!("tls = {{ ca_file = \"{right}\" }}");
    let replica = Daemon::start_with(&bed.home, &bed.config_at(&store));
    replica.ready().await;
    bed.all_serve(std::slice::from_ref(&replica)).await;
    assert!(bed.holds_newest());
    bed.unharmed();
}
