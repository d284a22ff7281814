//! Grants, client authentication and sources that are no vendor's: what goes out to the letter, and
//! what comes of it, through the proxy.

mod assertions;
mod discovery;
mod examples;
mod exchanges;
mod exec;
mod files;
mod keys;
mod leaks;
mod manners;
mod oddities;
mod proofs;
mod refusals;
mod vault;

use std::sync::{Arc, Mutex};

use emulator::http::{Exchange, Handler, Recorded, Reply, Server, Work};
use emulator::{Form, Tls};
use serde_json::json;

/// A server that a function answers for, and what it was asked.
pub struct Told {
    server: Server,
    asked: Arc<Mutex<Vec<Arc<Recorded>>>>,
}

struct Answering<F> {
    answer: F,
    asked: Arc<Mutex<Vec<Arc<Recorded>>>>,
}

impl<F: Fn(&Recorded) -> Reply + Send + Sync + 'static> Handler for Answering<F> {
    fn handle<'a>(&'a self, exchange: &'a mut Exchange) -> Work<'a> {
        Box::pin(async move {
            let request = exchange.body().await?;
            self.asked.lock().unwrap().push(Arc::clone(&request));
            Ok((self.answer)(&request))
        })
    }
}

impl Told {
    pub fn start(answer: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let handler = Answering { answer, asked: Arc::clone(&asked) };
        Self { server: Server::start(Arc::new(handler), Tls::Off), asked }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }

    pub fn asked(&self) -> Vec<Arc<Recorded>> {
        self.asked.lock().unwrap().clone()
    }

    /// The forms that were sent.
    pub fn forms(&self) -> Vec<Form> {
        self.asked().iter().map(|request| request.form()).collect()
    }
}

/// A token answer for so many seconds.
pub fn token(token: &str, seconds: u32) -> Reply {
    let answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": seconds });
    Reply::json(200, answer)
}

/// Names and decoded values, in order.
pub fn pairs(form: &Form) -> Vec<(String, String)> {
    form.pairs().iter().map(|pair| (pair.raw_name.clone(), pair.value.clone())).collect()
}

/// The same as text, for what a test writes down.
pub fn said(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
