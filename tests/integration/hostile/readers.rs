//! Seven readers of HTTP/1.1 that differ where real ones do. What goes upstream must be the same
//! requests to all of them, whoever the upstream is.

/// Which framing a reader believes where a message has several.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    TransferEncoding,
    FirstLength,
    LastLength,
}

/// What ends a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    CrLf,
    /// A lone LF, too.
    Lf,
    /// A lone CR, too.
    Cr,
}

/// How a reader reads.
#[derive(Clone, Copy)]
pub struct Reader {
    pub name: &'static str,
    framing: Framing,
    ends: Ends,
    /// `_` is `-` in names, and what is no letter, digit or `-` is not there; numbers end where
    /// they stop being numbers; any coding with "chunk" in it is chunked.
    sloppy: bool,
    /// A line that begins with a space goes on with the one before.
    folds: bool,
}

const STRICT: Reader = Reader {
    name: "Transfer-Encoding wins",
    framing: Framing::TransferEncoding,
    ends: Ends::CrLf,
    sloppy: false,
    folds: false,
};

/// All of them; the first one is as strict as RFC 9112 has it.
pub const READERS: [Reader; 7] = [
    STRICT,
    Reader { name: "first Content-Length", framing: Framing::FirstLength, ..STRICT },
    Reader { name: "last Content-Length", framing: Framing::LastLength, ..STRICT },
    Reader { name: "bare LF", ends: Ends::Lf, ..STRICT },
    Reader { name: "bare CR", ends: Ends::Cr, ..STRICT },
    Reader { name: "sloppy names and numbers", sloppy: true, ends: Ends::Lf, ..STRICT },
    Reader { name: "folded lines", folds: true, ..STRICT },
];

/// One request as a reader understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    /// Names in lowercase.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    /// The same with names as the sloppiest reader has them, to be compared with what that reads.
    fn loosely(self) -> Self {
        let loose = |(name, value): (String, String)| (sloppy(&name), value);
        Self { fields: self.fields.into_iter().map(loose).collect(), ..self }
    }

    /// The values of a field.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// A name without what some servers do not see.
fn sloppy(name: &str) -> String {
    let seen = name.chars().map(|c| if c == '_' { '-' } else { c });
    seen.filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

/// Every whole request, and how many bytes are left behind the last one.
type Read = Result<(Vec<Message>, usize), String>;

/// What each reader makes of `bytes`, by its name.
pub fn readings(bytes: &[u8]) -> [(&'static str, Read); 7] {
    READERS.map(|reader| {
        let read = reader.all(bytes);
        let loose = |(messages, left): (Vec<Message>, usize)| {
            (messages.into_iter().map(Message::loosely).collect(), left)
        };
        (reader.name, read.map(loose))
    })
}

impl Reader {
    /// All of `bytes`.
    pub fn all(&self, bytes: &[u8]) -> Read {
        let (mut messages, mut at) = (Vec::new(), 0);
        while let Some((message, length)) = self.one(&bytes[at..])? {
            messages.push(message);
            at += length;
        }
        Ok((messages, bytes.len() - at))
    }

    /// The first request in `bytes` and its length; `None` until all of it is there.
    pub fn one(&self, bytes: &[u8]) -> Result<Option<(Message, usize)>, String> {
        let mut at = 0;
        let Some(start) = self.line(bytes, &mut at) else { return Ok(None) };
        let parts: Vec<&str> = start.splitn(3, ' ').collect();
        let [method, target, _] = parts[..] else { return Err(format!("no request: {start:?}")) };
        let Some(fields) = self.fields(bytes, &mut at)? else { return Ok(None) };
        let mut message =
            Message { method: method.into(), target: target.into(), fields, body: Vec::new() };
        let whole = match self.length(&message)? {
            Some(length) => {
                let body = bytes.get(at..at + length);
                message.body = body.unwrap_or_default().to_vec();
                at += length;
                body.is_some()
            }
            None => self.chunks(bytes, &mut at, &mut message.body)?,
        };
        Ok(whole.then_some((message, at)))
    }

    /// The line at `at`, without its end.
    fn line(&self, bytes: &[u8], at: &mut usize) -> Option<String> {
        let rest = &bytes[*at..];
        let end = (0..rest.len()).find_map(|n| match rest[n] {
            b'\r' if rest.get(n + 1) == Some(&b'\n') => Some((n, n + 2)),
            b'\r' if self.ends == Ends::Cr && n + 1 < rest.len() => Some((n, n + 1)),
            b'\n' if self.ends != Ends::CrLf => Some((n, n + 1)),
            _ => None,
        });
        let (end, next) = end?;
        *at += next;
        Some(rest[..end].iter().map(|byte| char::from(*byte)).collect())
    }

    fn fields(
        &self,
        bytes: &[u8],
        at: &mut usize,
    ) -> Result<Option<Vec<(String, String)>>, String> {
        let mut fields: Vec<(String, String)> = Vec::new();
        loop {
            let Some(line) = self.line(bytes, at) else { return Ok(None) };
            if line.is_empty() {
                return Ok(Some(fields));
            }
            if let Some((_, value)) = fields.last_mut().filter(|_| self.folds)
                && line.starts_with([' ', '\t'])
            {
                *value = format!("{value} {}", line.trim());
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(format!("no field: {line:?}"))?;
            let mut name = name.to_ascii_lowercase();
            if self.sloppy {
                name = sloppy(&name);
            }
            fields.push((name, value.trim().to_owned()));
        }
    }

    /// The body's length; `None` if it is in chunks.
    fn length(&self, message: &Message) -> Result<Option<usize>, String> {
        let lengths = message.values("content-length");
        let chunked = message.values("transfer-encoding").iter().any(|coding| {
            let coding = coding.to_ascii_lowercase();
            if self.sloppy { coding.contains("chunk") } else { coding.ends_with("chunked") }
        });
        let length = match self.framing {
            Framing::LastLength => lengths.last(),
            Framing::TransferEncoding | Framing::FirstLength => lengths.first(),
        };
        match (length, chunked) {
            (_, true) if self.framing == Framing::TransferEncoding => Ok(None),
            (None, true) => Ok(None),
            (None, false) => Ok(Some(0)),
            (Some(length), _) => self.number(length, 10).map(Some),
        }
    }

    fn number(&self, text: &str, radix: u32) -> Result<usize, String> {
        let digits: String = match self.sloppy {
            true => text.trim().chars().take_while(|c| c.is_digit(radix)).collect(),
            false => text.to_owned(),
        };
        usize::from_str_radix(&digits, radix).map_err(|_| format!("no number: {text:?}"))
    }

    /// True if the last chunk and the trailers have come.
    fn chunks(&self, bytes: &[u8], at: &mut usize, body: &mut Vec<u8>) -> Result<bool, String> {
        loop {
            let Some(size) = self.line(bytes, at) else { return Ok(false) };
            let size = self.number(size.split(';').next().unwrap_or_default().trim(), 16)?;
            if size == 0 {
                return Ok(self.fields(bytes, at)?.is_some());
            }
            let Some(data) = bytes.get(*at..*at + size) else { return Ok(false) };
            body.extend(data);
            *at += size;
            match self.line(bytes, at).as_deref() {
                None => return Ok(false),
                Some("") => {}
                Some(more) => return Err(format!("behind a chunk: {more:?}")),
            }
        }
    }
}

/// The readers themselves: where messages are ambiguous, they do differ.
#[test]
fn the_readers_differ_where_messages_are_ambiguous() {
    let host = "Host: x\r\n";
    for ambiguous in [
        format!(
            "POST / HTTP/1.1\r\n{host}Content-Length: 5\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        format!("GET / HTTP/1.1\r\n{host}X: a\nContent-Length: 5\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}X: a\rY: b\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Content_Length: 2\r\n\r\nab"),
        format!("GET / HTTP/1.1\r\n{host}X: a\r\n Content-Length: 2\r\n\r\nab"),
    ] {
        let told = READERS.map(|reader| reader.all(ambiguous.as_bytes()));
        assert!(told.iter().any(|other| *other != told[0]), "{ambiguous:?}");
    }
    let plain = format!(
        "GET /a HTTP/1.1\r\n{host}\r\nPOST /b HTTP/1.1\r\n{host}Content-Length: 2\r\n\r\nab"
    );
    let told = READERS.map(|reader| reader.all(plain.as_bytes()));
    assert!(told.iter().all(|other| *other == told[0] && other.is_ok()));
}
