//! Times as Go's `time.Parse` reads RFC 3339, and what it says of a text that is none.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use std::fmt::Write;

/// How a time of whole seconds is written.
const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
/// The same with microseconds.
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// A time; `micro`: with exactly six digits behind the second.
///
/// # Errors
/// What Go says of the text.
pub(super) fn parse(text: &str, micro: bool) -> Result<Timestamp, String> {
    let layout = if micro { MICROS } else { SECONDS };
    let whole = |said: String| format!("parsing time {}{said}", quoted(text));
    Reader { rest: text }.time(micro).map_err(|wrong| match wrong {
        Wrong::At(rest, part) => {
            let (layout, rest, part) = (quoted(layout), quoted(rest), quoted(part));
            whole(format!(" as {layout}: cannot parse {rest} as {part}"))
        }
        Wrong::Range(what) => whole(format!(": {what} out of range")),
        Wrong::Extra(rest) => whole(format!(": extra text: {}", quoted(rest))),
    })
}

enum Wrong<'a> {
    /// What is left does not begin with this part of the layout.
    At(&'a str, &'static str),
    Range(&'static str),
    Extra(&'a str),
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn time(mut self, micro: bool) -> Result<Timestamp, Wrong<'a>> {
        let year = self.digits(4, "2006")?;
        let month = self.behind("-", "01", 1..=12, "month")?;
        let day = self.behind("-", "02", 1..=31, "day")?;
        // One digit will do for hours, which Go has always taken.
        self.literal("T")?;
        let hour = self.hour()?;
        let minute = self.behind(":", "04", 0..=59, "minute")?;
        let second = self.behind(":", "05", 0..=59, "second")?;
        let nanos = if micro { self.micros()? } else { self.fraction() };
        let offset = self.offset()?;
        if !self.rest.is_empty() {
            return Err(Wrong::Extra(self.rest));
        }
        let small = |number: i32| i8::try_from(number).unwrap_or_default();
        let (year, month, day) = (i16::try_from(year).unwrap_or_default(), small(month), small(day));
        let civil = DateTime::new(year, month, day, small(hour), small(minute), small(second), nanos)
            .map_err(|_| Wrong::Range("day"))?;
        offset.to_timestamp(civil).map_err(|_| Wrong::Range("year"))
    }

    fn literal(&mut self, part: &'static str) -> Result<(), Wrong<'a>> {
        self.rest = self.rest.strip_prefix(part).ok_or(Wrong::At(self.rest, part))?;
        Ok(())
    }

    /// So many digits, all of them.
    fn digits(&mut self, count: usize, part: &'static str) -> Result<i32, Wrong<'a>> {
        let text = self.rest.get(..count).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = text.and_then(|text| text.parse().ok()).ok_or(Wrong::At(self.rest, part))?;
        self.rest = &self.rest[count..];
        Ok(number)
    }

    /// A number of two digits behind a separator.
    fn behind(
        &mut self,
        separator: &'static str,
        part: &'static str,
        range: std::ops::RangeInclusive<i32>,
        what: &'static str,
    ) -> Result<i32, Wrong<'a>> {
        self.literal(separator)?;
        let number = self.digits(2, part)?;
        if range.contains(&number) { Ok(number) } else { Err(Wrong::Range(what)) }
    }

    fn hour(&mut self) -> Result<i32, Wrong<'a>> {
        let two = self.rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let hour = self.digits(if two { 2 } else { 1 }, "15")?;
        if hour < 24 { Ok(hour) } else { Err(Wrong::Range("hour")) }
    }

    fn micros(&mut self) -> Result<i32, Wrong<'a>> {
        const PART: &str = ".000000";
        let at = self.rest;
        let digits = at.strip_prefix(['.', ',']).and_then(|rest| rest.get(..6));
        let micros = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let micros: i32 = micros.and_then(|text| text.parse().ok()).ok_or(Wrong::At(at, PART))?;
        self.rest = &at[PART.len()..];
        Ok(micros * 1000)
    }

    /// Any number of digits behind a point, where they are.
    fn fraction(&mut self) -> i32 {
        let Some(rest) = self.rest.strip_prefix(['.', ',']) else { return 0 };
        let count = rest.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return 0;
        }
        self.rest = &rest[count..];
        let nanos: String = rest[..count].chars().chain("000000000".chars()).take(9).collect();
        nanos.parse().unwrap_or_default()
    }

    fn offset(&mut self) -> Result<Offset, Wrong<'a>> {
        const PART: &str = "Z07:00";
        let at = self.rest;
        if let Some(rest) = at.strip_prefix('Z') {
            self.rest = rest;
            return Ok(Offset::UTC);
        }
        let number = |range: std::ops::Range<usize>| {
            let text = at.get(range).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            text.and_then(|text| text.parse::<i32>().ok())
        };
        let sign = match at.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(Wrong::At(at, PART)),
        };
        let (Some(hours), Some(minutes), Some(":")) = (number(1..3), number(4..6), at.get(3..4)) else {
            return Err(Wrong::At(at, PART));
        };
        if hours > 24 {
            return Err(Wrong::Range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(Wrong::Range("time zone offset minute"));
        }
        self.rest = &at[6..];
        Offset::from_seconds(sign * (hours * 60 + minutes) * 60)
            .map_err(|_| Wrong::Range("time zone offset hour"))
    }
}

/// A text as Go's package time quotes it: byte by byte where it is not plain.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => drop(write!(out, "\\{}", char::from(byte))),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_refused_as_go_does() {
        let as_seconds =
            |rest: &str, part: &str| format!(" as \"{SECONDS}\": cannot parse {rest} as \"{part}\"");
        let rows = [
            ("x", false, as_seconds("\"x\"", "2006")),
            ("", false, as_seconds("\"\"", "2006")),
            ("é", false, as_seconds("\"\\xc3\\xa9\"", "2006")),
            ("2020", false, as_seconds("\"\"", "-")),
            ("2020-01-02 03:04:05Z", false, as_seconds("\" 03:04:05Z\"", "T")),
            ("2020-01-02T03:04:05", false, as_seconds("\"\"", "Z07:00")),
            ("2020-13-02T03:04:05Z", false, ": month out of range".to_owned()),
            ("2020-02-30T03:04:05Z", false, ": day out of range".to_owned()),
            ("2020-02-03T24:04:05Z", false, ": hour out of range".to_owned()),
            ("2020-01-02T03:04:05Zx", false, ": extra text: \"x\"".to_owned()),
            ("2020-01-02T03:04:05Z", true, format!(" as \"{MICROS}\": cannot parse \"Z\" as \".000000\"")),
        ];
        for (text, micro, want) in rows {
            let told = parse(text, micro).expect_err(text);
            assert_eq!(told, format!("parsing time {}{want}", quoted(text)));
        }
        let fine = [
            ("2020-01-02T03:04:05Z", false, "2020-01-02T03:04:05Z"),
            ("2020-01-02T3:04:05Z", false, "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05.25+01:30", false, "2020-01-02T01:34:05.25Z"),
            ("2020-01-02T03:04:05.000001Z", true, "2020-01-02T03:04:05.000001Z"),
        ];
        for (text, micro, want) in fine {
            assert_eq!(parse(text, micro).map(|time| time.to_string()).as_deref(), Ok(want), "{text}");
        }
    }
}
