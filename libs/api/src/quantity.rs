//! Resource quantities (`100m`, `1Gi`, `2e3`): exact parsing, comparison, arithmetic and canonical text.
//!
//! In: the text of a JSON string or number. Out: a [`Quantity`], whole nano units in an `i128`. Invariants: what is
//! finer than a nano unit is rounded away from zero, so that asking for little never becomes asking for nothing; what
//! does not fit is capped at 2^63-1 units. Source: apimachinery `api/resource`.

use std::cmp::Ordering;
use std::fmt;

const NANO: i128 = 1_000_000_000;
const CAP: i128 = i64::MAX as i128 * NANO;

/// Why a text is no quantity, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// A suffix that does not exist.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes that a quantity was written in, and is written in again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `e3`.
    Exponent,
    /// `k`, `m`.
    Decimal,
    /// `Ki`.
    Binary,
}

/// An exact amount with the way it likes to be written. Two quantities are equal when their amounts are.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// That many whole units, written with decimal suffixes.
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANO, format: Format::Decimal }
    }
    /// That many thousandths.
    #[must_use]
    pub const fn from_milli(milli: i64) -> Self {
        Self { nanos: milli as i128 * (NANO / 1000), format: Format::Decimal }
    }
    /// That many whole units, written with binary suffixes (`Ki`, `Mi`).
    #[must_use]
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nanos: bytes as i128 * NANO, format: Format::Binary }
    }

    /// Reads a quantity.
    ///
    /// # Errors
    /// Kubernetes' text.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = digits(rest);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Format);
        }
        let (format, scale) = suffix_scale(suffix)?;
        let magnitude = scaled(whole, fraction, scale);
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }

    /// Whole units, rounded up.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.in_units_of(NANO)
    }
    /// Thousandths, rounded up.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.in_units_of(NANO / 1000)
    }
    /// Whether the amount is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
    /// Whether the amount is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }
    /// Whether it is a whole number of units.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }
    /// The ratio of two amounts; zero when `whole` is zero.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio is for scoring, not for accounting")]
    pub fn fraction_of(&self, whole: Self) -> f64 {
        if whole.nanos == 0 { 0.0 } else { self.nanos as f64 / whole.nanos as f64 }
    }

    fn in_units_of(&self, unit: i128) -> i64 {
        let floor = self.nanos.div_euclid(unit);
        let rounded = if self.nanos.rem_euclid(unit) == 0 { floor } else { floor + 1 };
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }
    fn with(self, other: Self, nanos: i128) -> Self {
        Self { nanos, format: if self.nanos == 0 { other.format } else { self.format } }
    }
}

/// The text that Kubernetes writes for a quantity it has read; `None` when `text` is not one.
#[must_use]
pub fn canonical(text: &str) -> Option<String> {
    Quantity::parse(text).ok().map(|quantity| quantity.to_string())
}

impl std::ops::Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.with(other, self.nanos.saturating_add(other.nanos))
    }
}
impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.with(other, self.nanos.saturating_sub(other.nanos))
    }
}
impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl std::ops::SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, |sum, one| sum + one)
    }
}
impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}
impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}
impl std::str::FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

/// The form of a number and its suffix that is taken for the canonical one: no sign where it is positive, no leading
/// zeros, no point without what follows, a small letter before an exponent.
fn plain(text: &str) -> String {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number = number.strip_suffix('.').unwrap_or(number).trim_start_matches('0');
    let number = if number.is_empty() { "0" } else { number };
    let suffix = match suffix.strip_prefix(['e', 'E']) {
        Some(exponent) if exponent.ends_with(|c: char| c.is_ascii_digit()) => {
            format!("e{}", exponent.strip_prefix('+').unwrap_or(exponent))
        }
        _ => suffix.to_owned(),
    };
    format!("{sign}{number}{suffix}")
}

impl Quantity {
    /// As it is written where it was read from `text`: that is kept where it says the same in nearly the same words.
    #[must_use]
    pub fn written_as(self, text: &str) -> String {
        let canonical = self.to_string();
        if canonical != text && self.nanos != 0 && plain(text) == canonical {
            text.to_owned()
        } else {
            canonical
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Small or fractional binary amounts are written in decimal, or they would lose precision.
        if self.format == Format::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANO {
            return write_binary(self.nanos / NANO, f);
        }
        write_decimal(self.nanos, self.format, f)
    }
}

fn write_binary(mut units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while units % 1024 == 0 && power + 1 < SUFFIXES.len() {
        units /= 1024;
        power += 1;
    }
    write!(f, "{units}{}", SUFFIXES[power])
}

fn write_decimal(mut amount: i128, format: Format, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut power = 0;
    while amount % 1000 == 0 && power + 1 < SUFFIXES.len() {
        amount /= 1000;
        power += 1;
    }
    match format {
        Format::Exponent if power == 3 => write!(f, "{amount}"),
        Format::Exponent if power < 3 => write!(f, "{amount}e-{}", 9 - 3 * power),
        Format::Exponent => write!(f, "{amount}e{}", 3 * power - 9),
        Format::Decimal | Format::Binary => write!(f, "{amount}{}", SUFFIXES[power]),
    }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

fn suffix_scale(suffix: &str) -> Result<(Format, Scale), QuantityError> {
    let letters = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let (_, end) = digits(letters.strip_prefix(['-', '+']).unwrap_or(letters));
    if !end.is_empty() {
        return Err(QuantityError::Format);
    }
    let ten = |exponent| Ok((Format::Decimal, Scale::Ten(exponent)));
    let two = |exponent| Ok((Format::Binary, Scale::Two(exponent)));
    match suffix {
        "n" => ten(-9),
        "u" => ten(-6),
        "m" => ten(-3),
        "" => ten(0),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => two(10),
        "Mi" => two(20),
        "Gi" => two(30),
        "Ti" => two(40),
        "Pi" => two(50),
        "Ei" => two(60),
        _ => suffix
            .strip_prefix(['e', 'E'])
            .and_then(|exponent| exponent.parse().ok())
            .map(|exponent| (Format::Exponent, Scale::Ten(exponent)))
            .ok_or(QuantityError::Suffix),
    }
}

/// `whole.fraction` times its scale in nano units, rounded away from zero and capped.
fn scaled(whole: &str, fraction: &str, scale: Scale) -> i128 {
    // 18 digits behind the point are exact; whatever follows only tips the rounding.
    let (kept, beyond) = fraction.split_at(fraction.len().min(18));
    let tip = i128::from(beyond.bytes().any(|digit| digit != b'0'));
    let whole = whole.trim_start_matches('0');
    let Ok(units) = (if whole.is_empty() { Ok(0) } else { whole.parse::<i128>() }) else { return CAP };
    let parts: i128 = if kept.is_empty() { 0 } else { kept.parse().unwrap_or_default() };
    let places = i32::try_from(kept.len()).unwrap_or_default();
    let sum = match scale {
        Scale::Two(bits) => units
            .checked_mul(NANO << bits)
            .and_then(|nanos| nanos.checked_add(times_ten(parts << bits, 9 - places, tip)?)),
        Scale::Ten(exponent) => times_ten(units, exponent.saturating_add(9), 0)
            .and_then(|nanos| nanos.checked_add(times_ten(parts, exponent.saturating_add(9 - places), tip)?)),
    };
    sum.unwrap_or(CAP)
}

fn times_ten(amount: i128, power: i32, tip: i128) -> Option<i128> {
    let factor = 10i128.checked_pow(power.unsigned_abs());
    if amount == 0 {
        return Some(tip);
    }
    if power >= 0 {
        return amount.checked_mul(factor?)?.checked_add(tip);
    }
    let Some(factor) = factor else { return Some(1) };
    let (quotient, remainder) = (amount / factor, amount % factor);
    Some(quotient + i128::from(remainder != 0 || tip != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_the_same_in_nearly_the_same_words_is_kept() {
        let rows = [
            ("+1", "+1"),
            ("01", "01"),
            ("5.", "5."),
            ("1E3", "1E3"),
            ("1E+3", "1E+3"),
            ("007Mi", "007Mi"),
            ("1500e-3", "1500e-3"),
            ("1000e-3", "1"),
            ("+1.5Gi", "1536Mi"),
            ("1000", "1k"),
            ("1.000", "1"),
            (".5", "500m"),
            ("-0", "0"),
        ];
        for (text, want) in rows {
            let quantity: Quantity = text.parse().expect(text);
            assert_eq!(quantity.written_as(text), want);
        }
    }

    #[test]
    fn canonical_texts() {
        let cases = [
            ("0", "0"),
            ("0Gi", "0"),
            ("-0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1000Ki", "1000Ki"),
            ("1023", "1023"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1Ki", "1Ki"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E6", "1e6"),
            ("100E", "100E"),
            ("1E", "1E"),
            ("123456k", "123456k"),
            ("1000k", "1M"),
            ("10", "10"),
            ("10000", "10k"),
            ("1e-3", "1e-3"),
            ("-5", "-5"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("001", "1"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("100000000000000000000000000000000000000000", "9223372036854775807"),
            ("2Ei", "2Ei"),
            ("3000000u", "3"),
            ("1e0", "1"),
            ("64Mi", "64Mi"),
            ("1.25Ki", "1280"),
        ];
        for (given, want) in cases {
            assert_eq!(canonical(given).as_deref(), Some(want), "{given}");
        }
    }

    #[test]
    fn malformed_texts() {
        for text in ["", "-", ".", "abc", "1.1.1", "1 ", " 1", "1+1.0M", "1mi ", "aoeu", "--1", "m"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Format), "{text}");
        }
        for text in ["1i", "1mi", "1K", "1e", "-3.01e-", "1mm"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Suffix), "{text}");
        }
    }

    #[test]
    fn rounds_up_and_counts() {
        let quantity = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(quantity("1.1").value(), 2);
        assert_eq!(quantity("-1.1").value(), -1);
        assert_eq!(quantity("1m").value(), 1);
        assert_eq!(quantity("1500u").milli_value(), 2);
        assert_eq!(quantity("2").milli_value(), 2000);
        assert_eq!((quantity("1Gi") + quantity("512Mi")).to_string(), "1536Mi");
        assert_eq!((Quantity::ZERO + quantity("1Gi")).to_string(), "1Gi");
        assert_eq!((quantity("1") - quantity("250m")).to_string(), "750m");
        assert!(quantity("1Gi") > quantity("1G") && quantity("1000m") == quantity("1"));
    }
}
