//! A browser as far as signing in needs one: redirects, cookies, forms.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use emulator::client::{Answer, Client};

use crate::support::DEADLINE;

/// A browser with its cookies.
#[derive(Default)]
pub struct Browser {
    /// By origin.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
    /// Where it is.
    pub url: String,
}

impl Browser {
    /// Opens `url` and follows redirects.
    pub async fn open(&mut self, url: &str) -> Answer {
        self.go("GET", url, "").await
    }

    /// Fills in the form on the page and sends it: its hidden fields, and these.
    pub async fn submit(&mut self, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        let text = page.text();
        let form = text.split("<form").nth(1).unwrap_or_else(|| panic!("no form in {text}"));
        let form = form.split("</form>").next().unwrap_or_default();
        let mut body = form_urlencoded::Serializer::new(String::new());
        for input in form.split("<input").skip(1) {
            let (name, value) = (attribute(input, "name"), attribute(input, "value"));
            let filled_in = fields.iter().find(|(field, _)| Some(*field) == name.as_deref());
            match (name, filled_in) {
                (Some(name), Some((_, value))) => drop(body.append_pair(&name, value)),
                (Some(name), None) => drop(body.append_pair(&name, &value.unwrap_or_default())),
                _ => {}
            }
        }
        let action = attribute(form, "action").expect("an action");
        let url = self.absolute(&action);
        self.go("POST", &url, &body.finish()).await
    }

    async fn go(&mut self, method: &str, url: &str, body: &str) -> Answer {
        let (mut method, mut url, mut body) = (method, url.to_owned(), body);
        for _ in 0..20 {
            let rest = url.strip_prefix("http://").expect("http://").to_owned();
            let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let jar = self.cookies.entry(authority.to_owned()).or_default();
            let pairs = jar.iter().map(|(name, value)| format!("{name}={value}"));
            let cookies = pairs.collect::<Vec<_>>().join("; ");
            let mut headers = Vec::new();
            if !cookies.is_empty() {
                headers.push(("Cookie", cookies.as_str()));
            }
            if method == "POST" {
                headers.push(("Content-Type", "application/x-www-form-urlencoded"));
            }
            let target = if target.starts_with('/') { target } else { &format!("/{target}") };
            let answer = send(authority, method, target, &headers, body).await;
            for (name, value) in &answer.head {
                if name.eq_ignore_ascii_case("set-cookie") {
                    let pair = value.split(';').next().unwrap_or_default();
                    let (name, value) = pair.split_once('=').expect("a cookie");
                    let jar = self.cookies.entry(authority.to_owned()).or_default();
                    jar.insert(name.to_owned(), value.to_owned());
                }
            }
            self.url.clone_from(&url);
            let Some(next) = answer.header("location").filter(|_| answer.status / 100 == 3) else {
                return answer;
            };
            (method, url, body) = ("GET", self.absolute(next), "");
        }
        panic!("too many redirects: {url}");
    }

    fn absolute(&self, url: &str) -> String {
        if url.starts_with("http") {
            return url.to_owned();
        }
        self.url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/") + url
    }
}

/// One request, to the host as the address has it; everything here is on loopback.
async fn send(
    authority: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let address: SocketAddr =
        authority.replace("localhost", "127.0.0.1").parse().expect("an address with a port");
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let bytes = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let exchange = async {
        let mut client = Client::connect(address).await?;
        client.send(bytes.as_bytes()).await?;
        client.answer().await
    };
    let answer = tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time");
    answer.expect("an answer")
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let tag = tag.split('>').next()?;
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    Some(value.replace("&amp;", "&"))
}
