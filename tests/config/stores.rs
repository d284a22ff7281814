//! `store`: one file, one owner.

use insta::assert_snapshot;

use crate::support::{Home, changed, told};

#[test]
fn two_credentials_with_one_store() {
    assert_snapshot!(told(
        "[[routes]]",
        "[credentials.one]\ntoken_url = \"https://idp.example/token\"\ngrant = \"refresh_token\"\n\
         client_id = \"one\"\nclient_auth = \"none\"\nstore = \"file:HOME/one.json\"\n\
         [credentials.two]\ntoken_url = \"https://idp.example/token\"\ngrant = \"refresh_token\"\n\
         client_id = \"two\"\nclient_auth = \"none\"\nstore = \"file:HOME/one.json\"\n\
         [[routes]]"
    ), @"
    1 problem in HOME/bearerd.toml:
      line 22: credentials.two.store: is the store of credentials.one already; write one of its own
    ");
}

#[test]
fn two_credentials_with_one_refresh_token() {
    let home = Home::new();
    let credential = |name: &str, provider: &str, file: &str| {
        home.write(file, "first");
        format!(
            "[credentials.{name}]\n{provider}\nclient_id = \"c\"\n\
             refresh_token = {{ file = \"HOME/{file}\" }}\nstore = \"file:HOME/{name}.json\"\n"
        )
    };
    let plain = "token_url = \"https://idp.example/token\"\ngrant = \"refresh_token\"\nclient_auth = \"none\"";
    let max = "provider = \"servicemax-max\"\nhost = \"max.example\"";
    let all = [
        credential("a", plain, "one"),
        credential("b", plain, "other"),
        credential("c", plain, "one"),
        // Theirs are not replaced.
        credential("d", max, "third"),
        credential("e", max, "third"),
    ];
    let config = home.load(&changed("[[routes]]", &(all.concat() + "[[routes]]"))).expect("valid");
    assert_snapshot!(config.warnings.join("\n"), @"credentials.c: begins with the refresh token of credentials.a: an identity provider that replaces it at each use ends both; give each one of its own");
}

/// What is said about these lines of a credential that keeps a refresh token.
fn with_store(lines: &str) -> String {
    told(
        "[[routes]]",
        &format!(
            "[credentials.c]\ntoken_url = \"https://idp.example/token\"\n\
             grant = \"refresh_token\"\nclient_id = \"c\"\nclient_auth = \"none\"\n{lines}\n\
             [[routes]]"
        ),
    )
}

#[test]
fn what_is_no_store() {
    assert_snapshot!(with_store("store = \"sqlite:/tmp/x\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 16: credentials.c.store: is no store; write "file:/absolute/path.json", "redis://HOST:6379/0", "rediss://HOST:6379/0" or "kubernetes:NAMESPACE/SECRET"
    "#);
    assert_snapshot!(with_store("store = \"redis://127.0.0.1/first\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 16: credentials.c.store: names no database by its number; write "redis://HOST:6379/0", or "rediss://…" for TLS
    "#);
    assert_snapshot!(with_store("store = \"redis://user:word@127.0.0.1\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 16: credentials.c.store: holds a password; take it out and write store_options = { password = { file = … } }
    "#);
    assert_snapshot!(with_store("store = \"redis://redis.example\""), @r#"
    1 problem in HOME/bearerd.toml:
      line 16: credentials.c.store: would send tokens in plaintext over a network; write rediss://, or allow_plaintext = true in store_options if the network itself is trusted
    "#);
}

#[test]
fn what_is_no_secret_of_kubernetes() {
    for names in ["tokens", "shop/", "/tokens", "Shop/tokens", "shop/to kens", "a/b/c", "shop/-t"] {
        let said = with_store(&format!("store = \"kubernetes:{names}\""));
        assert!(
            said.contains("store: names no Secret; write \"kubernetes:NAMESPACE/SECRET\""),
            "{said}"
        );
    }
}

#[test]
fn options_that_do_not_fit_the_store() {
    assert_snapshot!(with_store("store_options = { deadline_seconds = 5 }"), @r#"
    1 problem in HOME/bearerd.toml:
      line 16: credentials.c.store_options: is of no use without a store; write store = "redis://HOST:6379/0"
    "#);
    assert_snapshot!(
        with_store("store = \"file:HOME/c.json\"\nstore_options = { deadline_seconds = 5 }"), @r#"
    1 problem in HOME/bearerd.toml:
      line 17: credentials.c.store_options: is for stores that several processes share; take it out
    "#);
    assert_snapshot!(
        with_store("store = \"redis://127.0.0.1\"\nstore_options = { deadline_seconds = 1 }"), @r#"
    1 problem in HOME/bearerd.toml:
      line 17: credentials.c.store_options.deadline_seconds: is 1; write a whole number from 2 to 300
    "#);
    assert_snapshot!(
        with_store("store = \"redis://127.0.0.1\"\nstore_options = { tls = {} }"), @r#"
    1 problem in HOME/bearerd.toml:
      line 17: credentials.c.store_options.tls: is of no use with redis://; write rediss:// for TLS
    "#);
    assert_snapshot!(
        with_store("store = \"redis://127.0.0.1\"\nstore_options = { kye = \"orders\" }"), @r#"
    1 problem in HOME/bearerd.toml:
      line 17: credentials.c.store_options.kye: unknown key; known here: allow_plaintext, deadline_seconds, encryption_key, key, password, tls
    "#);
}

#[test]
fn what_is_no_key() {
    assert_snapshot!(with_store(
        "store = \"redis://127.0.0.1\"\nstore_options = { encryption_key = { file = \"HOME/secret\" } }"
    ), @r#"
    1 problem in HOME/bearerd.toml:
      line 17: credentials.c.store_options.encryption_key: HOME/secret holds no key: write 32 random bytes in base64 (openssl rand -base64 32)
    "#);
}

#[test]
fn tokens_that_are_bound_to_one_process() {
    let lines = "dpop = true\nstore = \"redis://127.0.0.1\"";
    assert_snapshot!(told("client_secret =", &format!("{lines}\nclient_secret =")), @r#"
    1 problem in HOME/bearerd.toml:
      line 5: credentials.orders: has dpop and a store that others share: its tokens are bound to a key of one process; write store = "file:/absolute/path.json"
    "#);
}

#[test]
fn two_credentials_with_one_key() {
    let options = "store_options = { key = \"one\" }";
    let credential = |name: &str| {
        format!(
            "[credentials.{name}]\ntoken_url = \"https://idp.example/token\"\n\
         grant = \"refresh_token\"\nclient_id = \"{name}\"\nclient_auth = \"none\"\n\
         store = \"redis://127.0.0.1:6379/0\"\n{options}\n"
        )
    };
    let both = credential("a") + &credential("b") + "[[routes]]";
    assert_snapshot!(told("[[routes]]", &both), @r#"
    1 problem in HOME/bearerd.toml:
      line 23: credentials.b.store: is the store of credentials.a already; write one of its own
    "#);
}

#[test]
fn a_token_that_others_use_too_is_not_revoked() {
    assert_snapshot!(with_store(
        "store = \"redis://127.0.0.1\"\nrevocation_url = \"https://idp.example/revoke\"\n\
         revoke_on_shutdown = true"
    ), @"
    1 problem in HOME/bearerd.toml:
      line 11: credentials.c: has revoke_on_shutdown and a store that others share: they use the same access token; leave revoke_on_shutdown out
    ");
}
