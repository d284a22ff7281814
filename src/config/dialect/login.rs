//! `[login]`: how a person signs in.

use super::request::template;
use crate::config::reader::{Item, Section};
use crate::source::dialect::Exchange;
use crate::source::dialect::login::{CodeLogin, DeviceLogin, Login, SecondStep};
use crate::source::template::Template;

pub(super) fn login(item: &Item<'_>, exchanges: &[Exchange]) -> Option<Login> {
    let section = item.section()?;
    let issuer = section.take("issuer").map_or(Some(None), |item| template(&item).map(Some));
    let code = section.take("code").map_or(Some(None), |i| code(&i, exchanges).map(Some));
    let device = section.take("device").map_or(Some(None), |i| device(&i, exchanges).map(Some));
    let second_step =
        section.take("second_step").map_or(Some(None), |i| second_step(&i, exchanges).map(Some));
    section.finish();
    let login = Login { issuer: issuer?, code: code?, device: device?, second_step: second_step? };
    if login.exchanges().next().is_none() {
        item.wrong("has no way to sign in; write login.code, login.device or login.second_step");
        return None;
    }
    Some(login)
}

fn code(item: &Item<'_>, exchanges: &[Exchange]) -> Option<CodeLogin> {
    let section = item.section()?;
    let url = section.require("url", "url = \"{authorization_url}\"").and_then(|i| template(&i));
    let query = section
        .take("query")
        .map_or(Some(Vec::new()), |item| item.items().iter().map(pair).collect::<Option<Vec<_>>>());
    let exchanges = named(&section, "exchange", exchanges);
    section.finish();
    Some(CodeLogin { url: url?, query: query?, exchanges: exchanges? })
}

fn device(item: &Item<'_>, exchanges: &[Exchange]) -> Option<DeviceLogin> {
    let section = item.section()?;
    let start = named(&section, "start", exchanges);
    let exchanges = named(&section, "exchange", exchanges);
    section.finish();
    Some(DeviceLogin { start: start?, exchanges: exchanges? })
}

fn second_step(item: &Item<'_>, exchanges: &[Exchange]) -> Option<SecondStep> {
    let section = item.section()?;
    let first = named(&section, "first", exchanges);
    let token = section.require("token", "token = \"/mfa_token\"").and_then(|item| item.text());
    let exchanges = named(&section, "exchange", exchanges);
    section.finish();
    Some(SecondStep { first: first?, token: token?, exchanges: exchanges? })
}

fn pair(item: &Item<'_>) -> Option<(String, Template)> {
    let pair = item.items();
    let [name, value] = pair.as_slice() else {
        item.wrong("is no pair; write [\"name\", \"value or {key}\"]");
        return None;
    };
    Some((name.text()?, template(value)?))
}

fn named(section: &Section<'_>, key: &str, exchanges: &[Exchange]) -> Option<Vec<Exchange>> {
    let item = section.require(key, &format!("{key} = [\"NAME\"]"))?;
    item.items().iter().map(|item| super::named(item, exchanges)).collect()
}
