//! A form body kept beside its raw spelling, and the check of a request against a documented list
//! of parameters.

/// `application/x-www-form-urlencoded`, in order.
#[derive(Clone, Debug, Default)]
pub struct Form {
    pairs: Vec<Pair>,
}

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name as sent, still encoded.
    pub raw_name: String,
    /// Value as sent, still encoded.
    pub raw_value: String,
    /// Decoded value.
    pub value: String,
}

/// Why a form is not the documented one. Carries the parameter's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FormFault {
    /// A byte that should have been encoded, or a pair without `=`.
    Encoding,
    /// Not sent, or empty.
    Missing(String),
    /// Sent more than once.
    Repeated(String),
    /// Not a documented parameter.
    Unknown(String),
    /// All there, but not in the documented order.
    Order,
}

impl Form {
    /// Reads bytes; nothing is refused here.
    pub fn parse(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = form_urlencoded::parse(pair.as_bytes())
                .next()
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default();
            Pair { raw_name: raw_name.to_owned(), raw_value: raw_value.to_owned(), value }
        });
        Self { pairs: pairs.collect() }
    }

    /// The parameters in order.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Names in order, as sent.
    pub fn names(&self) -> Vec<&str> {
        self.pairs.iter().map(|pair| pair.raw_name.as_str()).collect()
    }

    /// Decoded value of the first parameter of that exact name; an empty one counts as not sent.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|pair| pair.raw_name == name)
            .map(|pair| pair.value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// A name sent twice.
    pub fn repeated(&self) -> Option<&str> {
        let names = self.names();
        (1..names.len()).find(|&i| names[..i].contains(&names[i])).map(|i| names[i])
    }

    /// Compares with the documented parameters, in their order. An optional one is written `name?`.
    pub(crate) fn check(&self, documented: &[&str], ordered: bool) -> Result<(), FormFault> {
        self.check_encoding()?;
        if let Some(name) = self.repeated() {
            return Err(FormFault::Repeated(name.to_owned()));
        }
        let bare = |name: &&str| name.trim_end_matches('?').to_owned();
        let known: Vec<String> = documented.iter().map(bare).collect();
        for name in documented.iter().filter(|name| !name.ends_with('?')) {
            if self.value(name).is_none() {
                return Err(FormFault::Missing((*name).to_owned()));
            }
        }
        if let Some(name) = self.names().iter().find(|name| !known.iter().any(|k| k == *name)) {
            return Err(FormFault::Unknown((*name).to_owned()));
        }
        let in_order: Vec<&str> =
            known.iter().map(String::as_str).filter(|name| self.names().contains(name)).collect();
        match ordered && in_order != self.names() {
            true => Err(FormFault::Order),
            false => Ok(()),
        }
    }

    /// Whether every byte is one that the form encoding leaves (WHATWG URL, urlencoded serializing;
    /// `~` too, which older encoders leave).
    fn check_encoding(&self) -> Result<(), FormFault> {
        let plain =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"*-._~+%".contains(&b));
        let encoded = |pair: &Pair| plain(&pair.raw_name) && plain(&pair.raw_value);
        self.pairs.iter().all(encoded).then_some(()).ok_or(FormFault::Encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_with_form_characters_are_decoded() {
        let form = Form::parse(b"api_token=a%2Bb%26c%3Dd+e&x=");
        assert_eq!(form.value("api_token"), Some("a+b&c=d e"));
        assert_eq!(form.value("x"), None);
        assert_eq!(form.names(), ["api_token", "x"]);
    }

    #[test]
    fn a_form_is_compared_by_name_count_and_order() {
        let documented = ["a", "b?", "c"];
        let check = |body: &str| Form::parse(body.as_bytes()).check(&documented, true);
        assert_eq!(check("a=1&c=2"), Ok(()));
        assert_eq!(check("a=1&b=3&c=2"), Ok(()));
        assert_eq!(check("c=1&a=2"), Err(FormFault::Order));
        assert_eq!(check("a=1"), Err(FormFault::Missing("c".into())));
        assert_eq!(check("a=1&c="), Err(FormFault::Missing("c".into())));
        assert_eq!(check("a=1&c=2&a=3"), Err(FormFault::Repeated("a".into())));
        assert_eq!(check("a=1&c=2&d=3"), Err(FormFault::Unknown("d".into())));
        assert_eq!(check("a=1&c=x/y"), Err(FormFault::Encoding));
    }
}
