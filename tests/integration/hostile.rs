//! People who try: ambiguous messages in both directions, frames that no honest program sends, web
//! pages, crowds and slow callers. Nobody else gets the token, nobody gets another's answer, and
//! whoever is honest is served meanwhile.

mod answers;
mod answers_http2;
mod callers;
mod conformance;
mod crowds;
mod crowds_http2;
mod floods;
pub mod frames;
mod limits;
mod readers;
mod recorder;
mod requests;
mod slow;
mod smuggling;
