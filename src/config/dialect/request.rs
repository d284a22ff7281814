//! What an exchange sends.

use http::{HeaderName, Method};
use toml::de::DeValue;

use crate::config::reader::{Item, Section};
use crate::source::dialect::{Basic, Body, Json};
use crate::source::template::Template;

pub(super) fn method(item: &Item<'_>) -> Option<Method> {
    let methods = ["GET", "POST", "PUT", "DELETE"].map(|name| (name, name));
    let name = item.choice(&methods)?;
    Method::from_bytes(name.as_bytes()).ok()
}

pub(super) fn template(item: &Item<'_>) -> Option<Template> {
    Template::parse(&item.text()?).map_err(|problem| item.wrong(problem)).ok()
}

pub(super) fn headers(item: &Item<'_>) -> Option<Vec<(HeaderName, Template)>> {
    item.each_entry(|name, item| {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            item.wrong("is no header name; write one such as \"x-api-key\"");
            return None;
        };
        Some((parsed, template(item)?))
    })
}

pub(super) fn pairs_of_text(item: &Item<'_>) -> Option<Vec<(String, String)>> {
    item.each_entry(|key, item| Some((key, item.text()?)))
}

pub(super) fn body(section: &Section<'_>) -> Option<Body> {
    match (section.take("form"), section.take("json")) {
        (Some(_), Some(json)) => {
            json.wrong("stands beside a form; write only one of them");
            None
        }
        (Some(form), None) => form.each(form_pair).map(Body::Form),
        (None, Some(item)) => json(&item).map(Body::Json),
        (None, None) => Some(Body::Empty),
    }
}

fn form_pair(item: &Item<'_>) -> Option<(String, Template)> {
    let pair = item.items();
    let [name, value] = pair.as_slice() else {
        item.wrong("is no pair; write [\"name\", \"value or {key}\"]");
        return None;
    };
    Some((name.text()?, template(value)?))
}

/// `basic`, or `basic_raw` for servers that do not decode.
#[allow(clippy::option_option)] // none, and wrong
pub(super) fn basic(section: &Section<'_>) -> Option<Option<Basic>> {
    let (encoded, raw) = (section.take("basic"), section.take("basic_raw"));
    if let (Some(_), Some(raw)) = (&encoded, &raw) {
        raw.wrong("stands beside basic; write only one of them");
        return None;
    }
    let is_encoded = encoded.is_some();
    let Some(item) = encoded.or(raw) else { return Some(None) };
    let (user, password) = user_and_password(&item)?;
    Some(Some(Basic { user, password, encoded: is_encoded }))
}

fn user_and_password(item: &Item<'_>) -> Option<(Template, Template)> {
    let pair = item.items();
    let [user, password] = pair.as_slice() else {
        item.wrong("is no pair; write [\"{client_id}\", \"{client_secret}\"]");
        return None;
    };
    Some((template(user)?, template(password)?))
}

fn json(item: &Item<'_>) -> Option<Json> {
    Some(match item.value() {
        DeValue::String(_) => Json::Text(template(item)?),
        DeValue::Boolean(value) => Json::Plain((*value).into()),
        DeValue::Integer(number) => {
            Json::Plain(number.as_str().parse::<i64>().map(Into::into).unwrap_or_default())
        }
        DeValue::Array(_) => Json::List(item.each(json)?),
        DeValue::Table(_) => Json::Object(item.each_entry(|key, item| Some((key, json(item)?)))?),
        DeValue::Float(_) | DeValue::Datetime(_) => {
            item.wrong("cannot stand in a request; write it as a string");
            return None;
        }
    })
}
