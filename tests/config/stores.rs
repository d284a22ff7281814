//! `store`: one file, one owner.

use insta::assert_snapshot;

use crate::support::told;

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
      line 22: credentials.two.store: is the store of credentials.one already; write a file of its own
    ");
}
