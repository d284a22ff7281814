//! A script: what happens to the next requests, one step each.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::http::{Exchange, Fault, Reply};
use crate::locked;

/// What happens to one request. "Commits" means that the request has its full effect: tokens are
/// issued, rotated, revoked.
#[derive(Clone, Debug)]
pub enum Step {
    /// Commits and answers.
    Normal,
    /// Waits, then commits and answers.
    Delay(Duration),
    /// Commits, then waits, then answers.
    SlowAnswer(Duration),
    /// Commits, then closes without a byte (V-E11).
    LostAnswer,
    /// Commits, answers with half the body, closes.
    Cut,
    /// Commits; the fields of this JSON object replace or join those of the JSON answer.
    With(Value),
    /// Commits; this field is taken out of the JSON answer.
    Without(String),
    /// Reads the request and never answers.
    Hang,
    /// Does not even read the body.
    Stall,
    /// Closes without a byte, nothing committed.
    Close,
    /// Resets the connection.
    Reset,
    /// Answers with bytes that are not HTTP, and closes.
    Garbage,
    /// Answers with exactly these bytes and keeps the connection open.
    Raw(Vec<u8>),
    /// A status with an empty body.
    Status(u16),
    /// A status with a web page.
    Html(u16),
    /// A status with a JSON body.
    Json(u16, Value),
    /// Any answer; made by `Step::from(reply)`.
    Reply(Box<Reply>),
    /// Commits, and gives this answer instead of the true one; made by [`Step::instead`].
    Instead(Box<Reply>),
    /// Any answer, given before the body is read; made by [`Step::early`].
    Early(Box<Reply>),
}

impl From<Reply> for Step {
    fn from(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}

impl Step {
    /// Answers before the body is read.
    pub fn early(reply: Reply) -> Self {
        Self::Early(Box::new(reply))
    }

    /// Commits, and gives another answer than the true one.
    pub fn instead(reply: Reply) -> Self {
        Self::Instead(Box::new(reply))
    }

    /// Adds a field to a step that is an answer (`Status`, `Html`, `Json`, `Reply`).
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        let reply = match self {
            Self::Status(status) => Reply::status(status),
            Self::Html(status) => Reply::html(status),
            Self::Json(status, value) => Reply::json(status, value),
            Self::Reply(reply) => *reply,
            other => panic!("{other:?} has no fields"),
        };
        Self::from(reply.header(name, value))
    }

    /// Adds `Retry-After` to a step that is an answer.
    #[must_use]
    pub fn retry_after(self, value: &str) -> Self {
        self.header("Retry-After", value)
    }

    /// The answer; `commit` is called if the step commits.
    pub(crate) async fn perform(self, commit: impl FnOnce() -> Reply + Send) -> Reply {
        match self {
            Self::Normal => commit(),
            Self::Delay(delay) => {
                tokio::time::sleep(delay).await;
                commit()
            }
            Self::SlowAnswer(delay) => commit().delay(delay),
            Self::LostAnswer => commit().with_fault(Fault::Lost),
            Self::Cut => commit().with_fault(Fault::CutHalf),
            Self::With(fields) => commit().edit_json(|answer| merge(answer, fields)),
            Self::Without(field) => commit().edit_json(|answer| {
                answer.as_object_mut().map(|fields| fields.remove(&field));
            }),
            Self::Hang => Reply::fault(Fault::Hang),
            Self::Close => Reply::fault(Fault::Lost),
            Self::Reset => Reply::fault(Fault::Reset),
            Self::Garbage => {
                Reply::fault(Fault::Garbage(b"\x16\x03\x01 not http at all\r\n\r\n".to_vec()))
            }
            Self::Raw(bytes) => Reply::fault(Fault::Raw(bytes)),
            Self::Status(status) => Reply::status(status),
            Self::Html(status) => Reply::html(status),
            Self::Json(status, value) => Reply::json(status, value),
            Self::Reply(reply) => *reply,
            Self::Instead(reply) => {
                commit();
                *reply
            }
            Self::Stall | Self::Early(_) => unreachable!("acts before the body is read"),
        }
    }

    /// The answer of a step that acts before the body is read.
    pub(crate) async fn without_body(self, exchange: &mut Exchange) -> io::Result<Reply> {
        match self {
            Self::Early(reply) => Ok(*reply),
            _ => exchange.stall().await,
        }
    }
}

/// Lets the fields of `with` replace or join those of `answer`; anything that is not two objects is
/// left alone.
pub(crate) fn merge(answer: &mut Value, with: Value) {
    if let (Value::Object(answer), Value::Object(with)) = (answer, with) {
        answer.extend(with);
    }
}

/// The steps that are still to come.
#[derive(Debug, Default)]
pub(crate) struct Script {
    steps: Mutex<VecDeque<Step>>,
    always: Mutex<Option<Step>>,
}

impl Script {
    pub(crate) fn extend(&self, steps: impl IntoIterator<Item = Step>) {
        locked(&self.steps).extend(steps);
    }

    /// The next step, or what always happens when none is left.
    pub(crate) fn next(&self) -> Step {
        let next = locked(&self.steps).pop_front();
        next.or_else(|| locked(&self.always).clone()).unwrap_or(Step::Normal)
    }

    pub(crate) fn set_always(&self, step: Option<Step>) {
        *locked(&self.always) = step;
    }

    pub(crate) fn clear(&self) {
        locked(&self.steps).clear();
    }

    pub(crate) fn len(&self) -> usize {
        locked(&self.steps).len()
    }
}
