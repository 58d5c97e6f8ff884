//! Timestamps and durations: their texts as Go has them, their arithmetic and their parts.

use super::super::value::{Fault, Value, told};
use super::{Cost, Written};
use crate::status::go_quoted;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

const PART: &[&str] = &["timestamp.() int", "timestamp.(string) int"];
const PART_OF_BOTH: &[&str] = &["timestamp.() int", "timestamp.(string) int", "duration.() int"];

pub const TABLE: &[Written] = &[
    ("timestamp", &["(timestamp) timestamp", "(string) timestamp", "(int) timestamp"], Cost::One, |args| {
        match args {
            [Value::Timestamp(at)] => Ok(Value::Timestamp(*at)),
            [Value::Text(text)] => read_timestamp(text).map(Value::Timestamp),
            [Value::Int(seconds)] => at(i128::from(*seconds), 0).map(Value::Timestamp),
            _ => Err(Fault::NoOverload),
        }
    }),
    (
        "duration",
        &["(duration) duration", "(string) duration", "(int) duration"],
        Cost::One,
        |args| match args {
            [Value::Duration(value)] => Ok(Value::Duration(*value)),
            [Value::Text(text)] => {
                let read = read_duration(text).map(Value::Duration);
                read.ok_or_else(|| {
                    Fault::Told(
                        "type conversion error from 'string' to 'google.protobuf.Duration'".to_owned(),
                    )
                })
            }
            [Value::Int(nanos)] => Ok(Value::Duration(SignedDuration::from_nanos(*nanos))),
            _ => Err(Fault::NoOverload),
        },
    ),
    ("string", &["(timestamp) string", "(duration) string"], Cost::One, |args| match args {
        [Value::Timestamp(at)] => Ok(Value::text(at.to_string())),
        [Value::Duration(value)] => Ok(Value::text(shown(*value))),
        _ => Err(Fault::NoOverload),
    }),
    (
        "_+_",
        &[
            "(timestamp, duration) timestamp",
            "(duration, timestamp) timestamp",
            "(duration, duration) duration",
        ],
        Cost::One,
        |args| match args {
            [Value::Timestamp(at), Value::Duration(by)] | [Value::Duration(by), Value::Timestamp(at)] => {
                at.checked_add(*by).map(Value::Timestamp).map_err(|_| overflow())
            }
            [Value::Duration(one), Value::Duration(other)] => {
                one.checked_add(*other).map(Value::Duration).ok_or_else(overflow)
            }
            _ => Err(Fault::NoOverload),
        },
    ),
    (
        "_-_",
        &[
            "(timestamp, timestamp) duration",
            "(timestamp, duration) timestamp",
            "(duration, duration) duration",
        ],
        Cost::One,
        |args| match args {
            [Value::Timestamp(at), Value::Timestamp(other)] => Ok(Value::Duration(at.duration_since(*other))),
            [Value::Timestamp(at), Value::Duration(by)] => {
                at.checked_sub(*by).map(Value::Timestamp).map_err(|_| overflow())
            }
            [Value::Duration(one), Value::Duration(other)] => {
                one.checked_sub(*other).map(Value::Duration).ok_or_else(overflow)
            }
            _ => Err(Fault::NoOverload),
        },
    ),
    ("getFullYear", PART, Cost::One, |args| part(args, |at| i64::from(at.year()))),
    ("getMonth", PART, Cost::One, |args| part(args, |at| i64::from(at.month()) - 1)),
    ("getDayOfYear", PART, Cost::One, |args| part(args, |at| i64::from(at.day_of_year()) - 1)),
    ("getDate", PART, Cost::One, |args| part(args, |at| i64::from(at.day()))),
    ("getDayOfMonth", PART, Cost::One, |args| part(args, |at| i64::from(at.day()) - 1)),
    ("getDayOfWeek", PART, Cost::One, |args| {
        part(args, |at| i64::from(at.weekday().to_sunday_zero_offset()))
    }),
    ("getHours", PART_OF_BOTH, Cost::One, |args| match args {
        [Value::Duration(value)] => Ok(Value::Int(value.as_secs() / 3600)),
        args => part(args, |at| i64::from(at.hour())),
    }),
    ("getMinutes", PART_OF_BOTH, Cost::One, |args| match args {
        [Value::Duration(value)] => Ok(Value::Int(value.as_secs() / 60)),
        args => part(args, |at| i64::from(at.minute())),
    }),
    ("getSeconds", PART_OF_BOTH, Cost::One, |args| match args {
        [Value::Duration(value)] => Ok(Value::Int(value.as_secs())),
        args => part(args, |at| i64::from(at.second())),
    }),
    ("getMilliseconds", PART_OF_BOTH, Cost::One, |args| match args {
        [Value::Duration(value)] => Ok(Value::Int(i64::try_from(value.as_millis()).unwrap_or(i64::MAX))),
        args => part(args, |at| i64::from(at.millisecond())),
    }),
];

fn overflow() -> Fault {
    Fault::Told("timestamp overflow".to_owned())
}

fn part<'a>(args: &[Value<'a>], of: fn(&Zoned) -> i64) -> Result<Value<'a>, Fault> {
    let (at, zone) = match args {
        [Value::Timestamp(at)] => (at, TimeZone::UTC),
        [Value::Timestamp(at), Value::Text(zone)] => match time_zone(zone) {
            Some(zone) => (at, zone),
            None => return told(format!("unknown time zone {}", &**zone)),
        },
        _ => return Err(Fault::NoOverload),
    };
    Ok(Value::Int(of(&at.to_zoned(zone))))
}

/// A zone by its name, or by its hours and minutes from UTC.
fn time_zone(text: &str) -> Option<TimeZone> {
    let Some((hours, minutes)) = text.split_once(':') else {
        return match text {
            "" | "UTC" => Some(TimeZone::UTC),
            name => TimeZone::get(name).ok(),
        };
    };
    let (sign, hours) = hours.strip_prefix('-').map_or((1, hours.trim_start_matches('+')), |rest| (-1, rest));
    let (hours, minutes): (i16, i16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = i32::from(hours) * 3600 + i32::from(minutes) * 60;
    Offset::from_seconds(sign * seconds).ok().map(TimeZone::fixed)
}

/// The seconds of the first and the last timestamp that CEL has: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i128> = -62_135_596_800..=253_402_300_799;

fn at(seconds: i128, nanos: i32) -> Result<Timestamp, Fault> {
    let within = i64::try_from(seconds).ok().filter(|_| SECONDS.contains(&seconds)).ok_or_else(overflow)?;
    Timestamp::new(within, nanos).map_err(|_| overflow())
}

/// A timestamp of RFC 3339 as Go reads it: hours may have one digit, and fractions a comma.
pub fn read_timestamp(text: &str) -> Result<Timestamp, Fault> {
    let wrong =
        || Fault::Told("type conversion error from 'string' to 'google.protobuf.Timestamp'".to_owned());
    let (seconds, nanos, zone) = local(text).ok_or_else(wrong)?;
    let offset = offset(zone).ok_or_else(wrong)?;
    at(i128::from(seconds - offset), nanos)
}

/// What a schema's `date` or `date-time` is: also a date alone, or a time of no zone.
pub fn read_written(text: &str) -> Option<Timestamp> {
    if is_date(text) {
        let (seconds, ..) = local(&format!("{text}T00:00:00"))?;
        return at(i128::from(seconds), 0).ok();
    }
    read_timestamp(text).ok().or_else(|| match local(text)? {
        (seconds, nanos, "") => at(i128::from(seconds), nanos).ok(),
        _ => None,
    })
}

/// Whether a text is a date of a schema.
pub fn is_date(text: &str) -> bool {
    text.len() == 10 && local(&format!("{text}T00:00:00")).is_some()
}

/// Whether a text is a date and a time of a schema; which may also be written in small letters.
pub fn is_date_time(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    let zone = match time.find(['z', '+', '-']) {
        Some(start) => &time[start..],
        None => return false,
    };
    let zoned = zone == "z"
        || zone.len() == 6
            && zone[1..].split_once(':').is_some_and(|(hours, minutes)| {
                [hours, minutes]
                    .iter()
                    .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
            });
    let time = &time[..time.len() - zone.len()];
    let two_digits = time.find(':') == Some(2);
    zoned
        && is_date(date)
        && two_digits
        && local(&format!("{date}T{time}")).is_some_and(|(.., rest)| rest.is_empty())
}

/// A date and a time of day, as seconds since 1970 and nanoseconds, with what follows.
fn local(text: &str) -> Option<(i64, i32, &str)> {
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i16>().ok())?;
    let (date, time) = text.split_once('T').filter(|(date, _)| date.len() == 10 && date.is_ascii())?;
    if date.as_bytes()[4] != b'-' || date.as_bytes()[7] != b'-' {
        return None;
    }
    let (hours, rest) = time.split_once(':').filter(|(hours, _)| matches!(hours.len(), 1 | 2))?;
    let (minutes, rest) = rest.split_once(':').filter(|(minutes, _)| minutes.len() == 2)?;
    let (seconds, mut rest) = rest.split_at_checked(2)?;
    let small = |text: &str| i8::try_from(number(text)?).ok();
    let date = jiff::civil::Date::new(number(&date[..4])?, small(&date[5..7])?, small(&date[8..])?).ok()?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if end == 0 {
            return None;
        }
        nanos = format!("{:0<9}", &fraction[..end.min(9)]).parse().ok()?;
        rest = &fraction[end..];
    }
    let time = jiff::civil::Time::new(small(hours)?, small(minutes)?, small(seconds)?, 0).ok()?;
    let days = i64::from(jiff::civil::date(1970, 1, 1).until(date).ok()?.get_days());
    let of_day = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some((days * 86_400 + of_day, nanos, rest))
}

/// `Z`, or hours and minutes from UTC, in seconds.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let part = |text: &str, most: i64| -> Option<i64> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok())?.filter(|value| *value <= most)
    };
    let seconds = part(hours, 24)? * 3600 + part(minutes, 60)? * 60;
    match zone.as_bytes()[0] {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

/// A duration as Go reads it: `1h2m3.5s`.
pub fn read_duration(text: &str) -> Option<SignedDuration> {
    go_duration(text).ok()
}

/// The same.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn go_duration(text: &str) -> Result<SignedDuration, String> {
    const UNITS: [(&str, i128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let quoted = go_quoted(text);
    let invalid = || format!("time: invalid duration {quoted}");
    let (negative, mut rest) = match text.as_bytes().first().ok_or_else(invalid)? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    match rest {
        "0" => return Ok(SignedDuration::ZERO),
        "" => return Err(invalid()),
        _ => {}
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit {
                "" => format!("time: missing unit in duration {quoted}"),
                _ => format!("time: unknown unit {} in duration {quoted}", go_quoted(unit)),
            });
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        nanos = whole.checked_mul(*scale).and_then(|more| nanos.checked_add(more)).ok_or_else(invalid)?;
        let mut scale = *scale;
        for digit in fraction.bytes().take(18) {
            scale /= 10;
            nanos += i128::from(digit - b'0') * scale;
        }
        rest = after;
    }
    i64::try_from(if negative { -nanos } else { nanos })
        .map(SignedDuration::from_nanos)
        .map_err(|_| invalid())
}

/// A duration in seconds, as CEL writes it.
pub fn shown(value: SignedDuration) -> String {
    let nanos = value.as_nanos();
    let (sign, nanos) = if nanos < 0 { ("-", -nanos) } else { ("", nanos) };
    let (whole, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    match fraction {
        0 => format!("{sign}{whole}s"),
        fraction => format!("{sign}{whole}.{}s", format!("{fraction:09}").trim_end_matches('0')),
    }
}
