//! One entry of a log file (`TIME STREAM F|P TEXT`), and what a client wants to see of it. Pure.

use jiff::Timestamp;
use std::collections::VecDeque;

/// One entry; `whole` tells the end of a line from a part of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    time: Timestamp,
    stream: &'a str,
    whole: bool,
    text: &'a [u8],
}

/// Reads one line of a log file, without its end; `None` when it is none.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let mut field = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    let (time, stream, tag) = (field()?.parse().ok()?, field()?, field()?);
    // Tags after the first are for future use.
    let whole = match tag.split(':').next()? {
        "F" => true,
        "P" => false,
        _ => return None,
    };
    Some(Entry { time, stream, whole, text: fields.next()? })
}

/// What a client wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only so many lines at the end of what is there.
    pub tail: Option<usize>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// No more bytes.
    pub limit: Option<u64>,
    /// One stream only.
    pub stream: Option<&'static str>,
}

/// Turns entries into the client's text.
pub struct Printer {
    wanted: Wanted,
    /// The last entry ended its line.
    at_start: bool,
}

impl Printer {
    /// For one request.
    pub const fn new(wanted: Wanted) -> Self {
        Self { wanted, at_start: true }
    }

    /// How many lines at the end are wanted.
    pub const fn tail(&self) -> Option<usize> {
        self.wanted.tail
    }

    /// Whether the client got as many bytes as it wants.
    pub fn is_full(&self) -> bool {
        self.wanted.limit == Some(0)
    }

    fn wants(&self, entry: &Entry<'_>) -> bool {
        self.wanted.since.is_none_or(|since| entry.time >= since)
            && self.wanted.stream.is_none_or(|stream| entry.stream == stream)
    }

    /// Appends what the client gets of one line of the file.
    pub fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = parse(line).filter(|entry| self.wants(entry)) else { return };
        let from = out.len();
        if self.wanted.timestamps && self.at_start {
            out.extend(entry.time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string().as_bytes());
        }
        out.extend(entry.text);
        if entry.whole {
            out.push(b'\n');
        }
        self.at_start = entry.whole;
        if let Some(left) = &mut self.wanted.limit {
            let room = usize::try_from(*left).unwrap_or(usize::MAX);
            out.truncate(from.saturating_add(room));
            *left -= (out.len() - from) as u64;
        }
    }
}

/// Finds where the last lines begin, from offsets of the file's entries in order.
pub struct Tail<'a> {
    printer: &'a Printer,
    most: usize,
    starts: VecDeque<u64>,
    at_start: bool,
}

impl<'a> Tail<'a> {
    /// The last `most` lines that the printer wants.
    pub const fn new(printer: &'a Printer, most: usize) -> Self {
        Self { printer, most, starts: VecDeque::new(), at_start: true }
    }

    /// Takes in one line of the file, which begins at `offset`.
    pub fn see(&mut self, offset: u64, line: &[u8]) {
        let Some(entry) = parse(line).filter(|entry| self.printer.wants(entry)) else { return };
        if self.at_start {
            self.starts.push_back(offset);
            if self.starts.len() > self.most {
                self.starts.pop_front();
            }
        }
        self.at_start = entry.whole;
    }

    /// Where they begin; `end` is where the file ends.
    pub fn start(&self, end: u64) -> u64 {
        self.starts.front().copied().unwrap_or(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[&str] = &[
        "2026-01-01T00:00:01.5Z stdout F one",
        "2026-01-01T00:00:02Z stderr F two",
        "2026-01-01T00:00:03Z stdout P thr",
        "2026-01-01T00:00:03.1Z stdout F ee",
        "no entry at all",
        "2026-01-01T00:00:04Z stdout F ",
        "2026-01-01T00:00:05Z stdout F five six",
    ];

    fn printed(wanted: Wanted) -> String {
        let mut printer = Printer::new(wanted);
        let mut skipped = 0;
        if let Some(most) = printer.tail() {
            let mut tail = Tail::new(&printer, most);
            for (at, line) in FILE.iter().enumerate() {
                tail.see(at as u64, line.as_bytes());
            }
            skipped = usize::try_from(tail.start(FILE.len() as u64)).unwrap();
        }
        let mut out = Vec::new();
        FILE[skipped..].iter().for_each(|line| printer.print(line.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_client_gets_the_lines_it_wants() {
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        let plain = Wanted::default;
        let rows = [
            (plain(), "one\ntwo\nthree\n\nfive six\n"),
            (Wanted { stream: Some("stderr"), ..plain() }, "two\n"),
            (Wanted { since, ..plain() }, "three\n\nfive six\n"),
            (Wanted { tail: Some(3), ..plain() }, "three\n\nfive six\n"),
            (Wanted { tail: Some(0), ..plain() }, ""),
            (Wanted { tail: Some(99), ..plain() }, "one\ntwo\nthree\n\nfive six\n"),
            (Wanted { tail: Some(1), stream: Some("stderr"), ..plain() }, "two\n"),
            (Wanted { limit: Some(6), ..plain() }, "one\ntw"),
            (Wanted { limit: Some(0), ..plain() }, ""),
            (
                Wanted { since, tail: Some(3), timestamps: true, stream: Some("stdout"), ..plain() },
                "2026-01-01T00:00:03.000000000Z three\n2026-01-01T00:00:04.000000000Z \n2026-01-01T00:00:05.000000000Z five six\n",
            ),
        ];
        for (wanted, expected) in rows {
            assert_eq!(printed(wanted.clone()), expected, "{wanted:?}");
        }
    }
}
