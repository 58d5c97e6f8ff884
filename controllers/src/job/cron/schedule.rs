//! Cron schedules: five fields (minute, hour, day, month, weekday), each `*`, numbers, names, ranges, steps, lists.

use jiff::Zoned;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const SHORTHANDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// Days to look ahead: a schedule for 29 February may have to wait for eight years.
const DAYS_MOST: usize = 366 * 9;

/// Sets of numbers as bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// With both day and weekday given, either will do.
    either_day: bool,
    zone: TimeZone,
}

impl Schedule {
    pub fn parse(text: &str, zone: TimeZone) -> Option<Self> {
        let text =
            SHORTHANDS.iter().find(|(name, _)| *name == text.trim()).map_or(text, |(_, meaning)| meaning);
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return None };
        let any = |field: &str| field.starts_with('*') || field.starts_with('?');
        let mut on = field(weekdays, 0, 7, &WEEKDAYS, 0)?;
        // Sunday is both 0 and 7.
        if on & (1 << 7) != 0 {
            on |= 1;
        }
        Some(Self {
            minutes: field(minutes, 0, 59, &[], 0)?,
            hours: field(hours, 0, 23, &[], 0)?,
            days: field(days, 1, 31, &[], 0)?,
            months: field(months, 1, 12, &MONTHS, 1)?,
            weekdays: on,
            either_day: !any(days) && !any(weekdays),
            zone,
        })
    }

    /// The first time after `after`.
    pub fn next(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let start = after.to_zoned(self.zone.clone());
        let mut date = start.date();
        for _ in 0..DAYS_MOST {
            if self.is_on(date)
                && let Some(found) = self.times(date).map(|at| at.timestamp()).find(|at| *at > after)
            {
                return Some(found);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn is_on(&self, date: Date) -> bool {
        let has = |bits: u64, number: i8| bits & (1 << number) != 0;
        let weekday = date.weekday().to_sunday_zero_offset();
        let (day, weekday) = (has(self.days, date.day()), has(self.weekdays, weekday));
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    fn times(&self, date: Date) -> impl Iterator<Item = Zoned> + '_ {
        let all = (0_i8..24).flat_map(|hour| (0_i8..60).map(move |minute| (hour, minute)));
        let mine =
            all.filter(|(hour, minute)| self.hours & (1 << hour) != 0 && self.minutes & (1 << minute) != 0);
        mine.filter_map(move |(hour, minute)| {
            let at = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
            at.to_zoned(self.zone.clone()).ok()
        })
    }
}

fn field(text: &str, least: u32, most: u32, names: &[&str], first_name: u32) -> Option<u64> {
    let number = |text: &str| {
        let named = names
            .iter()
            .position(|name| text.eq_ignore_ascii_case(name))
            .and_then(|at| u32::try_from(at).ok());
        named
            .map(|at| at + first_name)
            .or_else(|| text.parse().ok())
            .filter(|number| (least..=most).contains(number))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step: usize = step.map_or(Some(1), |step| step.parse().ok().filter(|step| *step > 0))?;
        let (from, to) = match range {
            "*" | "?" => (least, most),
            _ => match range.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                // `5/10` means from 5 on.
                None if part.contains('/') => (number(range)?, most),
                None => (number(range)?, number(range)?),
            },
        };
        if from > to {
            return None;
        }
        for number in (from..=to).step_by(step) {
            bits |= 1 << number;
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn next(schedule: &str, after: &str, want: &str) {
        let schedule = Schedule::parse(schedule, TimeZone::UTC).expect("a schedule");
        assert_eq!(
            schedule.next(after.parse().expect("a time")).map(|at| at.to_string()),
            Some(want.to_owned())
        );
    }

    #[test]
    fn the_next_time_is_found() {
        next("*/5 * * * *", "2026-01-01T00:03:10Z", "2026-01-01T00:05:00Z");
        next("*/5 * * * *", "2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z");
        next("30 4 * * mon-fri", "2026-01-02T05:00:00Z", "2026-01-05T04:30:00Z");
        next("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        next("0 12 13 * fri", "2026-01-03T00:00:00Z", "2026-01-09T12:00:00Z");
        next("@hourly", "2026-01-01T00:59:59Z", "2026-01-01T01:00:00Z");
        next("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
    }

    #[test]
    fn nonsense_is_no_schedule() {
        for text in ["", "* * * *", "60 * * * *", "5-1 * * * *", "*/0 * * * *", "x * * * *"] {
            assert_eq!(Schedule::parse(text, TimeZone::UTC), None, "{text}");
        }
    }
}
