//! Reading TOML so that every mistake is told with its line, its path and what to write instead.
//!
//! A [`Section`] is one table. Its accessors take keys out one by one and record problems instead
//! of failing, so that one run tells all mistakes; what is left at [`Section::finish`] is unknown.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

mod secrets;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// 1 for the first line; 0 if it belongs to no line.
    pub line: usize,
    /// `credentials.orders.client_secret.file`; empty for a mistake in the TOML itself.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The file being read and the mistakes found in it so far.
pub(super) struct Reader<'t> {
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Reader<'t> {
    /// Parses `text` and hands out its root table.
    ///
    /// # Errors
    /// The text is no TOML.
    pub(super) fn parse<T>(
        text: &'t str,
        read: impl FnOnce(Section<'_>) -> Option<T>,
    ) -> Result<T, Vec<Problem>> {
        let reader = Rc::new(Reader { text, problems: RefCell::default() });
        let value = match DeTable::parse(text) {
            Ok(table) => {
                let root = Section::new(&reader, String::new(), 1, table.get_ref());
                read(root)
            }
            Err(error) => {
                let line = error.span().map_or(0, |span| reader.line(span.start));
                let place = error.span().and_then(|span| text.get(span)).unwrap_or_default();
                let message = match error.message().trim().replace('\n', ", ") {
                    twice if twice == "duplicate key" => {
                        format!("`{place}` stands here for the second time; write it once")
                    }
                    other => other,
                };
                reader.problem(line, String::new(), message);
                None
            }
        };
        let mut problems = reader.problems.take();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                problems.sort_by_key(|problem| problem.line);
                // A value may be looked at more than once.
                let mut told = Vec::new();
                problems.retain(|problem| {
                    let new = !told.contains(problem);
                    told.push(problem.clone());
                    new
                });
                Err(problems)
            }
        }
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    fn problem(&self, line: usize, path: String, message: String) {
        let (path, message) = (printable(path), printable(message));
        self.problems.borrow_mut().push(Problem { line, path, message });
    }
}

/// What a file quotes back must not steer a terminal or break a log line.
fn printable(text: String) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    if !text.contains(steers) {
        return text;
    }
    let escaped = |c: char| if steers(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// One value with its place.
#[derive(Clone)]
pub(super) struct Item<'a> {
    reader: Rc<Reader<'a>>,
    path: String,
    line: usize,
    value: &'a DeValue<'a>,
}

/// One table, whose keys are taken out one by one.
pub(super) struct Section<'a> {
    reader: Rc<Reader<'a>>,
    path: String,
    line: usize,
    table: &'a DeTable<'a>,
    known: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    fn new(reader: &Rc<Reader<'a>>, path: String, line: usize, table: &'a DeTable<'a>) -> Self {
        Self { reader: Rc::clone(reader), path, line, table, known: RefCell::default() }
    }

    /// Whether `key` is written; it is not known thereby.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// The value of `key`, which is known from now on.
    pub(super) fn take(&self, key: &str) -> Option<Item<'a>> {
        self.known.borrow_mut().push(key.to_owned());
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(self.item(name, value))
    }

    /// All entries, whatever their keys: for tables whose keys the user names.
    pub(super) fn entries(&self) -> Vec<(String, Item<'a>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        entries
            .into_iter()
            .map(|(name, value)| {
                self.known.borrow_mut().push(name.get_ref().to_string());
                (name.get_ref().to_string(), self.item(name, value))
            })
            .collect()
    }

    fn item(
        &self,
        name: &Spanned<std::borrow::Cow<'a, str>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Item<'a> {
        let line = self.reader.line(name.span().start);
        let path = self.join(name.get_ref());
        Item { reader: Rc::clone(&self.reader), path, line, value: value.get_ref() }
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// As [`Section::take`], and a problem if the key is not there.
    pub(super) fn require(&self, key: &str, write: &str) -> Option<Item<'a>> {
        let item = self.take(key);
        if item.is_none() {
            self.reader.problem(self.line, self.join(key), format!("missing; write {write}"));
        }
        item
    }

    /// Records a mistake about the table as a whole.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.reader.problem(self.line, self.path.clone(), message.into());
    }

    /// Everything not taken is a mistake; true if there was one.
    pub(super) fn finish(self) -> bool {
        let known = self.known.borrow();
        let mut unknown = false;
        for (name, value) in self.table {
            let key = name.get_ref();
            if !known.iter().any(|k| k == key) {
                let item = self.item(name, value);
                let message = match nearest(key, &known) {
                    Some(near) => format!("unknown key; did you mean `{near}`?"),
                    None => format!("unknown key; known here: {}", list(&known)),
                };
                item.wrong(message);
                unknown = true;
            }
        }
        unknown
    }
}

impl<'a> Item<'a> {
    /// Records a mistake about this value.
    pub(super) fn wrong(&self, message: impl Into<String>) {
        self.reader.problem(self.line, self.path.clone(), message.into());
    }

    fn expected(&self, what: &str) {
        self.wrong(format!("is {}; write {what}", article(self.value.type_str())));
    }

    /// Text.
    pub(super) fn text(&self) -> Option<String> {
        let text = self.value.as_str();
        if text.is_none() {
            self.expected("a string in quotes");
        }
        text.map(str::to_owned)
    }

    /// `true` or `false`.
    pub(super) fn bool(&self) -> Option<bool> {
        let bool = self.value.as_bool();
        if bool.is_none() {
            self.expected("true or false");
        }
        bool
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let wanted = if range.start() == range.end() {
            range.start().to_string()
        } else {
            format!("a whole number from {} to {}", range.start(), range.end())
        };
        let Some(integer) = self.value.as_integer() else {
            self.expected(&wanted);
            return None;
        };
        let digits = integer.as_str().replace('_', "");
        match i128::from_str_radix(&digits, integer.radix()) {
            Ok(number)
                if range.contains(&u64::try_from(number).unwrap_or(u64::MAX)) && number >= 0 =>
            {
                u64::try_from(number).ok()
            }
            _ => {
                self.wrong(format!("is {digits}; write {wanted}"));
                None
            }
        }
    }

    /// A list, or a single value in place of one.
    pub(super) fn items(&self) -> Vec<Item<'a>> {
        let Some(array) = self.value.as_array() else {
            return vec![self.clone()];
        };
        let child = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Item {
            reader: Rc::clone(&self.reader),
            path: format!("{}[{index}]", self.path),
            line: self.reader.line(value.span().start),
            value: value.get_ref(),
        };
        array.iter().enumerate().map(child).collect()
    }

    /// What `read` makes of each of [`Item::items`]; all of them are read, so that every mistake is told.
    pub(super) fn each<T>(&self, read: impl FnMut(&Item<'a>) -> Option<T>) -> Option<Vec<T>> {
        let read: Vec<Option<T>> = self.items().iter().map(read).collect();
        read.into_iter().collect()
    }

    /// What `read` makes of each entry of a table whose keys the user names; likewise.
    pub(super) fn each_entry<T>(
        &self,
        mut read: impl FnMut(String, &Item<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let entries = self.section()?.entries();
        let read: Vec<Option<T>> =
            entries.into_iter().map(|(name, item)| read(name, &item)).collect();
        read.into_iter().collect()
    }

    /// A list of strings, or one string.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        self.each(Item::text)
    }

    /// A table.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let Some(table) = self.value.as_table() else {
            self.expected("a table, such as { key = value }");
            return None;
        };
        Some(Section::new(&self.reader, self.path.clone(), self.line, table))
    }

    /// One of `choices`, by name.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| (*name).to_owned()).collect();
            self.not_among(&text, &names);
        }
        found
    }

    /// Records that `text` is none of `names`.
    pub(super) fn not_among(&self, text: &str, names: &[String]) {
        let near = nearest(text, names).map(|near| format!(" (did you mean {near:?}?)"));
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let near = near.unwrap_or_default();
        self.wrong(format!("is {text:?}{near}; write {}", names.join(" or ")));
    }

    /// A path.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() {
            self.wrong("is empty; write a path");
            return None;
        }
        Some(PathBuf::from(text))
    }

    /// The raw value, for tables of free form.
    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value
    }
}

/// `an integer`, `a string`.
fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

fn list(names: &[String]) -> String {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    names.join(", ")
}

/// The known name that `text` is most likely a slip of, or a longer or shorter form of.
fn nearest<'n>(text: &str, names: &'n [String]) -> Option<&'n str> {
    let within = |long: &str, short: &str| short.len() >= 4 && long.contains(short);
    names
        .iter()
        .map(|name| (distance(text, name), name.as_str()))
        .filter(|(distance, name)| {
            *distance <= 2.min(name.len() / 2) || within(text, name) || within(name, text)
        })
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance, on bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let names = ["client_secret".to_owned(), "scope".to_owned(), "host".to_owned()];
        assert_eq!(nearest("client_secrt", &names), Some("client_secret"));
        assert_eq!(nearest("hots", &names), Some("host"));
        assert_eq!(nearest("hostname", &names), Some("host"));
        assert_eq!(nearest("audience", &names), None);
    }
}
