//! Mistakes in a dialect file, by table: what is changed in a valid one, and all that is said about it,
//! with line, key and what to write instead.

use crate::dialects::{DIALECT, told};

/// What is replaced by what, and the problems that are told.
type Row = (&'static [(&'static str, &'static str)], &'static [&'static str]);

const FORM: &str = "form = [[\"key\", \"{api_key}\"]]";
const KEY: &str = "kind = \"secret\", required = true";
const URL: &str = "url = \"{host}/token\"";

const POINTERS: [Row; 6] = [
    (
        &[("access_token = \"/token\"", "access_token = \"token\"")],
        &["line 12: exchange.fetch.ok.access_token: is no JSON pointer; write \"/token\""],
    ),
    (
        &[("access_token = \"/token\"", "access_token = \"data.token\"")],
        &["line 12: exchange.fetch.ok.access_token: is no JSON pointer; write \"/data/token\""],
    ),
    (
        &[("access_token = \"/token\"", "refresh_token = \"next\"")],
        &["line 12: exchange.fetch.ok.refresh_token: is no JSON pointer; write \"/next\""],
    ),
    (
        &[("access_token = \"/token\"", "token_type = { at = \"kind\" }")],
        &["line 12: exchange.fetch.ok.token_type.at: is no JSON pointer; write \"/kind\""],
    ),
    (
        &[("at = \"/ttl\"", "at = \"ttl\"")],
        &["line 12: exchange.fetch.ok.expiry[0].at: is no JSON pointer; write \"/ttl\""],
    ),
    (
        &[("at = \"/code\"", "at = \"code\""), ("outcome", "missing = \"x\", outcome")],
        &[
            "line 13: exchange.fetch.error[0].at: is no JSON pointer; write \"/code\"",
            "line 13: exchange.fetch.error[0].missing: is no JSON pointer; write \"/x\"",
        ],
    ),
];

const EXPIRY: [Row; 4] = [
    (
        &[("as = \"seconds\"", "as = \"seconds\", issued = \"/iat\"")],
        &[
            "line 12: exchange.fetch.ok.expiry[0].issued: is only for as = \"rfc3339\" or \"http_date\"; leave it out",
        ],
    ),
    (
        &[("as = \"seconds\"", "as = \"epoch_seconds\", zero = \"never\"")],
        &["line 12: exchange.fetch.ok.expiry[0].zero: is only for as = \"seconds\"; leave it out"],
    ),
    (
        &[("as = \"seconds\"", "as = \"seconds\", zero = \"none\"")],
        &["line 12: exchange.fetch.ok.expiry[0].zero: is \"none\"; write \"unknown\" or \"never\""],
    ),
    (
        &[("at = \"/ttl\", as", "as")],
        &["line 12: exchange.fetch.ok.expiry[0].at: missing; write at = \"/expires_in\""],
    ),
];

const ERRORS: [Row; 9] = [
    (
        &[("is = \"E7\"", "is = \"E7\", has = \"E\"")],
        &[
            "line 13: exchange.fetch.error[0]: has more than one of `is`, `has` and `exists`; write only \
           one of them",
        ],
    ),
    (
        &[("is = \"E7\"", "exists = false")],
        &[
            "line 13: exchange.fetch.error[0].exists: is false; write missing = \"/pointer\" for what must \
           not be there",
        ],
    ),
    (
        &[("status = [400], at = \"/code\", is = \"E7\", ", "")],
        &[
            "line 13: exchange.fetch.error[0]: fits every answer; write status = 400, or `at` with what \
           tells an error",
        ],
    ),
    (
        &[("status = [400]", "status = \"9xx\"")],
        &[
            "line 13: exchange.fetch.error[0].status: is no class of statuses; write a number or one such \
           as \"5xx\"",
        ],
    ),
    (
        &[("status = [400]", "status = [600]")],
        &[
            "line 13: exchange.fetch.error[0].status[0]: is 600; write a whole number from 100 to 599",
        ],
    ),
    (
        &[("outcome", "reason = \"network\", outcome")],
        &["line 13: exchange.fetch.error[0].reason: is \"network\"; write \"bad_request\" or \
           \"bad_grant\" or \"bad_client\" or \"needs_operator\" or \"not_found\" or \"conflict\" or \
           \"rate_limited\" or \"server\" or \"unusable\""],
    ),
    (
        &[("outcome", "then = \"retry\", outcome")],
        &["line 13: exchange.fetch.error[0].then: is \"retry\"; write \"next\""],
    ),
    (
        &[("id = \"A1\", ", "")],
        &["line 13: exchange.fetch.error[0].id: missing; write id = \"E1\""],
    ),
    (
        &[("at = \"/code\", ", "")],
        &[
            "line 13: exchange.fetch.error[0]: needs `at` together with one of `is`, `has` and `exists`",
        ],
    ),
];

const REQUESTS: [Row; 13] = [
    (
        &[("{host}/token", "http://idp.example/token")],
        &["line 9: exchange.fetch: has a url in plaintext; write https://"],
    ),
    (
        &[("{host}/token", "http://127.0.0.1.example/token")],
        &["line 9: exchange.fetch: has a url in plaintext; write https://"],
    ),
    (
        &[("{host}/token", "idp.example/token")],
        &["line 9: exchange.fetch: has a url that does not begin with https:// or a host; write \
           \"{host}/token\""],
    ),
    (
        &[(FORM, "form = [[\"key\", \"{api_key}\"], [\"old\", \"{access_token}\"]]")],
        &[
            "line 9: exchange.fetch: obtains a token and uses {access_token}, which is there only after \
           that",
        ],
    ),
    (
        &[(URL, "url = \"{host}/token\"\nwhen = { host = \"x\" }")],
        &[
            "line 9: exchange.fetch: is sent when host is \"x\", which never holds; write another key",
        ],
    ),
    (
        &[
            ("[keys]", "[keys]\nfast = { kind = \"bool\" }"),
            (URL, "url = \"{host}/t\"\nwhen = { fast = \"yes\" }"),
        ],
        &[
            "line 10: exchange.fetch: is sent when fast is \"yes\", which never holds; write \"true\"",
        ],
    ),
    (
        &[
            ("[keys]", "[keys]\nway = { kind = \"choice\", of = [\"a\", \"b\"] }"),
            (URL, "url = \"{host}/t\"\nwhen = { way = \"c\" }"),
        ],
        &[
            "line 10: exchange.fetch: is sent when way is \"c\", which never holds; write \"a\" or \"b\"",
        ],
    ),
    (
        &[(FORM, "basic = [\"a\", \"{api_key}\"]\nbearer = \"{api_key}\"")],
        &["line 9: exchange.fetch: has basic and bearer; write only one of them"],
    ),
    (
        &[(FORM, "basic = [\"a\", \"b\"]\nbasic_raw = [\"a\", \"{api_key}\"]")],
        &["line 12: exchange.fetch.basic_raw: stands beside basic; write only one of them"],
    ),
    (
        &[(FORM, "basic = [\"{api_key}\"]")],
        &[
            "line 11: exchange.fetch.basic: is no pair; write [\"{client_id}\", \"{client_secret}\"]",
        ],
    ),
    (
        &[(URL, "url = \"{host}/token\"\nmethod = \"FETCH\"")],
        &["line 11: exchange.fetch.method: is \"FETCH\"; write \"GET\" or \"POST\" or \"PUT\" or \
           \"DELETE\""],
    ),
    (
        &[(URL, "url = \"{host}/token\"\nheaders = { \"a b\" = \"x\" }")],
        &[
            "line 11: exchange.fetch.headers.a b: is no header name; write one such as \"x-api-key\"",
        ],
    ),
    (
        &[(FORM, "json = { key = \"{api_key}\", age = 1.5 }")],
        &["line 11: exchange.fetch.json.age: cannot stand in a request; write it as a string"],
    ),
];

const FLOWS: [Row; 4] = [
    (
        &[("[exchange.fetch]", "[exchange.spare]\nurl = \"{host}/x\"\n[exchange.fetch]")],
        &["line 9: exchange.spare: is not in the flow; write it into flow.obtain, or leave it out"],
    ),
    (
        &[("obtain = [\"fetch\"]", "obtain = []")],
        &[
            "line 3: flow: obtains nothing; write obtain = [\"NAME\"]",
            "line 9: exchange.fetch: is not in the flow; write it into flow.obtain, or leave it out",
        ],
    ),
    (
        &[("obtain = [\"fetch\"]", "obtain = [\"fetch\"], renew = \"again\"")],
        &["line 3: flow.renew: is \"again\"; write \"fetch\""],
    ),
    (
        &[(URL, "url = \"{host}/token\"\nneeds = [\"apikey\"]")],
        &[
            "line 9: exchange.fetch: uses {apikey}, which is not among the [keys]; add it there, or write \
           one of host, api_key",
        ],
    ),
];

const KEYS: [Row; 6] = [
    (
        &[(KEY, "kind = \"choice\"")],
        &["line 7: keys.api_key: is a choice of nothing; write of = [\"one\", \"other\"]"],
    ),
    (
        &[(KEY, "kind = \"text\", of = [\"a\"]")],
        &["line 7: keys.api_key: has choices but is none; write kind = \"choice\""],
    ),
    (
        &[(KEY, "kind = \"choice\", of = [\"a\"], default = \"b\"")],
        &["line 7: keys.api_key: has the default \"b\", which is not in `of`; write one of them"],
    ),
    (
        &[(KEY, "kind = \"secret\", default = \"x\"")],
        &["line 7: keys.api_key: is a secret with a default; leave the default out"],
    ),
    (
        &[(KEY, "kind = \"text\", rotating = true")],
        &["line 7: keys.api_key: rotates but is no secret; write kind = \"secret\""],
    ),
    (
        &[(
            KEY,
            "kind = \"secret\", rotating = true }\nother = { kind = \"secret\", rotating = true",
        )],
        &["line 8: keys.other: rotates, as api_key does already; leave one of them out"],
    ),
];

const SIGNS: [Row; 5] = [
    (
        &[("name = \"acme\"", "name = \"acme\"\nexpired = [{ at = \"/x\", is = \"y\" }]")],
        &["line 3: expired[0].status: missing; write status = 403"],
    ),
    (
        &[("name = \"acme\"", "name = \"acme\"\nexpired = [{ status = 200 }]")],
        &[
            "line 3: expired[0]: is what every success is; write `has`, or `at` with what tells an error",
        ],
    ),
    (
        &[("name = \"acme\"", "name = \"acme\"\nexpired = [{ status = 403, at = \"/x\" }]")],
        &["line 3: expired[0]: needs `at` together with one of `is`, `has` and `exists`"],
    ),
    (
        &[(
            "name = \"acme\"",
            "name = \"acme\"\nexpired = [{ status = 403, at = \"x\", is = \"y\" }]",
        )],
        &["line 3: expired[0].at: is no JSON pointer; write \"/x\""],
    ),
    (
        &[("name = \"acme\"", "name = \"acme\"\nrotation_grace_seconds = -1")],
        &["line 3: rotation_grace_seconds: is -1; write a whole number from 0 to 86400"],
    ),
];

#[test]
fn each_mistake_in_a_dialect_is_told_with_its_line_its_key_and_what_instead() {
    let tables: [&[Row]; 7] = [&POINTERS, &EXPIRY, &ERRORS, &REQUESTS, &FLOWS, &KEYS, &SIGNS];
    for (changes, problems) in tables.into_iter().flatten() {
        let broken = changes.iter().fold(DIALECT.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "there is no {from:?} to change");
            text.replacen(from, to, 1)
        });
        let told = told(&broken);
        let lines: Vec<&str> = told.lines().skip(2).map(str::trim).collect();
        assert_eq!(lines, *problems, "{changes:?}");
    }
}
