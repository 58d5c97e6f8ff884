//! The syntax of cron schedules. In: a schedule. Out: nothing, or the complaint of the parser that Kubernetes uses.

use crate::expression::go_duration;

/// Name, lowest, highest, names of values.
struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Minute, hour, day of month, month, day of week.
const FIELDS: [Field; 5] = [
    Field { low: 0, high: 59, names: &[] },
    Field { low: 0, high: 23, names: &[] },
    Field { low: 1, high: 31, names: &[] },
    Field { low: 1, high: 12, names: MONTHS },
    Field { low: 0, high: 6, names: DAYS },
];

/// Checks `text`, five fields or `@daily` and the like, with or without a zone in front.
pub(super) fn check(text: &str) -> Result<(), String> {
    let zoned = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
    let text = match zoned.map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
        Some((zone, _)) if jiff::tz::TimeZone::get(zone).is_err() => {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        Some((_, rest)) => rest.trim(),
        None => text,
    };
    if let Some(descriptor) = text.strip_prefix('@') {
        return check_descriptor(descriptor, text);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", words.len(), words.join(" ")));
    }
    words
        .iter()
        .zip(&FIELDS)
        .try_for_each(|(word, field)| word.split(',').try_for_each(|part| field.check(part)))
}

fn check_descriptor(descriptor: &str, text: &str) -> Result<(), String> {
    match descriptor {
        "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly" => Ok(()),
        _ => match descriptor.strip_prefix("every ") {
            Some(duration) => go_duration(duration)
                .map(drop)
                .map_err(|fault| format!("failed to parse duration {text}: {fault}")),
            None => Err(format!("unrecognized descriptor: {text}")),
        },
    }
}

impl Field {
    /// `*`, `5`, `1-5`, each with `/step`.
    fn check(&self, part: &str) -> Result<(), String> {
        let pieces: Vec<&str> = part.split('/').collect();
        let range: Vec<&str> = pieces[0].split('-').collect();
        if pieces.len() > 2 {
            return Err(format!("too many slashes: {part}"));
        }
        let (start, end) = match range[..] {
            ["*" | "?"] => (self.low, self.high),
            [one] => {
                let start = self.number(one)?;
                (start, if pieces.len() == 2 { self.high } else { start })
            }
            [from, to] => (self.number(from)?, self.number(to)?),
            _ => return Err(format!("too many hyphens: {part}")),
        };
        if pieces.len() == 2 && self.plain(pieces[1])? == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        if start < self.low {
            return Err(format!("beginning of range ({start}) below minimum ({}): {part}", self.low));
        }
        if end > self.high {
            return Err(format!("end of range ({end}) above maximum ({}): {part}", self.high));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
        }
        Ok(())
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        match self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            Some(at) => Ok(u32::try_from(at).unwrap_or_default() + self.low),
            None => self.plain(text),
        }
    }

    fn plain(&self, text: &str) -> Result<u32, String> {
        let quoted = || crate::status::go_quoted(text);
        text.parse().map_err(|_| {
            format!("failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax", quoted())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn schedules_are_judged_field_by_field() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar mon", "@hourly", "@every 1h30m", "0 0 ? * 1-5/2"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(check("* * *").unwrap_err(), "expected exactly 5 fields, found 3: [* * *]");
        assert_eq!(check("60 * * * *").unwrap_err(), "end of range (60) above maximum (59): 60");
        assert_eq!(check("TZ=Etc/UTC @daily"), Ok(()));
        assert_eq!(
            check("CRON_TZ=Nowhere * * * * *").unwrap_err(),
            "provided bad location Nowhere: unknown time zone Nowhere"
        );
        assert!(check("@sometimes").is_err() && check("a * * * *").is_err());
    }
}
