//! Cron schedules, as robfig/cron reads them for Kubernetes.
//!
//! In: five fields (minute, hour, day, month, weekday), `@daily` and the like, or `@every 90m`. Out: times, or the complaint of
//! Kubernetes' parser.

use crate::expression::go_duration;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// Lowest, highest, names of values.
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
/// Days to look ahead: a schedule for 29 February may have to wait for eight years.
const DAYS_MOST: usize = 366 * 9;

/// When something is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    due: Due,
    /// Where its hours and days are.
    pub zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq)]
enum Due {
    /// So long after the last time.
    Every(SignedDuration),
    /// By [`FIELDS`].
    At([Set; 5]),
}

/// The values of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Set {
    /// As bits.
    values: u64,
    /// Whether the field leaves the choice to others.
    any: bool,
}

impl Set {
    fn has(self, value: i8) -> bool {
        self.values & (1 << value) != 0
    }
}

impl Schedule {
    /// Reads `text`, with or without a zone in front; where there is none, times are those of `zone`.
    ///
    /// # Errors
    /// The complaint of the parser that Kubernetes uses.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        let zoned = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
        let (zone, text) = match zoned.map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
            Some((name, rest)) => {
                let unknown = |_| format!("provided bad location {name}: unknown time zone {name}");
                (TimeZone::get(name).map_err(unknown)?, rest.trim())
            }
            None => (zone, text),
        };
        let due = match text.strip_prefix('@') {
            Some(descriptor) => described(descriptor, text)?,
            None => Due::At(fields(text)?),
        };
        Ok(Self { due, zone })
    }

    /// The first time after `after`, unless there is none within years.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let sets = match &self.due {
            Due::Every(pause) => return whole(after).checked_add(*pause).ok(),
            Due::At(sets) => sets,
        };
        let mut date = after.to_zoned(self.zone.clone()).date();
        for _ in 0..DAYS_MOST {
            let found = is_on(sets, date).then(|| self.times(sets, date).find(|at| *at > after)).flatten();
            if found.is_some() {
                return found;
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The last time after `after` that is not after `until`: found from the end, however many there are.
    #[must_use]
    pub fn last(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let first = self.next(after).filter(|first| *first <= until)?;
        let sets = match &self.due {
            Due::Every(pause) => {
                let more = until.duration_since(first).as_secs() / pause.as_secs().max(1);
                let further = pause.checked_mul(i32::try_from(more).ok()?)?;
                return first.checked_add(further).ok();
            }
            Due::At(sets) => sets,
        };
        let mut date = until.to_zoned(self.zone.clone()).date();
        let begin = first.to_zoned(self.zone.clone()).date();
        while date > begin {
            let found = is_on(sets, date).then(|| self.times(sets, date).filter(|at| *at <= until).last());
            if let Some(found) = found.flatten() {
                return Some(found);
            }
            date = date.yesterday().ok()?;
        }
        self.times(sets, begin).filter(|at| *at <= until).last()
    }

    /// About how many times there are from the first after `after` until `until`, as Kubernetes estimates it: by the first pause.
    #[must_use]
    pub fn count(&self, after: Timestamp, until: Timestamp) -> i64 {
        let Some(first) = self.next(after).filter(|first| *first <= until) else { return 0 };
        let pause = self.next(first).map_or(0, |second| second.duration_since(first).as_secs());
        until.duration_since(first).as_secs().checked_div(pause).unwrap_or(0) + 1
    }

    /// The times of a day, in order.
    fn times(&self, sets: &[Set; 5], date: Date) -> impl Iterator<Item = Timestamp> {
        let [minutes, hours, ..] = *sets;
        let all = (0_i8..24).flat_map(|hour| (0_i8..60).map(move |minute| (hour, minute)));
        let due = all.filter(move |(hour, minute)| hours.has(*hour) && minutes.has(*minute));
        let zone = self.zone.clone();
        due.filter_map(move |(hour, minute)| {
            let at = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
            at.to_zoned(zone.clone()).ok().as_ref().map(Zoned::timestamp)
        })
    }
}

/// Whether a day has times at all. With both day and weekday given, either will do.
fn is_on(sets: &[Set; 5], date: Date) -> bool {
    let [_, _, days, months, weekdays] = sets;
    let (day, weekday) = (days.has(date.day()), weekdays.has(date.weekday().to_sunday_zero_offset()));
    let on = if days.any || weekdays.any { day && weekday } else { day || weekday };
    on && months.has(date.month())
}

fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn described(descriptor: &str, text: &str) -> Result<Due, String> {
    Ok(Due::At(fields(match descriptor {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => {
            let Some(pause) = descriptor.strip_prefix("every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            let pause =
                go_duration(pause).map_err(|fault| format!("failed to parse duration {text}: {fault}"))?;
            return Ok(Due::Every(SignedDuration::from_secs(pause.as_secs().max(1))));
        }
    })?))
}

fn fields(text: &str) -> Result<[Set; 5], String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", words.len(), words.join(" ")));
    }
    let mut sets = [Set::default(); 5];
    for ((word, field), set) in words.iter().zip(&FIELDS).zip(&mut sets) {
        for part in word.split(',') {
            let more = field.read(part)?;
            *set = Set { values: set.values | more.values, any: set.any || more.any };
        }
    }
    Ok(sets)
}

impl Field {
    /// `*`, `5`, `1-5`, each with `/step`.
    fn read(&self, part: &str) -> Result<Set, String> {
        let pieces: Vec<&str> = part.split('/').collect();
        let range: Vec<&str> = pieces[0].split('-').collect();
        if pieces.len() > 2 {
            return Err(format!("too many slashes: {part}"));
        }
        let (start, end) = match range[..] {
            ["*" | "?"] => (self.low, self.high),
            [one] => {
                let start = self.number(one)?;
                // `5/10` means from 5 on.
                (start, if pieces.len() == 2 { self.high } else { start })
            }
            [from, to] => (self.number(from)?, self.number(to)?),
            _ => return Err(format!("too many hyphens: {part}")),
        };
        let step = if pieces.len() == 2 { self.plain(pieces[1])? } else { 1 };
        if step == 0 {
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
        let values = (start..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        let any = matches!(range[..], ["*" | "?"]) && step == 1;
        Ok(Set { values: values.fold(0, |bits, value| bits | 1 << value), any })
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
    use super::*;

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text, TimeZone::UTC).expect(text)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn schedules_are_judged_field_by_field() {
        let fault = |text: &str| Schedule::parse(text, TimeZone::UTC).expect_err(text);
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar mon", "@hourly", "@every 1h30m", "0 0 ? * 1-5/2"] {
            schedule(good);
        }
        assert_eq!(fault("* * *"), "expected exactly 5 fields, found 3: [* * *]");
        assert_eq!(fault("60 * * * *"), "end of range (60) above maximum (59): 60");
        assert_eq!(fault("0 0 * * 7"), "end of range (7) above maximum (6): 7");
        assert_eq!(schedule("TZ=Europe/Berlin @daily").zone, TimeZone::get("Europe/Berlin").expect("zone"));
        assert_eq!(
            fault("CRON_TZ=Nowhere * * * * *"),
            "provided bad location Nowhere: unknown time zone Nowhere"
        );
        for bad in ["", "@sometimes", "a * * * *", "5-1 * * * *", "*/0 * * * *", "@every x"] {
            fault(bad);
        }
    }

    #[test]
    fn the_next_time_is_found() {
        for (text, after, next) in [
            ("*/5 * * * *", "2026-01-01T00:03:10Z", "2026-01-01T00:05:00Z"),
            ("*/5 * * * *", "2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z"),
            ("30 4 * * mon-fri", "2026-01-02T05:00:00Z", "2026-01-05T04:30:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 12 13 * fri", "2026-01-03T00:00:00Z", "2026-01-09T12:00:00Z"),
            // A step leaves no choice to the other field: a Monday or an odd day.
            ("0 0 */2 * mon", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"),
            ("@hourly", "2026-01-01T00:59:59Z", "2026-01-01T01:00:00Z"),
            ("@every 90m", "2026-01-01T00:00:00.5Z", "2026-01-01T01:30:00Z"),
            ("@every 10ms", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
            ("TZ=Asia/Tokyo 0 9 * * *", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ] {
            assert_eq!(schedule(text).next(at(after)), Some(at(next)), "{text}");
        }
        assert_eq!(schedule("59 23 31 2 *").next(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn the_last_time_is_found_however_many_were_missed() {
        let now = at("2026-01-05T10:07:00Z");
        for (text, after, last, count) in [
            ("*/5 * * * *", "2026-01-05T10:00:00Z", Some("2026-01-05T10:05:00Z"), 1),
            ("*/5 * * * *", "2026-01-05T10:05:00Z", None, 0),
            ("* * * * *", "1970-01-01T00:00:00Z", Some("2026-01-05T10:07:00Z"), 29_460_127),
            ("0 0 1 1 *", "2020-06-01T00:00:00Z", Some("2026-01-01T00:00:00Z"), 6),
            ("@every 90m", "2026-01-05T00:00:00Z", Some("2026-01-05T09:00:00Z"), 6),
            ("59 23 31 2 *", "2026-01-01T00:00:00Z", None, 0),
        ] {
            let schedule = schedule(text);
            assert_eq!(schedule.last(at(after), now), last.map(at), "{text}");
            assert_eq!(schedule.count(at(after), now), count, "{text}");
        }
    }
}
