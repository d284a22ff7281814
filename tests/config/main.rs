//! Every kind of mistake in a configuration, with the whole message that a person gets to read:
//! where it is, what is wrong, what to write instead. And every sample that the documentation
//! shows, which must be free of mistakes.

mod assertions;
mod credentials;
mod dialects;
mod example;
mod exchanges;
mod fallbacks;
mod limits;
mod logins;
mod mistakes;
mod programs;
mod routes;
mod samples;
mod secrets;
mod server;
mod stores;
mod support;
mod syntax;
mod tls;
